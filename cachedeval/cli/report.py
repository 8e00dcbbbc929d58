"""`cachedeval report`: saved reports as one page of HTML."""

from cachedeval.cli.format import plural, show
from cachedeval.cli.options import Namespace, Parser
from cachedeval.cli.outputs import new_file

__all__ = ["declare", "execute"]


def declare(parser: Parser) -> None:
    """Add the options."""
    parser.add_argument(
        "reports", nargs="+", metavar="REPORT", help="A report that `cachedeval run` wrote."
    )
    parser.add_argument(
        "-o",
        "--output",
        type=new_file,
        required=True,
        metavar="FILE",
        help="The HTML file to write.",
    )


def execute(options: Namespace) -> int:
    """Write saved reports as one HTML file: scores, differences, and every answer.

    The first report is the one that the others are compared with. The file needs no network and
    opens in any browser.
    """
    from cachedeval.evals.page.render import name_reports, write_page
    from cachedeval.evals.report import read_reports

    reports = [report for path in options.reports for report in read_reports(path)]
    write_page(options.output, reports, name_reports(reports))
    show(f"{plural(len(reports), 'report')} → {options.output}")
    return 0
