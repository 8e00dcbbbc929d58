"""`cachedeval show`: the answers of a saved report, in the terminal."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cachedeval.cli.format import show
from cachedeval.cli.options import Namespace, Parser
from cachedeval.engine.errors import InputError

if TYPE_CHECKING:
    from cachedeval.evals.report import ItemResult, Report

__all__ = ["declare", "execute"]


def declare(parser: Parser) -> None:
    """Add the options."""
    parser.add_argument("report", metavar="REPORT", help="A report that `cachedeval run` wrote.")
    parser.add_argument(
        "--item",
        metavar="N",
        help="Show one question alone: its number, from 1, or its id.",
    )
    parser.add_argument(
        "--worst", action="store_true", help="Show failures first, and then by rising score."
    )


def execute(options: Namespace) -> int:
    """Show the questions of a saved report with answers, scores and rationales.

    Pipe it into a pager: `cachedeval show report.json | less`.
    """
    from cachedeval.evals.report import read_reports

    reports = read_reports(options.report)
    for report in reports:
        show("\n".join(_lines(report, options)))
    return 0


def _lines(report: "Report", options: Namespace) -> Iterator[str]:
    score = "no score" if report.score is None else f"{report.score:.1f}"
    yield f"{report.adapter or 'base'}: {score}, scored by {', '.join(report.judges or [report.judge])}"
    numbered = list(enumerate(report.items, start=1))
    if options.item is not None:
        numbered = [
            (number, item) for number, item in numbered if options.item in (str(number), item.id)
        ]
        if not numbered:
            raise InputError(
                f"--item {options.item}: the report has no such question; give a number from 1 to "
                f"{len(report.items)} or an id"
            )
    if options.worst:
        numbered.sort(key=lambda each: -1.0 if each[1].score is None else each[1].score)
    for number, item in numbered:
        yield ""
        yield from _item(number, len(report.items), item)


def _item(number: int, count: int, item: "ItemResult") -> Iterator[str]:
    if item.score is None:
        yield f"── {number} of {count} · failed: {item.error}"
    else:
        parts = [f"{name} {score:g}" for name, score in item.criteria.items()]
        parts += [
            f"{judge} {'failed' if score is None else f'{score:.1f}'}"
            for judge, score in item.scores.items()
            if len(item.scores) > 1
        ]
        yield " · ".join([f"── {number} of {count}", f"{item.score:.1f}", *parts])
    texts = [
        ("question", item.question),
        ("reference", item.reference),
        ("reasoning", item.reasoning),
        ("answer, truncated" if item.truncated else "answer", item.response),
        ("rationale", item.rationale or None),
    ]
    for name, text in texts:
        if text is not None:
            yield f"{name}:"
            yield from (f"  {line}" for line in text.splitlines() or [""])
