"""`python -m benchmarks engine`: what a miss and a hit cost, beside the peers and another checkout.

Each candidate is a process of its own. In each round every candidate takes its turn at a
measurement before the next measurement begins, so that whatever else slows the machine slows all of
them. The figures are medians of the rounds. Ratios are medians of the rounds' ratios.

`--against` adds another checkout of the project: a folder, or a commit of this repository.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Self

from benchmarks.measure import (
    REPOSITORY,
    command,
    environment,
    new_results,
    summary,
    write_results,
)
from benchmarks.report import TARGETS, load_targets, shortfalls

__all__ = ["main"]

OURS, BEFORE = "cachedeval", "before"

_SIZES = {
    "miss alone, memory": 1000,
    "miss alone, disk": 1000,
    "miss in a batch, memory": 10_000,
    "miss in a batch, disk": 10_000,
    "graph of two levels, memory": 10_000,
    "graph of two levels, disk": 10_000,
    "graph with async steps, memory": 2_000,
    "hit alone, memory": 1000,
    "hit alone, disk": 1000,
    "hit in a batch, memory": 10_000,
    "hit in a batch, disk": 10_000,
}
"""The operations of a measurement: steps computed or found."""

_PIPELINES = (10_000, 100_000)
"""Whole processes: questions of the pipeline, of two steps each, and one mean."""

_SLOW = {"joblib.Memory": 500}
"""The most operations of a measurement that takes these one by one, batch or not."""

_LIMIT_S = 900

Sample = dict[str, float]


class _Candidate(NamedTuple):
    """Something to measure: its name, its kind as the worker calls it, and its environment."""

    name: str
    kind: str
    env: dict[str, str]


class _Worker:
    """A candidate's process; a context manager.

    Args:
        candidate: what it measures.
        folder: where its caches lie.
    """

    def __init__(self, candidate: _Candidate, folder: Path) -> None:
        self.candidate = candidate
        self._process = subprocess.Popen(
            _worker(candidate, folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(candidate.env),
            text=True,
            cwd=REPOSITORY,
        )
        self.measures: list[str] = self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.communicate()

    def measure(self, name: str, size: int) -> float:
        """Return the seconds of one operation."""
        assert self._process.stdin is not None  # noqa: S101  a pipe was asked for
        self._process.stdin.write(f"{name} {size}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> Any:
        assert self._process.stdout is not None  # noqa: S101  a pipe was asked for
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"{self.candidate.name} ended with {self._process.wait()}: its error is above"
            )
        return json.loads(line)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, and write JSON; return 1 where a target is missed."""
    given = _parse(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="cachedeval-engine-"))
    try:
        found = _measure(given, root)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    file = given.out / "engine.json"
    write_results(file, found)
    print(show(found))
    print(f"\n{file}")
    if not given.check:
        return 0
    short = shortfalls(found, load_targets(given.targets))
    print("\n".join(short) if short else "all targets are met")
    return 1 if short else 0


def _measure(given: argparse.Namespace, root: Path) -> dict[str, Any]:
    candidates = [_Candidate(OURS, "engine", _package(root / "ours", REPOSITORY))]
    if given.against:
        checkout = _checkout(given.against, root / "checkout")
        candidates.append(_Candidate(BEFORE, "engine", _package(root / "before", checkout)))
    for candidate in candidates:
        _make_sure_of(candidate)
    # The others are measured with this checkout's benchmarks; they import no cachedeval.
    candidates += [
        _Candidate(name, name, candidates[0].env)
        for name in ("diskcache.memoize", "diskcache get, set")
    ]
    if find_spec("joblib") is None:
        print("joblib is not installed and is not measured: pip install joblib", file=sys.stderr)
    else:
        candidates.append(_Candidate("joblib.Memory", "joblib.Memory", candidates[0].env))
    shrink = 10 if given.quick else 1
    found = new_results("engine, quick" if given.quick else "engine")
    found["against"] = given.against or None

    def wanted(name: str) -> bool:
        return not given.only or any(part in name for part in given.only)

    found["steps"] = _steps(
        {name: size // shrink for name, size in _SIZES.items() if wanted(name)},
        candidates,
        root / "steps",
        given.rounds,
    )
    found["pipelines"] = {
        str(size // shrink): _pipelines(
            size // shrink, candidates, root / "pipelines", given.rounds
        )
        for size in _PIPELINES
        if wanted(f"pipeline {size}")
    }
    if wanted("start-up"):
        found["start-up"] = _start_up(candidates, root / "start-up", 2 * given.rounds + 1)
    return found


def _package(folder: Path, checkout: Path) -> dict[str, str]:
    """Return an environment in which a checkout's packages are imported, and our benchmarks."""
    folder.mkdir(parents=True)
    backends = ("cachedeval_disk", "cachedeval_memory")
    for name, place in {
        "cachedeval": checkout / "cachedeval",
        **{name: checkout / "backends" / name for name in backends},
        "benchmarks": REPOSITORY / "benchmarks",
    }.items():
        (folder / name).symlink_to(place)
    # Safe: else the working directory would come before the path that is given.
    return {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}


def _checkout(given: str, folder: Path) -> Path:
    """Return the folder of another checkout, which is made where a commit is given."""
    if Path(given, "cachedeval").is_dir():
        return Path(given).resolve()
    folder.mkdir(parents=True)
    packed = subprocess.run(
        ["git", "archive", "--format=tar", given, "cachedeval", "backends"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        check=False,
    )
    if packed.returncode:
        sys.exit(f"benchmarks: --against {given}: neither a checkout's folder nor a commit")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True)
    return folder


def _make_sure_of(candidate: _Candidate) -> None:
    """Raise where a candidate's process would import another checkout; compile its byte code."""
    code = (
        "import cachedeval.engine.engine as e, cachedeval_disk as d; print(e.__file__, d.__file__)"
    )
    places = command([sys.executable, "-c", code], env=candidate.env).out.split()
    if not all(place.startswith(candidate.env["PYTHONPATH"]) for place in places):
        raise RuntimeError(f"{candidate.name} would import {places}")


def _worker(candidate: _Candidate, folder: Path, *measure: object) -> list[str]:
    words = [sys.executable, "-m", "benchmarks.engine_worker", candidate.kind, folder, *measure]
    return [str(word) for word in words]


def _steps(
    sizes: Mapping[str, int], candidates: Sequence[_Candidate], root: Path, rounds: int
) -> dict[str, Any]:
    """Return the seconds of one operation, by measurement and candidate."""
    with ExitStack() as stack:
        workers = [
            stack.enter_context(_Worker(candidate, root / candidate.name))
            for candidate in candidates
        ]
        things: dict[str, dict[str, Callable[[], float]]] = {}
        for name, size in sizes.items():
            things[name] = {
                worker.candidate.name: partial(
                    worker.measure, name, min(size, _SLOW.get(worker.candidate.name, size))
                )
                for worker in workers
                if name in worker.measures
            }
        samples: dict[str, dict[str, list[float]]] = {
            name: {one: [] for one in thing} for name, thing in things.items()
        }
        # The first round fills what later ones read, and warms the code up.
        for number in range(-1, rounds):
            for name, thing in things.items():
                _say(f"{name}, round {number + 1} of {rounds}")
                for one in _shuffled(thing, number):
                    seconds = thing[one]()
                    if number >= 0:
                        samples[name][one].append(seconds)
    return {name: _summaries(found, "seconds") for name, found in samples.items()}


def _pipelines(
    size: int, candidates: Sequence[_Candidate], root: Path, rounds: int
) -> dict[str, Any]:
    """Return seconds and peak memory of whole processes: first cold, then warm on what they left."""
    able = {one.name: one for one in candidates if one.kind in {"engine", "diskcache.memoize"}}
    seconds: dict[str, dict[str, list[float]]]
    seconds = {state: {name: [] for name in able} for state in ("cold", "warm")}
    peaks: dict[str, dict[str, list[float]]]
    peaks = {state: {name: [] for name in able} for state in seconds}
    # A large one takes a minute: three rounds of it, whose number is told, are enough.
    for number in range(min(rounds, 3)):
        for state in seconds:
            for name in _shuffled(able, number):
                _say(f"{size:,} questions {state}, {name}, round {number + 1}")
                words = _worker(able[name], root / name, "pipeline", size)
                ran = command(words, env=able[name].env, limit_s=_LIMIT_S)
                seconds[state][name].append(float(ran.out))
                peaks[state][name].append(ran.peak_mb)
        shutil.rmtree(root)
    return {
        state: {
            "seconds": _summaries(seconds[state], "seconds"),
            "peak_mb": _summaries(peaks[state], "peak_mb"),
        }
        for state in seconds
    }


def _start_up(candidates: Sequence[_Candidate], root: Path, rounds: int) -> dict[str, Any]:
    """Return the seconds of the command line's start, as multiples of the bare interpreter's."""
    from benchmarks.startup import warm_run  # noqa: PLC0415  it needs a model, which is made

    python = [sys.executable]
    with warm_run(root, [one.env for one in candidates if one.kind == "engine"]) as runs:
        things: dict[str, tuple[list[str | Path], dict[str, str]]] = {
            "pass": ([*python, "-c", "pass"], {})
        }
        for candidate, (words, env) in zip(candidates, runs, strict=False):
            help_: list[str | Path] = [*python, "-m", "cachedeval", "--help"]
            things[f"--help, {candidate.name}"] = (help_, candidate.env)
            things[f"run of 20 hits, {candidate.name}"] = (words, env)
        samples: dict[str, list[float]] = {name: [] for name in things}
        for number in range(rounds):
            _say(f"start-up, round {number + 1} of {rounds}")
            for name in _shuffled(things, number):
                words, env = things[name]
                samples[name].append(command(words, env=env).seconds)
    return _summaries(samples, "seconds", of="pass")


def _summaries(
    samples: Mapping[str, Sequence[float]], what: str, of: str = OURS
) -> dict[str, dict[str, Any]]:
    """Return a summary for each candidate, with the ratio to one of them."""
    return {
        name: {
            what: summary(found),
            "ratio": summary([a / b for a, b in zip(found, samples[of], strict=True)]),
        }
        for name, found in samples.items()
    }


def _shuffled(things: Mapping[str, Any], number: int) -> list[str]:
    order = list(things)
    random.Random(number).shuffle(order)
    return order


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def show(found: Mapping[str, Any]) -> str:
    """Return the results as a table."""
    lines = [f"against: {found['against']}"] if found["against"] else []
    lines += ["an operation, and how many times ours"]
    for name, row in found["steps"].items():
        lines += ["", name, _cells(row, "seconds", 1e6, "µs")]
    for size, pipeline in found["pipelines"].items():
        lines += ["", f"pipeline of {int(size):,} questions"]
        for state, figures in pipeline.items():
            lines.append(
                f"{state + ', seconds':32}" + _cells(figures["seconds"], "seconds", 1, "s")
            )
            lines.append(f"{state + ', peak':32}" + _cells(figures["peak_mb"], "peak_mb", 1, "MiB"))
    if "start-up" in found:
        lines += ["", "start-up, and how many times `python -c pass`"]
        for name, row in found["start-up"].items():
            lines.append(f"{name:32}" + _cell(row, "seconds", 1e3, "ms"))
    return "\n".join(lines)


def _cells(row: Mapping[str, Any], what: str, scale: float, unit: str) -> str:
    return "\n".join(f"  {name:20} {_cell(one, what, scale, unit)}" for name, one in row.items())


def _cell(one: Mapping[str, Any], what: str, scale: float, unit: str) -> str:
    figure, noise = one[what]["median"] * scale, one[what]["noise"]
    told = f"±{noise / 2:.0%}" if noise is not None else f"n={one[what]['n']}"
    least = min(one[what]["samples"]) * scale
    return f"{figure:.4g} {unit} {told}, least {least:.4g} ({one['ratio']['median']:.2f} times)"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks engine", description=__doc__)
    parser.add_argument("--against", help="another checkout: its folder, or a commit")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a tenth of the sizes")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="TEXT", help="measurements whose name holds it"
    )
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--targets", type=Path, default=TARGETS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
