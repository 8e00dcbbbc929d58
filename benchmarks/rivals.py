"""Measures ours, the floor and the peers: single hits and stores, and the warm pipeline."""

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.measure import Ran, Rounds, Stopped, command, summary
from benchmarks.peers.environment import PYTHON, REQUIREMENTS

__all__ = ["measure_rivals"]

_WANTED, _BUDGET_S = 9, 20
_AMPLE_S = 600


class _Rival(NamedTuple):
    """One whose pipeline or single calls are measured: the words before its arguments."""

    words: tuple[str, ...]
    points: bool = True
    pipeline: bool = True

    def run(self, folder: Path, size: int, limit_s: float) -> Ran:
        """Run the pipeline on a folder."""
        mode = () if "benchmarks.floor" in self.words else ("pipeline",)
        return command([*self.words, *mode, folder, str(size)], limit_s=limit_s)

    def fill(self, folder: Path, size: int, limit_s: float) -> None:
        """Run the pipeline for the first time."""
        if "benchmarks.floor" in self.words:
            command([*self.words, folder, str(size), "fill"], limit_s=limit_s)
        else:
            # Twice: some know their own results only at the second time.
            self.run(folder, size, limit_s)
            self.run(folder, size, limit_s)

    def point(self, folder: Path) -> dict[str, Any]:
        """Return the seconds of a single hit and a single store."""
        told: dict[str, Any] = json.loads(
            command([*self.words, "point", folder], limit_s=120).out.splitlines()[-1]
        )
        return told


def _rivals(*, peers_too: bool) -> tuple[dict[str, _Rival], dict[str, str]]:
    """Return who can be measured, and why the others cannot."""
    ours = (sys.executable, "-m", "benchmarks.peers.ours")
    found = {
        "floor": _Rival((sys.executable, "-m", "benchmarks.floor"), points=False),
        "ours, disk": _Rival((*ours, "disk")),
        "ours, memory": _Rival((*ours, "memory"), pipeline=False),
        "diskcache, bytes": _Rival((*ours, "bytes"), pipeline=False),
    }
    peers = {
        "diskcache.memoize": "diskcache_memoize",
        "joblib.Memory": "joblib_memory",
        "cachier": "cachier_files",
        "marimo": "marimo_cache",
        "DSPy": "dspy_cache",
        "inspect_ai": "inspect_cache",
        "lm-eval": "lm_eval_cache",
        "redun": "redun_tasks",
        "Hamilton": "hamilton_dag",
    }
    if not peers_too:
        return found, dict.fromkeys(peers, "not in a quick run")
    if not PYTHON.exists():
        why = "`python -m benchmarks.peers.environment` was not run"
        return found, dict.fromkeys(peers, why)
    for name, module in peers.items():
        found[name] = _Rival((str(PYTHON), "-m", f"benchmarks.peers.{module}"))
    return found, {}


def measure_rivals(
    root: Path,
    sizes: Sequence[int],
    limit_s: float,
    say: Callable[[str], None],
    *,
    peers_too: bool,
) -> dict[str, Any]:
    """Measure whoever is installed.

    Args:
        root: an empty folder.
        sizes: questions of the pipelines, ascending.
        limit_s: seconds after which one run of a pipeline is given up; a larger one is then scaled
            from the smaller one by the number of questions, and says so.
        say: told what begins.
        peers_too: measure the peers, and not just ours, the floor and diskcache's bytes.

    Returns:
        `points` and `pipelines` by name, and `missing`: why who is missing.
    """
    rivals, missing = _rivals(peers_too=peers_too)
    points = _points(rivals, root, say, missing)
    pipelines: dict[str, dict[str, Any]] = {}
    chosen = {n: r for n, r in rivals.items() if r.pipeline and n not in missing}
    for size in sizes:
        filled = {}
        for name, rival in chosen.items():
            folder = root / "pipelines" / f"{rival.words[-1]}-{size}"
            smaller = pipelines.get(name, {}).get(str(sizes[0]))
            if smaller is not None and "error" in smaller:
                pipelines[name][str(size)] = smaller
                continue
            if smaller is not None and smaller["seconds"]["median"] * size / sizes[0] > limit_s:
                pipelines[name][str(size)] = _scaled(smaller, sizes[0], size)
                continue
            say(f"filling {name}, {size} questions")
            try:
                rival.fill(folder, size, limit_s)
            except (Stopped, RuntimeError) as error:
                pipelines.setdefault(name, {})[str(size)] = (
                    {"error": str(error).splitlines()[-1]}
                    if smaller is None
                    else _scaled(smaller, sizes[0], size)
                )
                continue
            filled[name] = partial(rival.run, folder, size, _AMPLE_S)
        for name, samples in Rounds(_WANTED, _BUDGET_S, say).take(filled).items():
            pipelines.setdefault(name, {})[str(size)] = {
                "seconds": summary([ran.seconds for ran in samples]),
                "peak_mb": max(ran.peak_mb for ran in samples),
            }
    return {
        "points": points,
        "pipelines": pipelines,
        "missing": missing,
        "pins": [line for line in REQUIREMENTS.read_text("utf-8").splitlines() if "==" in line],
    }


def _points(
    rivals: dict[str, _Rival], root: Path, say: Callable[[str], None], missing: dict[str, str]
) -> dict[str, Any]:
    turn = iter(range(1000))

    def sample(name: str) -> dict[str, Any]:
        try:
            return rivals[name].point(root / "points" / f"{next(turn)}")
        except (Stopped, RuntimeError) as error:
            return {"error": str(error).splitlines()[-1]}

    taken = Rounds(5, _BUDGET_S, lambda what: say(f"single calls: {what}")).take(
        {name: partial(sample, name) for name, rival in rivals.items() if rival.points}
    )
    points = {}
    for name, samples in taken.items():
        good = [one for one in samples if "error" not in one]
        if good:
            points[name] = {of: summary([one[of] for one in good]) for of in ("hit", "store")}
        else:
            missing[name] = samples[0]["error"]
    return points


def _scaled(smaller: dict[str, Any], of: int, size: int) -> dict[str, Any]:
    times = size / of
    seconds = {**smaller["seconds"], "median": smaller["seconds"]["median"] * times}
    return {"seconds": seconds, "scaled_from": of}
