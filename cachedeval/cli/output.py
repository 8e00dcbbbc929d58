"""Showing reports, sizes and times to people."""

import re
import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import click

from cachedeval.evals.report import Report

__all__ = [
    "bytes_of",
    "duration_of",
    "say",
    "short",
    "show_bytes",
    "show_report",
    "show_run",
    "table",
]

_SIZES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def bytes_of(text: str) -> int:
    """Return the bytes of a size like `2GB`, `512MB`, `100` (powers of 1024).

    Raises:
        click.BadParameter: it is no size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    try:
        if found is not None:
            return int(float(found[1]) * _SIZES[found[2]])
    except OverflowError:
        pass
    raise click.BadParameter(f"{text!r} is no size; give one like 2GB or 500MB")


def duration_of(text: str) -> timedelta:
    """Return the time of a duration like `30d`, `12h`, `90s`.

    Raises:
        click.BadParameter: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip().lower())
    try:
        if found is not None:
            return timedelta(seconds=float(found[1]) * _TIMES[found[2]])
    except OverflowError:
        pass
    raise click.BadParameter(f"{text!r} is no time; give one like 30d, 12h or 90s")


def show_bytes(size: float) -> str:
    """Return a size for people."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024:  # noqa: PLR2004
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"


def say(text: str) -> None:
    """Tell the person at the terminal something; a pipe that reads the output is not told."""
    if sys.stderr.isatty():
        click.echo(text, err=True)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return rows in aligned columns, those of numbers to the right."""
    body = [[str(cell) for cell in row] for row in rows]
    columns = []
    for name, *cells in zip(head, *body, strict=True):
        width = max(len(cell) for cell in (name, *cells))
        right = all(_is_number(cell) for cell in cells)
        columns.append([c.rjust(width) if right else c.ljust(width) for c in (name, *cells)])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell[:1] in ("+", "-", "—", "$", "")


def show_report(report: Report) -> str:
    """Return a report for people: the score, its parts, what failed, and what it took."""
    score = "no score" if report.score is None else f"{report.score:.1f}"
    error = "" if report["stderr"] is None else f" ± {report['stderr']:.1f}"
    name = report["adapter"] or "base model"
    lines = [f"{name}: {score}{error}  ({report.scored} scored, {report.failed} failed)"]
    if len(report["criteria"]) > 1:
        parts = (f"{criterion} {mean:.2f}" for criterion, mean in report["criteria"].items())
        lines.append("  " + ", ".join(parts))
    failed = [item for item in report["items"] if item["error"]]
    lines += [
        f"  failed: {short(item['question'])} — {short(item['error'], 160)}" for item in failed[:3]
    ]
    if len(failed) > 3:  # noqa: PLR2004
        lines.append(f"  … and {len(failed) - 3} more; --json tells them all")
    return "\n".join(lines)


def show_run(run: dict[str, Any]) -> str:
    """Return what a run did, in a line a step."""
    loads = run["loads"]
    lines = [f"{run['seconds']:.2f} s, {loads} model load{'' if loads == 1 else 's'}"]
    for name, counts in run["nodes"].items():
        lines.append(
            f"  {name}: {counts['calls']} calls, {counts['hits']} from the cache, "
            f"{counts['computed']} computed, {counts['failed']} failed"
        )
    for what, cost in (("spent", run["judge_spent"]), ("saved", run["judge_saved"])):
        if cost["prompt_tokens"] or cost["completion_tokens"]:
            money = "" if cost["usd"] is None else f", ${cost['usd']:.4f} at list price"
            lines.append(
                f"  judge {what}: {cost['prompt_tokens']} tokens in, "
                f"{cost['completion_tokens']} out{money}"
            )
    if run["near_ties"]["met"]:
        lines.append(
            f"  near ties: {run['near_ties']['met']} met, {run['near_ties']['changed']} changed a "
            "token"
        )
    if run["one_by_one"]["answers"]:
        lines.append(
            f"  decoded one by one, which takes longer: {run['one_by_one']['answers']} answers; "
            f"batches of this model cannot be trusted: {short(run['one_by_one']['reason'], 160)}"
        )
    return "\n".join(lines)


def short(text: str, width: int = 60) -> str:
    """Return a text as one line of so many characters at the most, safe to show on a terminal."""
    line = " ".join(text.split())
    line = line if len(line) <= width else line[: width - 1] + "…"
    # What a model wrote may hold escape sequences that a terminal would obey.
    return "".join(character if character.isprintable() else "\ufffd" for character in line)
