"""Kills, corrupts and crowds a cache, and counts what comes of it.

A broken promise is a result that was reported and then lost, a wrong value, a crash, or a step that
was computed twice without need. Run it at length from the folder `tests`:

    python -m faults.attacks --kills 200 --damages 2000 --truncations 200
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from faults.attacked import graph_of

from cachedeval import Engine

__all__ = ["crowd", "damages", "kills", "main"]

BROKEN = "must be 0: "
"""The prefix of a count of what must not happen."""

_TESTS = Path(__file__).parents[1]
_COUNT = 30
_CROWD = 40


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the attacks; return 1 where one succeeds."""
    parser = argparse.ArgumentParser(prog="python -m faults.attacks", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="kill -9 at random moments")
    parser.add_argument("--damages", type=int, default=200, help="single bytes changed")
    parser.add_argument("--truncations", type=int, default=20, help="files cut short")
    parser.add_argument("--crowds", type=int, default=3, help="four processes at once")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    root = Path(tempfile.mkdtemp(prefix="cachedeval-attacks-"))
    by = random.Random(given.seed)
    broken: list[str] = []
    try:
        for name, found in (
            ("kills", kills(root / "kills", given.kills, by)),
            ("damaged bytes", damages(root / "bytes", "byte", given.damages, given.seed)),
            ("truncations", damages(root / "cut", "cut", given.truncations, given.seed)),
            ("four at once", crowd(root / "crowd", given.crowds, by, kill=False)),
            ("four at once, one killed", crowd(root / "killed", given.crowds, by, kill=True)),
        ):
            print(f"{name}:")
            for what, count in found.items():
                print(f"  {count:>9,.6g}  {what.removeprefix(BROKEN)}")
            broken += [
                f"{name}: {what}" for what in found if what.startswith(BROKEN) and found[what]
            ]
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(
        "\n".join(broken)
        if broken
        else "no result was lost or wrong, and no step was computed twice without need"
    )
    return 1 if broken else 0


class _Line(NamedTuple):
    process: int
    kind: str
    rest: str


def _read(log: Path) -> list[_Line]:
    if not log.exists():
        return []
    lines = [line.split(" ", 2) for line in log.read_text("utf-8").splitlines()]
    return [_Line(int(words[0]), words[1], words[2] if len(words) > 2 else "") for words in lines]


def _start(folder: Path, log: Path, name: str, count: int) -> "subprocess.Popen[bytes]":
    words = [sys.executable, "-m", "faults.attacked", str(folder), str(log), name, str(count)]
    return subprocess.Popen(words, stderr=subprocess.PIPE, cwd=_TESTS)


def _wait(log: Path, kind: str, lines: int = 1, limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while sum(line.kind == kind for line in _read(log)) < lines:
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing {kind} in {log}")
        time.sleep(0.001)


def kills(root: Path, count: int, by: random.Random) -> dict[str, float]:
    """Kill a run at a random moment, read what it reported, and run it to its end; many times.

    All runs share one cache, so each of them finds what the kills before it left behind.
    """
    root.mkdir()
    lasts = _duration(root)
    found: Counter[str] = Counter({"runs killed": count})
    for number in range(count):
        log, name = root / f"{number}.log", f"round {number}".replace(" ", "-")
        process = _start(root / "cache", log, name, _COUNT)
        if by.random() < 0.9:
            _wait(log, "begins")
        time.sleep(by.random() * 1.2 * lasts)
        process.kill()
        process.communicate()
        lines = _read(log)
        reported = {line.rest.rpartition(" ")[0] for line in lines if line.kind == "reported"}
        found["of them before they ended"] += not any(line.kind == "ends" for line in lines)
        found["results reported before the kill"] += len(reported)
        found.update(_after(root / "cache", log, name, reported))
    return dict(found)


def _duration(root: Path) -> float:
    """Return the seconds of a run that is not killed."""
    log = root / "whole.log"
    process = _start(root / "cache", log, "whole", _COUNT)
    _wait(log, "begins")
    begun = time.perf_counter()
    _wait(log, "ends")
    lasted = time.perf_counter() - begun
    process.communicate()
    return lasted


def _after(folder: Path, log: Path, name: str, reported: set[str]) -> Counter[str]:
    """Check what was reported, run to the end, and check it all."""
    found: Counter[str] = Counter()
    graph = graph_of(str(log), name, _COUNT)
    with Engine(f"disk:{folder}") as engine:
        known = [n for n, title in enumerate(graph.names) if title in reported]
        outcomes = engine.settle([graph.calls[n] for n in known], mode="offline")
        for n, outcome in zip(known, outcomes, strict=True):
            found[f"{BROKEN}lost after it was reported"] += outcome.error is not None
            wrong = outcome.error is None and outcome.value != graph.values[n]
            found[f"{BROKEN}wrong value"] += wrong
        outcomes = engine.settle(graph.calls)
        for wanted, outcome in zip(graph.values, outcomes, strict=True):
            found[f"{BROKEN}failed afterwards"] += outcome.error is not None
            found[f"{BROKEN}wrong value"] += outcome.error is None and outcome.value != wanted
        found[f"{BROKEN}damaged records met"] += engine.store.counts.corrupt
        found[f"{BROKEN}failures of the backend"] += sum(engine.store.counts.errors.values())
        found["results computed afterwards"] += sum(s.computed for s in engine.stats.values())
    return found


def damages(root: Path, kind: str, count: int, seed: int) -> dict[str, float]:
    """Corrupt one place in the files of a cache, and run on it; many times.

    Each series runs in a process of its own, so that a crash is counted and the rest goes on.
    """
    found: Counter[str] = Counter({f"{BROKEN}crashes": 0})
    done = 0
    while done < count:
        words = [sys.executable, "-m", "faults.damage", str(root), kind, str(seed)]
        ran = subprocess.run(
            [*words, str(done), str(count)],
            capture_output=True,
            check=False,
            cwd=_TESTS,
            text=True,
        )
        lines = ran.stdout.splitlines()
        for line in lines:
            found.update(json.loads(line))
        done += len(lines)
        if ran.returncode:
            print(f"  {kind} {done}: exit status {ran.returncode}\n{ran.stderr[-2000:]}")
            found[f"{BROKEN}crashes"] += 1
            done += 1
    return dict(found)


def crowd(root: Path, count: int, by: random.Random, *, kill: bool) -> dict[str, float]:
    """Run four processes on one evaluation at once; with `kill`, kill the one that computes."""
    root.mkdir()
    found: Counter[str] = Counter({"evaluations by four processes": count})
    longest = 0.0
    for number in range(count):
        log, name = root / f"{number}.log", f"crowd-{number}"
        processes = [_start(root / "cache", log, name, _CROWD) for _ in range(4)]
        killed = -1
        if kill:
            _wait(log, "computed", _CROWD // 2 + by.randrange(_CROWD // 2))
            killed = next(line.process for line in _read(log)[::-1] if line.kind == "computed")
            victim = next(process for process in processes if process.pid == killed)
            victim.kill()
            victim.wait()
            begun, before = time.perf_counter(), len(_read(log))
            while not _all_ended(processes):
                if any(line.kind == "computed" for line in _read(log)[before:]):
                    found["takeovers"] += 1
                    break
                time.sleep(0.001)
            longest = max(longest, time.perf_counter() - begun)
        for process in processes:
            _, errors = process.communicate(timeout=60)
            if process.pid != killed:
                found[f"{BROKEN}failed"] += process.returncode != 0
                if process.returncode:
                    print(errors.decode()[-2000:])
        found.update(_counted(_read(log), killed))
    return {**found, "longest takeover, s": longest} if kill else dict(found)


def _all_ended(processes: "Sequence[subprocess.Popen[bytes]]") -> bool:
    return all(process.poll() is not None for process in processes)


def _counted(lines: list[_Line], killed: int) -> Counter[str]:
    found: Counter[str] = Counter()
    computed = [line for line in lines if line.kind == "computed"]
    times = Counter(line.rest for line in computed)
    # What the killed process had computed and not reported is lost with it, and must be repeated.
    reported = {
        _step(line.rest) for line in lines if line.kind == "reported" and line.process == killed
    }
    in_flight = {
        line.rest
        for line in computed
        if line.process == killed and _step(line.rest) not in reported
    }
    found["steps computed"] = len(computed)
    found["steps lost with the killed process"] = sum(times[rest] > 1 for rest in in_flight)
    found[f"{BROKEN}steps computed twice"] = sum(
        n > 1 + (rest in in_flight) for rest, n in times.items()
    )
    found[f"{BROKEN}steps not computed"] = 2 * _CROWD - len(times)
    found[f"{BROKEN}wrong reports"] = sum(
        line.kind == "ends" and line.rest != "right" for line in lines
    )
    return found


def _step(rest: str) -> str:
    """Return a step's name and number, which stand around a round or before a state."""
    words = rest.split(" ")
    return f"{words[0]} {next(word for word in words[1:] if word.isdigit())}"


if __name__ == "__main__":
    sys.exit(main())
