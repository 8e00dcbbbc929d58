"""One candidate of the engine's benchmark, in a process of its own.

    python -m benchmarks.engine_worker CANDIDATE FOLDER                 answers lines of JSON
    python -m benchmarks.engine_worker CANDIDATE FOLDER pipeline SIZE   measures once, and ends

Each line that it reads names a measurement and a size; the answer holds the seconds of one
operation. The `cachedeval` that it imports may be that of another checkout, so it uses only public
names. Imports are inside the candidates: a process imports nothing of another candidate.
"""
# ruff: noqa: PLC0415

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers.steps import (
    answer_of,
    generation,
    judge,
    mean,
    question_of,
    verdict_of,
)

__all__ = ["CANDIDATES", "main"]

Batch = Callable[[Sequence[str]], Any]
"""Runs a step or a graph for each of several questions."""


class Opened(NamedTuple):
    """A candidate's cache, and what it can run on it.

    Attributes:
        one: runs one step for one question.
        many: runs one step for each question: in one batch, where the candidate has batches.
        close: closes the cache.
        graph: runs two steps a question, where the second gets the output of the first.
        remote: the same, where the second step is an async function.
    """

    one: Callable[[str], Any]
    many: Batch
    close: Callable[[], Any]
    graph: Batch | None = None
    remote: Batch | None = None


async def remote_judge(model: str, question: str, answer: str) -> dict[str, Any]:
    """Judge, as a step that waits for a server."""
    del model
    return verdict_of(question, answer)


def _engine(kind: str, folder: Path) -> Opened:
    """Open the engine of the checkout that is on the Python path."""
    from cachedeval import Engine, node

    engine = Engine(cache="memory:" if kind == "memory" else f"disk:{folder}")
    name = "engine_benchmark"
    first = node(version="1", name=f"{name}.generation")(generation)
    second = node(version="1", name=f"{name}.judge")(judge)
    remote = node(version="1", name=f"{name}.remote_judge")(remote_judge)

    def graph(step: Any) -> Batch:
        return lambda questions: engine.run(
            [step("judge", text, first("model", text, max_tokens=150)) for text in questions]
        )

    return Opened(
        lambda question: engine.run(first("model", question, max_tokens=150)),
        lambda questions: engine.run([first("model", text, max_tokens=150) for text in questions]),
        engine.close,
        graph(second),
        graph(remote),
    )


def _memoize(_: str, folder: Path) -> Opened:
    """Open `diskcache.Cache.memoize` on the same functions, with eviction off."""
    import diskcache

    cache = diskcache.Cache(str(folder), eviction_policy="none", cull_limit=0)
    first, second = cache.memoize()(generation), cache.memoize()(judge)

    def one(question: str) -> Any:
        return first("model", question, 150)

    return Opened(
        one,
        lambda questions: [one(text) for text in questions],
        cache.close,
        lambda questions: [second("judge", text, one(text)) for text in questions],
    )


def _bytes(_: str, folder: Path) -> Opened:
    """Open diskcache's `get` and `set` of bytes: no function, no key to compute, no checksum."""
    import diskcache

    cache = diskcache.Cache(str(folder), eviction_policy="none", cull_limit=0)
    value = answer_of(question_of(0)).encode()

    def one(question: str) -> Any:
        found = cache.get(question)
        if found is None:
            cache.set(question, value)
        return found

    def many(questions: Sequence[str]) -> Any:
        with cache.transact():
            return [one(text) for text in questions]

    return Opened(one, many, cache.close)


def _joblib(_: str, folder: Path) -> Opened:
    """Open `joblib.Memory` on the same functions."""
    import joblib

    cache = joblib.Memory(str(folder), verbose=0).cache
    first, second = cache(generation), cache(judge)

    def one(question: str) -> Any:
        return first("model", question, 150)

    return Opened(
        one,
        lambda questions: [one(text) for text in questions],
        lambda: None,
        lambda questions: [second("judge", text, one(text)) for text in questions],
    )


CANDIDATES: dict[str, tuple[Callable[[str, Path], Opened], tuple[str, ...]]] = {
    "engine": (_engine, ("memory", "disk")),
    "diskcache.memoize": (_memoize, ("disk",)),
    "diskcache get, set": (_bytes, ("disk",)),
    "joblib.Memory": (_joblib, ("disk",)),
}
"""What can be measured, by name: what opens it, and where it stores."""


class Measures:
    """The measurements of one candidate on one kind of storage.

    Args:
        open_: opens a cache in a folder.
        kind: `memory` or `disk`.
        root: a folder for its caches.
    """

    def __init__(self, open_: Callable[[str, Path], Opened], kind: str, root: Path) -> None:
        self._open, self._kind, self._root = open_, kind, root
        self._held = open_(kind, root / f"held in {kind}")
        self._new = count()

    def all(self) -> dict[str, Callable[[int], float]]:
        """Return them by name: each takes a size and returns the seconds of one operation."""
        found: dict[str, Callable[[int], float]] = {
            "miss alone": self._misses,
            "miss in a batch": lambda size: self._fresh(size, 1, lambda opened: opened.many),
            "hit alone": lambda size: self._hits(size, self._alone),
            "hit in a batch": lambda size: self._hits(size, self._held.many),
        }
        if self._held.graph:
            found["graph of two levels"] = lambda size: self._fresh(
                size, 2, lambda opened: opened.graph
            )
        if self._held.remote:
            found["graph with async steps"] = lambda size: self._fresh(
                size, 2, lambda opened: opened.remote
            )
        return {f"{name}, {self._kind}": measure for name, measure in found.items()}

    def _alone(self, questions: Sequence[str]) -> None:
        for question in questions:
            self._held.one(question)

    def _misses(self, size: int) -> float:
        return _timed(self._alone, [question_of(next(self._new)) for _ in range(size)], size)

    def _hits(self, size: int, work: Batch) -> float:
        questions = [question_of(-2 - number) for number in range(size)]
        self._held.many(questions)
        return _timed(work, questions, size)

    def _fresh(self, size: int, steps: int, work_of: Callable[[Opened], Batch | None]) -> float:
        folder = self._root / "fresh"
        opened = self._open(self._kind, folder)
        work = work_of(opened)
        assert work is not None  # noqa: S101  none is asked for what it has not
        work([question_of(-1)])  # opens what is opened at the first use
        questions = [question_of(number) for number in range(size // steps)]
        seconds = _timed(work, questions, size)
        opened.close()
        shutil.rmtree(folder, ignore_errors=True)
        return seconds


def _timed(work: Batch, questions: Sequence[str], operations: int) -> float:
    os.sync()  # what others wrote must not burden this one
    begun = time.perf_counter()
    work(questions)
    return (time.perf_counter() - begun) / operations


def _pipeline(candidate: str, folder: Path, size: int) -> float:
    """Run the pipeline of 2 n + 1 steps, and return its seconds."""
    if candidate == "engine":
        from benchmarks import pipeline
        from cachedeval import Engine

        begun = time.perf_counter()
        with Engine(cache=f"disk:{folder}") as engine:
            pipeline.run_on(engine, size)
        return time.perf_counter() - begun
    import diskcache

    begun = time.perf_counter()
    with diskcache.Cache(str(folder), eviction_policy="none", cull_limit=0) as cache:
        first, second, average = (cache.memoize()(step) for step in (generation, judge, mean))
        verdicts = []
        for number in range(size):
            question = question_of(number)
            verdicts.append(second("judge", question, first("model", question, 150)))
        average(verdicts)
    return time.perf_counter() - begun


def main() -> None:
    """Answer what is asked for on standard input, or measure once."""
    candidate, folder, *once = sys.argv[1:]
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    if once:
        print(json.dumps(_pipeline(candidate, root, int(once[1]))))
        return
    open_, kinds = CANDIDATES[candidate]
    measures = {
        name: measure
        for kind in kinds
        for name, measure in Measures(open_, kind, root).all().items()
    }
    print(json.dumps(sorted(measures)), flush=True)
    for line in sys.stdin:
        name, size = line.rsplit(" ", 1)
        print(json.dumps(measures[name](int(size))), flush=True)


if __name__ == "__main__":
    main()
