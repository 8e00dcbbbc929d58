"""The pictures, as SVG: the scenarios' speed-ups, and the growth with the number of questions.

Both have logarithmic axes. They are written as text: a plotting library would be the largest
dependency of the project, for two charts of a dozen marks.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.measure import Results
from benchmarks.tables import factor, seconds

__all__ = ["scale_picture", "scenarios_picture", "write"]

_INK, _FAINT, _BAR, _SECOND = "#1f2328", "#d0d7de", "#0969da", "#bc4c00"
_FONT = "font-family='system-ui, sans-serif' font-size='13'"
_ROW = 26
_LEFT, _WIDE, _TOP = 210, 480, 56


def write(folder: Path, results: Results) -> list[Path]:
    """Write the pictures of what was measured; return their files."""
    pictures = {
        f"scenarios-{name}.svg": scenarios_picture(profile)
        for name, profile in results["profiles"].items()
    }
    if "scale" in results:
        pictures["scale.svg"] = scale_picture(results["scale"]["sizes"])
    for name, text in pictures.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in pictures]


def scenarios_picture(profile: Mapping[str, Any]) -> str:
    """Return a bar for each scenario: how many times faster than the original."""
    rows = [(one["title"], one["speedup"]) for one in profile["scenarios"].values()]
    decades = max(1, math.ceil(math.log10(max(value for _, value in rows))))

    def x(value: float) -> float:
        return _LEFT + _WIDE * max(0.0, math.log10(value)) / decades

    bottom = _TOP + _ROW * len(rows)
    parts = [_text(16, 24, f"Times faster than the original: {profile['about']}", weight="600")]
    for power in range(decades + 1):
        parts.append(_line(x(10**power), _TOP - 8, x(10**power), bottom))
        parts.append(
            _text(x(10**power), _TOP - 14, f"{10**power:,}\N{MULTIPLICATION SIGN}", anchor="middle")
        )
    for number, (title, value) in enumerate(rows):
        top = _TOP + _ROW * number
        parts.append(_text(_LEFT - 8, top + 17, title, anchor="end"))
        width = max(1.0, x(value) - _LEFT)
        parts.append(
            f"<rect x='{_LEFT}' y='{top + 4}' width='{width:.1f}' height='18' fill='{_BAR}'/>"
        )
        parts.append(_text(x(value) + 6, top + 17, factor(value)))
    return _svg(_LEFT + _WIDE + 90, bottom + 16, parts)


def scale_picture(sizes: Mapping[str, Mapping[str, Any]]) -> str:
    """Return two lines over the number of questions: warm, and with one question changed."""
    series: dict[str, list[tuple[float, float]]] = {
        name: [(float(size), one[key]["median"]) for size, one in sizes.items()]
        for name, key in (("warm", "warm"), ("one question changed", "changed"))
    }
    points = [point for line in series.values() for point in line]
    across = _decades(x for x, _ in points)
    up = _decades(y for _, y in points)
    left, wide, top, high = 80, 520, 56, 260

    def at(point: tuple[float, float]) -> tuple[float, float]:
        x = (math.log10(point[0]) - across[0]) / (across[1] - across[0])
        y = (math.log10(point[1]) - up[0]) / (up[1] - up[0])
        return left + wide * x, top + high * (1 - y)

    parts = [_text(16, 24, "Seconds of a whole process, by the number of questions", weight="600")]
    for power in range(across[0], across[1] + 1):
        x, y = at((10.0**power, 10.0 ** up[0]))
        parts.append(_line(x, top, x, y))
        parts.append(_text(x, y + 18, f"{10**power:,}", anchor="middle"))
    for power in range(up[0], up[1] + 1):
        x, y = at((10.0 ** across[0], 10.0**power))
        parts.append(_line(x, y, left + wide, y))
        parts.append(_text(x - 8, y + 4, seconds(10.0**power), anchor="end"))
    for number, (name, line) in enumerate(series.items()):
        colour = (_BAR, _SECOND)[number]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, line))
        parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>")
        for x, y in map(at, line):
            parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3.5' fill='{colour}'/>")
        parts.append(_text(left + 12, top + 18 + 18 * number, name, fill=colour))
    return _svg(left + wide + 40, top + high + 32, parts)


def _decades(values: Iterable[float]) -> tuple[int, int]:
    logs = [math.log10(value) for value in values]
    low, high = math.floor(min(logs) + 1e-9), math.ceil(max(logs) - 1e-9)
    return low, max(high, low + 1)


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", weight: str = "400", fill: str = _INK
) -> str:
    place = f"x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'"
    return f"<text {place} font-weight='{weight}' fill='{fill}'>{escape(text)}</text>"


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    ends = f"x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}'"
    return f"<line {ends} stroke='{_FAINT}'/>"


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    size = f"width='{width:.0f}' height='{height:.0f}' viewBox='0 0 {width:.0f} {height:.0f}'"
    body = "\n".join(parts)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' {size} {_FONT}>\n"
        f"<rect width='100%' height='100%' fill='#ffffff'/>\n{body}\n</svg>\n"
    )
