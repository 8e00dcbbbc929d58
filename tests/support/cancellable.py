"""Steps whose runs are cancelled, a backend that counts leases, and another process."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from cachedeval import Backend, Call, Engine, Entry, Outcome, node, open_backend

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds until what does not end counts as a hang."""

STARTED: Counter[tuple[str, int]] = Counter()
"""How often each step began in this process, by the node's name and what the call returns."""

GATE = threading.Event()
"""What a `gated` step waits for."""


@node(version="1", name="cancel.waiting")
async def waiting(x: int) -> int:
    STARTED["cancel.waiting", x] += 1
    await asyncio.sleep(x % 3 * 0.001)
    return x


@node(version="1", name="cancel.blocking")
def blocking(x: int) -> int:
    STARTED["cancel.blocking", x] += 1
    time.sleep(x % 3 * 0.001)
    return x


@node(version="1", name="cancel.add")
def add(a: int, b: int) -> int:
    STARTED["cancel.add", a + b] += 1
    return a + b


@node(version="1", name="cancel.join")
def join(a: int, b: int) -> int:
    STARTED["cancel.join", a + b] += 1
    return a + b


@dataclass(frozen=True)
class Item:
    x: int


@node(version="1", name="cancel.batched", batch=True)
def batched(items: Sequence[Item]) -> Iterator[tuple[int, int] | None]:
    for index, item in enumerate(items):
        STARTED["cancel.batched", item.x] += 1
        time.sleep(item.x % 3 * 0.0005)
        yield index, item.x
        yield None


@node(version="1", name="cancel.gated")
async def gated(x: int) -> int:
    STARTED["cancel.gated", x] += 1
    while not GATE.is_set():  # noqa: ASYNC110  set by another thread
        await asyncio.sleep(0.001)
    return x


def graph(number: int, count: int = 4) -> list[Call[int]]:
    """Return calls of every kind of step, different ones for each number."""
    numbers = range(number * count, (number + 1) * count)
    sums = [add(waiting(n), blocking(n)) for n in numbers]
    return [*sums, *(batched(n) for n in numbers), *(join(sums[0], batched(n)) for n in numbers)]


def values(number: int, count: int = 4) -> list[int]:
    """Return what the calls of `graph` return."""
    numbers = range(number * count, (number + 1) * count)
    return [*(2 * n for n in numbers), *numbers, *(2 * numbers[0] + n for n in numbers)]


def key(outcome: Outcome) -> tuple[str, int]:
    """Return the key in `STARTED` of the step that an outcome is of."""
    return outcome.call.node.name, outcome.value


def ends(work: Callable[[], T]) -> T:
    """Return what a function returns, run on another thread; fail if it does not end."""
    returned: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            returned.append(work())
        except BaseException as error:  # noqa: BLE001  raised below
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "it waits for ever"
    if raised:
        raise raised[0]
    return returned[0]


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds; fail if it never does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.001)


class Watched(Backend):
    """A backend that knows which leases are held, and can be told what to do on each call."""

    def __init__(self, url: str) -> None:
        self.backend: Backend = open_backend(url)
        self.held: Counter[bytes] = Counter()
        self.on_lease: Callable[[], object] = lambda: None
        self.on_get: Callable[[], object] = lambda: None
        self.on_put: Callable[[], object] = lambda: None
        self._lock = threading.Lock()

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found = self.backend.get_many(keys)
        self.on_get()
        return found

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self.on_put()
        self.backend.put_many(items)

    def delete_many(self, keys: Iterable[bytes]) -> int:
        return self.backend.delete_many(keys)

    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        self.backend.touch_many(hits, when)

    def scan(self) -> Iterator[Entry]:
        return self.backend.scan()

    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:
        granted = self.backend.lease_many(keys)
        self.note(granted, 1)
        self.on_lease()
        return granted

    def release_many(self, keys: Iterable[bytes]) -> None:
        released = list(keys)
        self.backend.release_many(released)
        self.note(released, -1)

    def close(self) -> None:
        self.backend.close()

    def note(self, keys: Iterable[bytes], change: int) -> None:
        with self._lock:
            for key in keys:
                self.held[key] += change
                if not self.held[key]:
                    del self.held[key]


class OtherProcess:
    """Another process with an engine on the same cache, which does what it is asked."""

    def __init__(self, url: str) -> None:
        tests = str(Path(__file__).parents[1])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.cancellable", url],
            env={**os.environ, "PYTHONPATH": tests},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def say(self, *command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(ends(self._process.stdout.readline))

    def run(self, number: int) -> tuple[list[int], int]:
        """Run the calls of a graph there; return their values and how many were computed."""
        self.say("run", number)
        found, computed = self.hear()
        return found, computed

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def _answer(url: str) -> None:
    def say(*answer: Any) -> None:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    def hold(number: int) -> None:
        def held() -> None:
            say(engine.run(gated(number)))

        GATE.clear()
        threading.Thread(target=held, daemon=True).start()
        until(lambda: STARTED["cancel.gated", number] > 0, "the step does not begin")
        say("holds")

    with Engine(url) as engine:
        for line in sys.stdin:
            match json.loads(line):
                case ["run", number]:
                    before = sum(STARTED.values())
                    found = engine.run(graph(number))
                    say(found, sum(STARTED.values()) - before)
                case ["hold", number]:
                    hold(number)
                case ["let go"]:
                    GATE.set()


if __name__ == "__main__":
    _answer(sys.argv[1])
