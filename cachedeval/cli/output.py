"""Showing reports, sizes and times to people."""

import re
import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import click

from cachedeval.evals.report import Report

__all__ = ["bytes_of", "duration_of", "say", "show_bytes", "show_report", "show_run", "table"]

_SIZES = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def bytes_of(text: str) -> int:
    """Return the bytes of a size like `2GB`, `512MB`, `100` (powers of 1024).

    Raises:
        click.BadParameter: it is no size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if found is None:
        raise click.BadParameter(f"{text!r} is no size; give one like 2GB or 500MB")
    return int(float(found[1]) * _SIZES[found[2]])


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
    """Return rows in aligned columns, numbers to the right."""
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = []
    for row in cells:
        parts = [
            cell.rjust(width) if _is_number(cell) else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell[:1] in "+-" or cell == "—"


def show_report(report: Report) -> str:
    """Return a report for people: the score, its parts, what failed, and what it took."""
    score = "no score" if report.score is None else f"{report.score:.1f}"
    error = "" if report["stderr"] is None else f" ± {report['stderr']:.1f}"
    name = report["adapter"] or "base model"
    lines = [f"{name}: {score}{error}  ({report.scored} scored, {report.failed} failed)"]
    if len(report["criteria"]) > 1:
        parts = (f"{name} {mean:.2f}" for name, mean in report["criteria"].items())
        lines.append("  " + ", ".join(parts))
    failed = [item for item in report["items"] if item["error"]]
    lines += [
        f"  failed: {_short(item['question'])} — {_short(item['error'], 160)}"
        for item in failed[:3]
    ]
    if len(failed) > 3:  # noqa: PLR2004
        lines.append(f"  … and {len(failed) - 3} more; --json tells them all")
    return "\n".join(lines)


def show_run(run: dict[str, Any]) -> str:
    """Return what a run did, in a line a step."""
    lines = [f"{run['seconds']:.2f} s, {run['loads']} model loads"]
    for name, counts in run["nodes"].items():
        lines.append(
            f"  {name}: {counts['calls']} calls, {counts['hits']} from the cache, "
            f"{counts['computed']} computed, {counts['failed']} failed"
        )
    return "\n".join(lines)


def _short(text: str, width: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
