"""A run as a few lines of Markdown, for the summary of a CI job or a pull request."""

from collections.abc import Sequence

from cachedeval.evals.gates import Gate
from cachedeval.evals.report import Report
from cachedeval.evals.text import markdown

__all__ = ["summarize"]

_FAILED_SHOWN = 5
_WIDTH = 120


def summarize(reports: Sequence[Report], gates: Sequence[Gate] = ()) -> str:
    """Return reports and gates as Markdown: a table, the gates, and what failed.

    Example:
        >>> from cachedeval.evals.report import ItemResult, build_report
        >>> items = [ItemResult(id="1", question="?", score=50.0, criteria={})]
        >>> print(summarize([build_report(items, failures_count_zero=False, judge="f1")]))
        ### cachedeval
        <BLANKLINE>
        | | score | 95% interval | scored | failed | truncated |
        | --- | ---: | ---: | ---: | ---: | ---: |
        | base | 50.0 | | 1 | 0 | 0 |
        <BLANKLINE>
        Scored by f1.
        <BLANKLINE>
    """
    lines = [
        "### cachedeval",
        "",
        "| | score | 95% interval | scored | failed | truncated |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for report in reports:
        score = "none" if report.score is None else f"{report.score:.1f}"
        certain = " "
        if report.interval is not None:
            certain = " {:.1f} to {:.1f} ".format(*report.interval)
        lines.append(
            f"| {markdown(report.adapter or 'base')} | {score} |{certain}| {report.scored} "
            f"| {report.failed} | {report.truncated} |"
        )
    judges = dict.fromkeys(judge for report in reports for judge in report.judges or [report.judge])
    lines += ["", f"Scored by {', '.join(map(markdown, judges))}.", ""]
    for gate in gates:
        lines += [f"{'✅' if gate.passed else '❌'} {markdown(gate.message)}", ""]
    failed = [item for report in reports for item in report.items if item.error]
    for item in failed[:_FAILED_SHOWN]:
        lines.append(f"- failed: {_short(item.question)}: {_short(item.error or '')}")
    if len(failed) > _FAILED_SHOWN:
        lines.append(f"- and {len(failed) - _FAILED_SHOWN} more failed questions")
    return "\n".join(lines).rstrip("\n") + "\n"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return markdown(line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…")
