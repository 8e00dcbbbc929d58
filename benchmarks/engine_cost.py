"""`python -m benchmarks.engine_cost`: what a hit and a store cost, beside diskcache and joblib.

All contestants take turns in one process, and what is told is the median of the rounds: so what
slows the machine for a while slows them all. Ratios matter, not the figures.
"""

import argparse
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diskcache
import xxhash

from cachedeval import Engine, Resource, node
from cachedeval.engine.record import Record, seal

__all__ = ["main"]

TEXT = "What is the capital of France, and why is it where it is? " * 12
"""700 characters, as a question with its prompt."""

_HITS = 1000
_STORES = 200
_STEPS = 2000
_MANY = 10_000

Contestant = Callable[[], float]
"""Does its work once, and returns the seconds that one operation took."""


@node(version="1")
def step(model: Any, text: str, number: int) -> str:
    """Answer."""
    del model
    return f"{number} {text}"


@node(version="1")
def nothing(number: int) -> int:
    """Do nothing."""
    return number


def plain(text: str, number: int) -> str:
    """Answer, for those who keep the results of a plain function."""
    return f"{number} {text}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args(arguments)
    root = Path(tempfile.mkdtemp(prefix="cachedeval-cost-"))
    try:
        with _contestants(root) as contestants:
            samples = _take(contestants, given.rounds)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    medians = {name: statistics.median(seconds) for name, seconds in samples.items()}
    width = max(map(len, medians))
    for name, median in medians.items():
        print(f"{name:{width}}  {median * 1e6:9.1f} µs  (least {min(samples[name]) * 1e6:.1f})")
    share = medians["verifying a record"] / medians["hit, ours on disk, of 1,000"]
    print(f"verifying takes {share:.1%} of a hit on disk")
    return 0


def _take(contestants: dict[str, Contestant], rounds: int) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    order = list(contestants)
    for number in range(rounds + 1):
        random.Random(number).shuffle(order)
        for name in order:
            seconds = contestants[name]()
            if number:  # the first round fills what the others read
                samples[name].append(seconds)
    return samples


@contextmanager
def _contestants(root: Path) -> Iterator[dict[str, Contestant]]:
    found: dict[str, Contestant] = {}
    model = Resource("model", {"weights": "xxh3:0"}, lambda: None)
    with Engine("memory:") as memory, Engine(f"disk:{root / 'ours'}") as disk:
        for name, engine in (("in memory", memory), ("on disk", disk)):
            engine.run([step(model, TEXT, n) for n in range(_HITS)])
            found[f"hit, ours {name}, of 1,000"] = _hits(engine, model)
            found[f"hit, ours {name}, alone"] = _hit(engine, model)
        disk.run([nothing(n) for n in range(_MANY)])
        found[f"hit, ours on disk, of {_MANY:,} small"] = lambda: _timed(
            lambda: disk.run([nothing(n) for n in range(_MANY)]), _MANY
        )
        found[f"store, ours on disk, of {_STEPS:,} steps that do nothing"] = _steps(disk)
        found["verifying a record"] = _verify()
        found |= _diskcache(root) | _joblib(root)
        yield found


def _timed(work: Callable[[], Any], count: int) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) / count


def _hits(engine: Engine, model: Resource[None]) -> Contestant:
    return lambda: _timed(lambda: engine.run([step(model, TEXT, n) for n in range(_HITS)]), _HITS)


def _hit(engine: Engine, model: Resource[None]) -> Contestant:
    def work() -> None:
        for n in range(_HITS):
            engine.run(step(model, TEXT, n))

    return lambda: _timed(work, _HITS)


def _steps(engine: Engine) -> Contestant:
    fresh = iter(range(_MANY, sys.maxsize, _STEPS))

    def work() -> float:
        start = next(fresh)
        return _timed(lambda: engine.run([nothing(start + n) for n in range(_STEPS)]), _STEPS)

    return work


def _verify() -> Contestant:
    """Do what a hit does to trust a record, and no more: its digest, and its recipe compared."""
    recipe = b"recipe" * 150
    sealed = seal(Record(recipe, TEXT.encode(), "sha256:" + "0" * 64, 0.0, 0.0))
    other = bytes(bytearray(recipe))

    def work() -> None:
        for _ in range(_HITS):
            if xxhash.xxh3_128_digest(memoryview(sealed)[21:]) != sealed[5:21] or recipe != other:
                raise AssertionError

    return lambda: _timed(work, _HITS)


def _diskcache(root: Path) -> dict[str, Contestant]:
    cache = diskcache.Cache(str(root / "diskcache"))
    kept = diskcache.Cache(str(root / "memoize"))
    memoized = kept.memoize()(plain)
    keys = [n.to_bytes(16, "big") for n in range(_HITS)]
    for n, key in enumerate(keys):
        cache.set(key, f"{n} {TEXT}".encode())
        memoized(TEXT, n)
    fresh = iter(range(_HITS, sys.maxsize))

    def get() -> None:
        for key in keys:
            cache.get(key)

    def put() -> None:
        for _ in range(_STORES):
            cache.set(next(fresh).to_bytes(16, "big"), TEXT.encode())

    def recall() -> None:
        for n in range(_HITS):
            memoized(TEXT, n)

    def compute() -> None:
        for _ in range(_STORES):
            memoized(TEXT, next(fresh))

    return {
        "hit, diskcache get of bytes": lambda: _timed(get, _HITS),
        "hit, diskcache.memoize": lambda: _timed(recall, _HITS),
        "store, diskcache set of bytes": lambda: _timed(put, _STORES),
        "store, diskcache.memoize": lambda: _timed(compute, _STORES),
    }


def _joblib(root: Path) -> dict[str, Contestant]:
    try:
        import joblib  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415  a rival
    except ImportError:
        print("joblib is not installed, and not measured: pip install joblib", file=sys.stderr)
        return {}
    kept = joblib.Memory(str(root / "joblib"), verbose=0).cache(plain)
    fresh = iter(range(_STORES, sys.maxsize))
    for n in range(_STORES):
        kept(TEXT, n)

    def recall() -> None:
        for n in range(_STORES):
            kept(TEXT, n)

    def compute() -> None:
        for _ in range(_STORES):
            kept(TEXT, next(fresh))

    return {
        "hit, joblib.Memory": lambda: _timed(recall, _STORES),
        "store, joblib.Memory": lambda: _timed(compute, _STORES),
    }


if __name__ == "__main__":
    sys.exit(main())
