"""`cachedeval history`: the saved reports of a folder, in the order in which they were written."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cachedeval.cli.format import show, show_json, table
from cachedeval.cli.options import Namespace, Parser, add_json
from cachedeval.cli.outputs import new_file

if TYPE_CHECKING:
    from cachedeval.evals.history import Entry

__all__ = ["declare", "execute"]


def declare(parser: Parser) -> None:
    """Add the options."""
    parser.add_argument("folder", metavar="DIR", help="A folder that `run --out` wrote to.")
    parser.add_argument(
        "--html", type=new_file, metavar="FILE", help="Write the reports as one HTML page."
    )
    add_json(parser, "the history")


def execute(options: Namespace) -> int:
    """Show how scores changed over the reports in a folder, and what else changed with them.

    Reports are found in the folder and those within it, by the time at which each was written.
    """
    from cachedeval.evals.history import read_history

    entries = read_history(options.folder)
    if options.html is not None:
        from cachedeval.evals.page.render import write_page

        names = [f"{entry.report.adapter or 'base'}, {_time(entry)}" for entry in entries]
        write_page(options.html, [entry.report for entry in entries], names)
    if options.json:
        show_json([_as_json(entry) for entry in entries])
    else:
        show(
            table(
                ("written", "subject", "score", "95% interval", "scored", "changed"),
                map(_row, entries),
            )
        )
    return 0


def _row(entry: "Entry") -> tuple[Any, ...]:
    report = entry.report
    return (
        _time(entry),
        report.adapter or "base",
        "—" if report.score is None else f"{report.score:.1f}",
        "—" if report.interval is None else "{:.1f} to {:.1f}".format(*report.interval),
        f"{report.scored} of {report.questions}",
        ", ".join(entry.changes),
    )


def _as_json(entry: "Entry") -> dict[str, Any]:
    report = entry.report
    return {
        "file": str(entry.path),
        "written": _time(entry),
        "adapter": report.adapter,
        "score": report.score,
        "interval": report.interval,
        "questions": report.questions,
        "scored": report.scored,
        "changes": entry.changes,
    }


def _time(entry: "Entry") -> str:
    return f"{datetime.fromtimestamp(entry.written, UTC):%Y-%m-%d %H:%M:%S}"
