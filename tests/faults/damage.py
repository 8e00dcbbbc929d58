"""Corrupts the files of a cache on disk, one place at a time, and runs on what is left.

`python -m faults.damage ROOT byte|cut SEED FROM TO` prints a line of JSON for each place.
"""

import json
import logging
import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from faults.attacked import Graph, graph_of

from cachedeval import Engine

__all__ = ["measure_damage"]

_COUNT = 12


def measure_damage(root: Path, kind: str, seed: int, numbers: range) -> Iterator[dict[str, int]]:
    """Yield what came of each damage.

    Args:
        root: a folder for the cache; what is there of an earlier time is used again.
        kind: `byte` changes one byte of a file, `cut` cuts a file short.
        seed: with the damage's number, it chooses what is damaged.
        numbers: of the damages.
    """
    pristine, folder = root / "pristine", root / "cache"
    graph = graph_of(str(root / "log"), "damage", _COUNT)
    if not pristine.exists():
        root.mkdir(parents=True)
        for _ in range(2):  # the second time notes the hits, so that there is a file of them too
            with Engine(f"disk:{pristine}") as engine:
                engine.run(graph.calls)
    for number in numbers:
        by = random.Random(f"{seed} {number}")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(pristine, folder)
        what = _damage(folder, kind, by)
        yield {"damages": 1, f"of them to {what}": 1, **_run(folder, graph)}


def _damage(folder: Path, kind: str, by: random.Random) -> str:
    """Damage a random place; return the kind of file that it is in."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_size:
            files.setdefault(path.name if path.suffix == ".db" else "values' files", []).append(
                path
            )
    what = by.choice(sorted(files))
    path = by.choice(files[what])
    data = bytearray(path.read_bytes())
    at = by.randrange(len(data))
    if kind == "cut":
        del data[at:]
    else:
        data[at] ^= by.randrange(1, 256)
    path.write_bytes(data)
    return what


def _run(folder: Path, graph: Graph) -> Counter[str]:
    found: Counter[str] = Counter()
    for again in (False, True):
        with Engine(f"disk:{folder}") as engine:
            outcomes = engine.settle(graph.calls)
            for wanted, outcome in zip(graph.values, outcomes, strict=True):
                found["must be 0: errors"] += outcome.error is not None
                found["must be 0: wrong values"] += (
                    outcome.error is None and outcome.value != wanted
                )
            computed = sum(stats.computed for stats in engine.stats.values())
            found["records found damaged"] += engine.store.counts.corrupt
        if again:
            # A run without a database that cannot be repaired warns once; all else heals.
            found["runs that healed the cache"] += not computed
        else:
            found["results computed again"] += computed
            found["damages without effect"] += not computed
    return found


if __name__ == "__main__":
    logging.disable()
    first, last = int(sys.argv[4]), int(sys.argv[5])
    for found in measure_damage(
        Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), range(first, last)
    ):
        print(json.dumps(found), flush=True)
