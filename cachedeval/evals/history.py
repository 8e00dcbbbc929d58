"""The history of an evaluation: saved reports in the order in which they were written."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cachedeval.engine.errors import InputError
from cachedeval.evals.report import Report, read_reports

__all__ = ["Entry", "read_history"]


class Entry(NamedTuple):
    """A saved report and what is different in it from the one before of the same subject."""

    path: Path
    written: float
    """When the file was written, in seconds since the epoch."""
    report: Report
    changes: list[str]
    """What differs apart from the answers: `judge f1 → exact`, `20 → 40 questions`."""


def read_history(folder: str | os.PathLike[str]) -> list[Entry]:
    """Return the reports in a folder and in those within it, oldest first.

    Files that hold no report are left out.

    Args:
        folder: what `--out` wrote to, once or often.

    Raises:
        InputError: the folder cannot be read, or holds no report.
    """
    if not Path(folder).is_dir():
        raise InputError(f"history {folder}: is not a folder; give one that `run --out` wrote to")
    found = sorted(
        (
            (path.stat().st_mtime, path, report)
            for path in Path(folder).rglob("*.json")
            for report in _reports(path)
        ),
        key=lambda each: (each[0], str(each[1]), each[2].adapter or ""),
    )
    if not found:
        raise InputError(
            f"history {folder}: holds no report; `cachedeval run --out {folder}` writes them"
        )
    last: dict[str | None, Report] = {}
    entries = []
    for written, path, report in found:
        before = last.get(report.adapter)
        last[report.adapter] = report
        changes = [] if before is None else list(_changes(before, report))
        entries.append(Entry(path, written, report, changes))
    return entries


def _reports(path: Path) -> Sequence[Report]:
    try:
        return read_reports(path) if path.is_file() else []
    except InputError:
        return []


def _changes(before: Report, now: Report) -> Iterator[str]:
    for what in ("model", "judge", "rubric", "seed"):
        was, became = getattr(before, what), getattr(now, what)
        if was != became:
            yield f"{what} {was} → {became}"
    if before.questions != now.questions:
        yield f"{before.questions} → {now.questions} questions"
    elif [item.id for item in before.items] != [item.id for item in now.items]:
        yield "other questions"
    theirs = {item.id: item.response for item in before.items}
    changed = sum(item.id in theirs and theirs[item.id] != item.response for item in now.items)
    if changed:
        yield f"{changed} other answer{'' if changed == 1 else 's'}"
