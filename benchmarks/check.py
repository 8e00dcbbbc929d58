"""Compares results with the targets in `targets.toml`.

A target names a figure by its path in the results and bounds it: `at_least`, `at_most` or `equals`.
With `per` it bounds the figure divided by another. A figure that was not measured is passed over,
unless the target says `needed`.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import Results

__all__ = ["TARGETS", "load_targets", "shortfalls", "value_at"]

TARGETS = Path(__file__).with_name("targets.toml")


def load_targets(path: Path = TARGETS) -> dict[str, list[dict[str, Any]]]:
    """Read targets: a list of tables for each mode, and one for `all`."""
    targets: dict[str, list[dict[str, Any]]] = tomllib.loads(path.read_text(encoding="utf-8"))
    return targets


def value_at(results: Mapping[str, Any], path: Sequence[str]) -> Any:
    """Return the figure at a path of names, or None where nothing was measured."""
    found: Any = results
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return found


def shortfalls(results: Results, targets: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return a line for each target that is missed."""
    lines = []
    for target in (*targets.get("all", ()), *targets.get(results["mode"], ())):
        value, per = value_at(results, target["figure"]), 1.0
        if "per" in target:
            per = value_at(results, target["per"])
        if value is None or per is None:
            if target.get("needed", False):
                lines.append(f"{target['name']}: not measured")
            continue
        figure = value if "equals" in target else value / per
        if "at_least" in target and figure < target["at_least"]:
            lines.append(f"{target['name']}: {figure:.4g}, wanted at least {target['at_least']}")
        if "at_most" in target and figure > target["at_most"]:
            lines.append(f"{target['name']}: {figure:.4g}, wanted at most {target['at_most']}")
        if "equals" in target and figure != target["equals"]:
            lines.append(f"{target['name']}: {figure!r}, wanted {target['equals']!r}")
    return lines
