"""Results as tables: for the terminal in columns, for the documents in Markdown."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.measure import Results

__all__ = ["Table", "factor", "markdown", "noise", "rounded", "seconds", "show", "tables_of"]

_TIMES = "\N{MULTIPLICATION SIGN}"

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""Title, heads, rows."""


def seconds(value: float) -> str:
    """Return a duration with its unit."""
    if value < 1e-3:  # noqa: PLR2004
        return f"{value * 1e6:.3g} µs"
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s" if value < 1000 else f"{value:,.0f} s"  # noqa: PLR2004


def rounded(value: float) -> float:
    """Return a figure with two significant digits, which is more than most measurements hold."""
    return float(f"{value:.2g}")


def factor(value: float | None) -> str:
    """Return a ratio with two significant digits."""
    if value is None:
        return "—"
    return f"{rounded(value):,.0f}{_TIMES}" if value >= 100 else f"{value:.2g}{_TIMES}"  # noqa: PLR2004


def noise(summary: Mapping[str, Any]) -> str:
    """Return a summary's noise, and of how many samples."""
    if summary["noise"] is None:
        return f"n={summary['n']}"
    return f"±{100 * summary['noise'] / 2:.0f}% n={summary['n']}"


def tables_of(results: Results) -> list[Table]:
    """Return a table for each part that was measured."""
    found: list[Table] = []
    for name, profile in results["profiles"].items():
        found.append(_scenarios(name, profile))
        if profile.get("script"):
            found.append(_script(name, profile))
    makers: list[tuple[str, Callable[[Any], Iterable[Table]]]] = [
        ("reproducibility", _reproducibility),
        ("startup", _startup),
        ("peers", _peers),
        ("scale", _scale),
        ("sharing", _sharing),
    ]
    for part, make in makers:
        if part in results:
            found.extend(make(results[part]))
    return found


def show(results: Results) -> str:
    """Return all tables for a terminal."""
    return "\n\n".join(_columns(table) for table in tables_of(results))


def markdown(table: Table) -> str:
    """Return a table in Markdown, without its title."""
    _, heads, rows = table
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def _columns(table: Table) -> str:
    title, heads, rows = table
    cells = [list(heads), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    lines = [title]
    for row in cells:
        first = row[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join([first, *rest]).rstrip())
    return "\n".join(lines)


def _scenarios(name: str, profile: Mapping[str, Any]) -> Table:
    heads = (
        *("scenario", "original", "ours", "noise", "faster", "of bound"),
        *("loads", "batching", "concurrency", "cache", "loaded", "answered", "asked"),
    )
    rows = []
    for one in profile["scenarios"].values():
        row = [
            one["title"],
            seconds(rounded(one["original"])),
            seconds(one["seconds"]["median"]),
            noise(one["seconds"]),
            factor(one["speedup"]),
            "—" if one["of_bound"] is None else f"{one['of_bound']:.2f}",
            *(
                factor(one["factors"][part])
                for part in ("loads", "batching", "concurrency", "cache")
            ),
            *(str(one[count]) for count in ("loads", "generated", "asked")),
        ]
        rows.append(row)
    title = (
        f"{name}: {profile['about']}, {profile['questions']} questions, at most "
        f"{profile['max_tokens']} tokens each, judge {profile['latency']:g} s"
    )
    return title, heads, rows


def _script(name: str, profile: Mapping[str, Any]) -> Table:
    rows = [
        (
            profile["scenarios"][scenario]["title"],
            seconds(one["seconds"]["median"]),
            noise(one["seconds"]),
            seconds(profile["scenarios"][scenario]["seconds"]["median"]),
            f"{one['ours']['median']:.2f}",
            noise(one["ours"]),
        )
        for scenario, one in profile["script"].items()
    ]
    heads = ("scenario", "peer script", "noise", "ours", "ours / script", "noise")
    return f"Beside the peer script ({name})", heads, rows


def _reproducibility(part: Mapping[str, Any]) -> Iterable[Table]:
    first = next(iter(part["digests"].values()))
    rows = [
        (way, f"{part['scores'][way]:.6g}", "same bytes" if digest == first else "OTHER BYTES")
        for way, digest in part["digests"].items()
    ]
    drawn = part["original"]
    rows.append(
        (
            f"the original, {drawn['questions']} of {drawn['of']} drawn without a seed",
            f"{drawn['low']:.3g} to {drawn['high']:.3g}",
            f"standard deviation {drawn['stdev']:.2g}",
        )
    )
    yield "Reproducibility", ("the same evaluation", "score", "report"), rows


def _startup(part: Mapping[str, Any]) -> Iterable[Table]:
    rows = [
        (
            name,
            seconds(one["seconds"]["median"]),
            noise(one["seconds"]),
            factor(one["ratio"]["median"]),
        )
        for name, one in part.items()
    ]
    yield "Start-up", ("command", "time", "noise", "of `python -c pass`"), rows


def _peers(part: Mapping[str, Any]) -> Iterable[Table]:
    points = sorted(part["points"].items(), key=lambda item: item[1]["hit"]["median"])
    yield (
        "One hit, one miss",
        ("cache", "hit", "noise", "miss", "noise"),
        [
            (
                name,
                *(seconds(one["hit"]["median"]), noise(one["hit"])),
                *(seconds(one["miss"]["median"]), noise(one["miss"])),
            )
            for name, one in points
        ],
    )
    sizes = list(dict.fromkeys(size for one in part["pipelines"].values() for size in one))
    ours = part["pipelines"]["ours, disk"]
    rows, cold = [], []
    for name, one in part["pipelines"].items():
        row, first = [name], [name]
        for size in sizes:
            found = one.get(size, {"error": "not run"})
            row += _pipeline(found, ours[size])
            first += _cold(found, ours[size])
        rows.append(row)
        cold.append(first)
    heads = ["pipeline, warm, new process"]
    for size in sizes:
        heads += [f"{int(size):,} questions", "noise", "of ours"]
    yield "Warm pipeline", heads, rows
    heads = ["pipeline, cold"]
    for size in sizes:
        heads += [f"{int(size):,} questions", "of ours", "peak memory", "bytes a question"]
    yield "Cold pipeline", heads, cold
    together = part["writers"]
    yield (
        "Four writers",
        ("cache", "seconds", "times each answer was computed"),
        [
            (name, one["error"], "—")
            if "error" in one
            else (name, seconds(one["seconds"]), f"{one['computed']:.2f}")
            for name, one in together["caches"].items()
        ],
    )
    if part["missing"]:
        yield "Not measured", ("peer", "why"), [tuple(item) for item in part["missing"].items()]


def _cold(one: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    if "error" in one:
        return [one["error"], "—", "—", "—"]
    about = "≈ " if "scaled_from" in one else ""
    peak = f"{one['cold_peak_mb']:.0f} MB" if "cold_peak_mb" in one else "—"
    ratio = factor(one["cold"] / ours["cold"])
    return [
        *(about + seconds(one["cold"]), about + ratio),
        *(peak, f"{one['bytes_a_question']:,.0f}"),
    ]


def _pipeline(one: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    if "error" in one:
        return [one["error"], "", "—"]
    median = one["seconds"]["median"]
    ratio = factor(median / ours["seconds"]["median"])
    if "scaled_from" in one:
        return [f"≈ {seconds(median)}", f"scaled from {one['scaled_from']:,}", f"≈ {ratio}"]
    return [seconds(median), noise(one["seconds"]), ratio]


def _scale(part: Mapping[str, Any]) -> Iterable[Table]:
    rows = [
        (
            f"{int(size):,}",
            seconds(one["cold"]),
            seconds(one["warm"]["median"]),
            noise(one["warm"]),
            seconds(one["changed"]["median"]),
            f"{one['generated']} + {one['judged']}",
            f"{one['cold_peak_mb']:.0f} MB",
            f"{one['peak_mb']:.0f} MB",
            f"{one['bytes_a_question']:,.0f}",
        )
        for size, one in part["sizes"].items()
    ]
    heads = (
        *("questions", "cold", "warm", "noise", "one changed", "computed then"),
        *("peak cold", "peak warm", "bytes a question"),
    )
    yield f"Scale: warm seconds, less the start, grow as n^{part['slope']:.2f}", heads, rows


def _sharing(part: Mapping[str, Any]) -> Iterable[Table]:
    rows = [
        (
            processes,
            f"{one['questions']:,}",
            *(seconds(one["seconds"][state]) for state in ("cold", "warm")),
            *(f"{one['generated'][state]:,}" for state in ("cold", "warm")),
        )
        for processes, one in part.items()
    ]
    heads = ("processes", "questions each", "cold", "warm", "computed cold", "computed warm")
    yield "Processes on one cache, all at the same time", heads, rows
