"""Pictures of scores, as HTML and SVG: pure functions from numbers to markup."""

from collections.abc import Sequence
from typing import NamedTuple

from cachedeval.evals.text import html

__all__ = ["Estimate", "differences", "estimates"]

_MOST = 100.0


class Estimate(NamedTuple):
    """A number with its interval."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""
    """What is written beside it in place of the interval."""


def estimates(rows: Sequence[Estimate], low: float, high: float, *, signed: bool = False) -> str:
    """Return a picture with a line an estimate: its name, its interval on an axis, its figures.

    Args:
        rows: the estimates, top to bottom.
        low: the left end of the axis.
        high: the right end.
        signed: write figures with their sign, and mark 0.
    """
    form = "{:+.1f}" if signed else "{:.1f}"
    parts = []
    for row in rows:
        shapes, figures = "", "no score"
        if row.value is not None:
            figures = form.format(row.value)
            if row.low is not None and row.high is not None:
                ends = [_at(end, low, high) for end in (row.low, row.high)]
                width = max(ends[1] - ends[0], 0.4)
                shapes += (
                    f'<rect class="band" x="{ends[0]:.2f}" y="5" width="{width:.2f}" height="6"/>'
                )
                figures += f" ({form.format(row.low)} to {form.format(row.high)})"
            at = _at(row.value, low, high)
            shapes += f'<line class="tick" x1="{at:.2f}" x2="{at:.2f}" y1="2" y2="14"/>'
        if row.note:
            figures = row.note
        marks = (0.0,) if signed else (low, (low + high) / 2, high)
        grid = "".join(
            f'<line class="grid" x1="{_at(mark, low, high):.2f}" x2="{_at(mark, low, high):.2f}" '
            'y1="0" y2="16"/>'
            for mark in marks
        )
        parts.append(
            f'<div class="row"><bdi>{html(row.name)}</bdi>'
            f'<svg class="bar" viewBox="0 0 100 16" preserveAspectRatio="none" aria-hidden="true">'
            f"{grid}{shapes}</svg>"
            f'<span class="n">{html(figures)}</span></div>'
        )
    labels = [form.format(end) for end in (low, (low + high) / 2, high)]
    axis = "".join(f"<span>{label}</span>" for label in labels)
    return (
        f'<div class="chart">{"".join(parts)}'
        f'<div class="row"><span></span><span class="axis bar">{axis}</span><span></span></div></div>'
    )


def differences(name: str, values: Sequence[float]) -> str:
    """Return a picture of the differences of single questions, sorted: how many, and how large.

    Args:
        name: what the picture shows, for those who cannot see it.
        values: one difference a question, -100 to 100, in any order.
    """
    ordered = sorted(values)
    wide = 1000 / max(len(ordered), 1)
    paths = {"up": "", "down": ""}
    for at, value in enumerate(ordered):
        if value:
            height = value / _MOST * 50
            paths["up" if value > 0 else "down"] += (
                f"M{at * wide:.2f} 50h{max(wide * 0.85, 0.5):.2f}v{-height:.2f}"
                f"h{-max(wide * 0.85, 0.5):.2f}z"
            )
    shapes = "".join(f'<path class="{kind}" d="{path}"/>' for kind, path in paths.items() if path)
    return (
        f'<svg class="bars" viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" '
        f'aria-label="{html(name)}"><line class="grid" x1="0" x2="1000" y1="50" y2="50"/>'
        f"{shapes}</svg>"
    )


def _at(value: float, low: float, high: float) -> float:
    """Return where a value is on the axis, in percent of its length."""
    return 100 * (min(max(value, low), high) - low) / (high - low)
