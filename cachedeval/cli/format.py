"""Formatting for people: text that is safe on a terminal, tables, sizes, times and costs."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cachedeval.cli.streams import write
from cachedeval.evals.text import clean

if TYPE_CHECKING:
    import logging

__all__ = [
    "clean",
    "clean_log",
    "log_all",
    "plural",
    "short",
    "show",
    "show_age",
    "show_bytes",
    "show_cost",
    "show_json",
    "show_seconds",
    "table",
]

_STEPS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def short(text: str, width: int = 60) -> str:
    """Return a text as one clean line of at most `width` characters."""
    line = " ".join(text.split())
    return clean(line if len(line) <= width else line[: width - 1] + "…")


def show(text: str, *, before: str = "", error: bool = False) -> None:
    """Print a text for people, cleaned; to stderr if `error`.

    Args:
        text: the text.
        before: our own text in front of it, which may hold colours.
        error: print to stderr.

    Raises:
        CachedevalError: it cannot be written; the disk is full.
    """
    write(before + clean(text), error=error)


def clean_log() -> None:
    """Clean what is logged to stderr where a program sets up no logging of its own: warnings."""
    import logging

    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_clean_formatter("%(message)s"))


def log_all() -> None:
    """Log to stderr whatever this package has to say, cleaned."""
    import logging

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_clean_formatter(logging.BASIC_FORMAT))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("cachedeval").setLevel(logging.DEBUG)


def _clean_formatter(form: str) -> "logging.Formatter":
    import logging

    class Clean(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return clean(super().format(record))

    return Clean(form)


def show_json(value: object) -> None:
    """Print a value for programs. JSON escapes all control characters."""
    write(json.dumps(value, indent=2, allow_nan=False))


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return rows in aligned columns; columns of numbers are aligned to the right."""
    body = [[clean(" ".join(str(cell).split())) for cell in row] for row in rows]
    columns = []
    for name, *cells in zip(head, *body, strict=True):
        width = max(len(cell) for cell in (name, *cells))
        right = all(_is_number(cell) for cell in cells)
        columns.append([c.rjust(width) if right else c.ljust(width) for c in (name, *cells)])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell[:1] in ("+", "-", "—", "$", "")


def plural(count: int, noun: str) -> str:
    """Return a count and its noun: `1 record`, `1,200 records`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def show_bytes(size: float) -> str:
    """Return a size in bytes for people: `512 B`, `1.5 MB` (powers of 1024)."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024:  # noqa: PLR2004
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"


def show_seconds(seconds: float) -> str:
    """Return a duration for people: `0.4 s`, `36 s`, `12 min`, `3.2 h`, `2.5 d`."""
    for size, unit in _STEPS:
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    if seconds >= 10:  # noqa: PLR2004
        return f"{seconds:.0f} s"
    return f"{seconds:.2g} s" if seconds >= 0.1 else f"{seconds * 1000:.0f} ms"  # noqa: PLR2004


def show_age(then: float, now: float) -> str:
    """Return how long ago a time was: `12 s`, `3 d`; `0 s` for a time in the future."""
    age = max(now - then, 0.0)
    for size, unit in _STEPS:
        if age >= size:
            return f"{age / size:.0f} {unit}"
    return f"{age:.0f} s"


def show_cost(cost: Mapping[str, float]) -> str:
    """Return a cost in its own units, money last; without the time."""
    parts = [
        f"{amount:,.0f} {unit.replace('_', ' ')}"
        for unit, amount in cost.items()
        if unit not in ("usd", "seconds")
    ]
    if "usd" in cost:
        parts.append(f"${cost['usd']:.2f}" if cost["usd"] >= 1 else f"${cost['usd']:.2g}")
    return ", ".join(parts)
