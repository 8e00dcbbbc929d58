"""Measures the caches beside each other: cold, warm, four writers at once, single calls."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.measure import REPOSITORY, Ran, Rounds, Stopped, command, environment, summary
from benchmarks.peers.environment import PYTHON, REQUIREMENTS

__all__ = ["measure_peers"]

OURS, BOUND = "ours, disk", "lower bound"

_WANTED, _BUDGET_S = 9, 20
_AMPLE_S = 600
_WRITERS = 4
_PEERS = (
    *("diskcache.memoize", "joblib.Memory", "cachier", "marimo", "DSPy"),
    *("inspect_ai", "lm-eval", "redun", "Hamilton"),
)


class _Cache(NamedTuple):
    """A cache to measure: the interpreter of its environment, and its name."""

    python: str
    name: str

    def words(self, mode: str, folder: Path, *rest: int) -> list[str]:
        """Return a command of `benchmarks.peers`."""
        if self.name == BOUND:
            start = [self.python, "-m", "benchmarks.peers.lower_bound", mode]
        else:
            start = [self.python, "-m", "benchmarks.peers.caches", self.name, mode]
        return [*start, str(folder), *map(str, rest)]

    def run(self, folder: Path, size: int, limit_s: float = _AMPLE_S) -> Ran:
        """Run the pipeline."""
        return command(self.words("pipeline", folder, size), limit_s=limit_s)

    def fill(self, folder: Path, size: int, limit_s: float) -> dict[str, float]:
        """Run the pipeline for the first time; return its seconds, and the bytes that it left."""
        if self.name == BOUND:
            ran = command(self.words("fill", folder, size), limit_s=limit_s)
        else:
            ran = self.run(folder, size, limit_s)
            # Some read their own results only at the second time.
            self.run(folder, size, limit_s)
        stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return {"cold": ran.seconds, "cold_peak_mb": ran.peak_mb, "bytes_a_question": stored / size}

    def point(self, folder: Path) -> dict[str, Any]:
        """Return the seconds of a single hit and a single miss."""
        ran = command(self.words("point", folder), limit_s=120)
        found: dict[str, Any] = json.loads(ran.out.splitlines()[-1])
        return found

    def write_together(self, folder: Path, size: int, limit_s: float) -> dict[str, Any]:
        """Run the pipeline in four processes on one new cache, all at the same time."""
        begun = time.perf_counter()
        running = [
            subprocess.Popen(
                self.words("pipeline", folder, size),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=REPOSITORY,
                env=environment(),
                text=True,
            )
            for _ in range(_WRITERS)
        ]
        try:
            outputs = [
                process.communicate(timeout=max(0.1, begun + limit_s - time.perf_counter()))[0]
                for process in running
            ]
        except subprocess.TimeoutExpired:
            return {"error": f"stopped after {limit_s:.0f} s"}
        finally:
            for process in running:
                process.kill()
                process.communicate()
        seconds = time.perf_counter() - begun
        failed = sum(process.returncode != 0 for process in running)
        if failed:
            return {"error": f"{failed} of {_WRITERS} processes failed"}
        answers = [json.loads(output.splitlines()[-1]) for output in outputs]
        return {"seconds": seconds, "computed": sum(one["computed"] for one in answers) / size}


def _caches(*, peers_too: bool) -> tuple[dict[str, _Cache], dict[str, str]]:
    """Return what can be measured, and why the rest cannot."""
    names = (BOUND, OURS, "ours, memory", "diskcache, bytes")
    found = {name: _Cache(sys.executable, name) for name in names}
    if not peers_too:
        return found, dict.fromkeys(_PEERS, "not in a quick run")
    if not PYTHON.exists():
        return found, dict.fromkeys(_PEERS, "`python -m benchmarks.peers.environment` was not run")
    return found | {name: _Cache(str(PYTHON), name) for name in _PEERS}, {}


def measure_peers(
    root: Path,
    sizes: Sequence[int],
    limit_s: float,
    say: Callable[[str], None],
    *,
    peers_too: bool,
) -> dict[str, Any]:
    """Measure every cache that is installed.

    Args:
        root: an empty folder.
        sizes: questions of the pipelines, ascending.
        limit_s: seconds after which one run of a pipeline is given up; a larger one is then scaled
            from the smaller one by the number of questions, and says so.
        say: called with what begins.
        peers_too: measure the peers, and not just ours, the lower bound and diskcache's bytes.

    Returns:
        `points`, `pipelines` and `writers` by name; `missing`: why a peer is missing; `pins`.
    """
    caches, missing = _caches(peers_too=peers_too)
    points = _points(caches, root, say, missing)
    whole = {
        name: cache
        for name, cache in caches.items()
        if name not in missing and name not in {"ours, memory", "diskcache, bytes"}
    }
    pipelines: dict[str, dict[str, Any]] = {}
    for size in sizes:
        _pipelines(pipelines, whole, root / "pipelines", (sizes[0], size), limit_s, say=say)
    writers = {}
    for name, cache in whole.items():
        if name != BOUND and "error" not in pipelines[name][str(sizes[0])]:
            say(f"{_WRITERS} processes on one cache, {name}")
            folder = root / "writers" / name
            writers[name] = cache.write_together(folder, sizes[0], limit_s)
            shutil.rmtree(folder, ignore_errors=True)
    return {
        "points": points,
        "pipelines": pipelines,
        "writers": {"processes": _WRITERS, "questions": sizes[0], "caches": writers},
        "missing": missing,
        "pins": [line for line in REQUIREMENTS.read_text("utf-8").splitlines() if "==" in line],
    }


def _pipelines(
    found: dict[str, dict[str, Any]],
    caches: Mapping[str, _Cache],
    root: Path,
    sizes: tuple[int, int],
    limit_s: float,
    *,
    say: Callable[[str], None],
) -> None:
    """Measure the pipelines of one size, into what was found for the smallest."""
    smallest, size = sizes
    filled, cold = {}, {}
    for name, cache in caches.items():
        folder = root / f"{name} {size}"
        smaller = found.get(name, {}).get(str(smallest))
        if smaller is not None and "error" in smaller:
            found[name][str(size)] = smaller
            continue
        slowest = max(smaller["seconds"]["median"], smaller["cold"]) if smaller else 0.0
        if smaller is not None and slowest * size / smallest > limit_s:
            found[name][str(size)] = _scaled(smaller, smallest, size)
            continue
        say(f"filling {name}, {size} questions")
        try:
            cold[name] = cache.fill(folder, size, limit_s)
        except (Stopped, RuntimeError) as error:
            found.setdefault(name, {})[str(size)] = (
                {"error": str(error).splitlines()[-1]}
                if smaller is None
                else _scaled(smaller, smallest, size)
            )
            continue
        filled[name] = partial(cache.run, folder, size)
    for name, samples in Rounds(_WANTED, _BUDGET_S, say).take(filled).items():
        found.setdefault(name, {})[str(size)] = {
            "seconds": summary([ran.seconds for ran in samples]),
            "peak_mb": max(ran.peak_mb for ran in samples),
            **cold[name],
        }


def _points(
    caches: Mapping[str, _Cache], root: Path, say: Callable[[str], None], missing: dict[str, str]
) -> dict[str, Any]:
    turn = iter(range(1000))

    def sample(name: str) -> dict[str, Any]:
        try:
            return caches[name].point(root / "points" / f"{next(turn)}")
        except (Stopped, RuntimeError) as error:
            return {"error": str(error).splitlines()[-1]}

    taken = Rounds(5, _BUDGET_S, lambda what: say(f"single calls: {what}")).take(
        {name: partial(sample, name) for name in caches if name != BOUND}
    )
    points = {}
    for name, samples in taken.items():
        good = [one for one in samples if "error" not in one]
        if good:
            points[name] = {of: summary([one[of] for one in good]) for of in ("hit", "miss")}
        else:
            missing[name] = samples[0]["error"]
    return points


def _scaled(smaller: dict[str, Any], of: int, size: int) -> dict[str, Any]:
    times = size / of
    seconds = {**smaller["seconds"], "median": smaller["seconds"]["median"] * times}
    return {
        "seconds": seconds,
        "cold": smaller["cold"] * times,
        "bytes_a_question": smaller["bytes_a_question"],
        "scaled_from": of,
    }
