"""Showing times, ages, counts and costs to people."""

from collections.abc import Mapping

__all__ = ["plural", "show_age", "show_cost", "show_seconds"]

_STEPS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def plural(count: int, noun: str) -> str:
    """Return a count and its noun: `1 record`, `1,200 records`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def show_seconds(seconds: float) -> str:
    """Return a time for people: `0.4 s`, `36 s`, `12 min`, `3.2 h`, `2.5 d`."""
    for size, unit in _STEPS:
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    if seconds >= 10:  # noqa: PLR2004
        return f"{seconds:.0f} s"
    return f"{seconds:.2g} s" if seconds >= 0.1 else f"{seconds * 1000:.0f} ms"  # noqa: PLR2004


def show_age(then: float, now: float) -> str:
    """Return how long ago something was: `12 s`, `3 d`; what lies ahead is `0 s`."""
    age = max(now - then, 0.0)
    for size, unit in _STEPS:
        if age >= size:
            return f"{age / size:.0f} {unit}"
    return f"{age:.0f} s"


def show_cost(cost: Mapping[str, float]) -> str:
    """Return what something cost in its own units, money last; not its time."""
    parts = [
        f"{amount:,.0f} {unit.replace('_', ' ')}"
        for unit, amount in cost.items()
        if unit not in ("usd", "seconds")
    ]
    if "usd" in cost:
        parts.append(f"${cost['usd']:.2f}" if cost["usd"] >= 1 else f"${cost['usd']:.2g}")
    return ", ".join(parts)
