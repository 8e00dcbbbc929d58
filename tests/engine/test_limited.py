"""Steps that a limiter holds back."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from cachedeval import Engine, InputError, node


class AtMost:
    """So many at once, over all threads and event loops."""

    def __init__(self, count: int) -> None:
        self.free = count
        self.most = count
        self.entered = 0
        self.lock = threading.Lock()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[None]:
        while True:
            with self.lock:
                if self.free:
                    self.free -= 1
                    self.entered += 1
                    break
            await asyncio.sleep(0.001)
        try:
            yield
        finally:
            with self.lock:
                self.free += 1


class Count:
    def __init__(self) -> None:
        self.now = self.peak = 0
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        with self.lock:
            self.now += 1
            self.peak = max(self.peak, self.now)

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.now -= 1


def test_async_and_synchronous_steps_share_a_limiter() -> None:
    limiter, running = AtMost(3), Count()

    @node(version="1", limiter=limiter)
    async def asynchronous(x: int) -> int:
        with running:
            await asyncio.sleep(0.002)
        return x

    @node(version="1", limiter=limiter)
    def synchronous(x: int) -> int:
        with running:
            time.sleep(0.002)
        return x

    with Engine() as engine:
        calls = [step(n) for n in range(30) for step in (asynchronous, synchronous)]
        assert engine.run(calls) == [n for n in range(30) for _ in range(2)]
        assert running.peak <= 3
        assert limiter.entered == 60
        engine.run(calls)
        assert limiter.entered == 60  # a hit does not pass it
        assert engine.run(synchronous(100)) == 100  # on this thread
        assert limiter.entered == 61
    assert limiter.free == 3


def test_a_step_that_fails_gives_its_place_back() -> None:
    limiter = AtMost(1)

    @node(version="1", limiter=limiter)
    async def asynchronous(x: int) -> int:
        raise ValueError(x)

    @node(version="1", limiter=limiter)
    def synchronous(x: int) -> int:
        raise ValueError(x)

    with Engine() as engine:
        outcomes = engine.settle(
            [step(n) for n in range(5) for step in (asynchronous, synchronous)]
        )
        assert {type(outcome.error) for outcome in outcomes} == {ValueError}
    assert limiter.free == 1


@dataclass
class Item:
    x: int


def test_a_batched_node_takes_no_limiter() -> None:
    def batched(batch: Sequence[Item]) -> Iterator[tuple[int, int]]:
        yield from enumerate(item.x for item in batch)

    with pytest.raises(InputError, match="a batched node takes no limiter"):
        node(batch=True, limiter=AtMost(1))(batched)  # type: ignore[call-overload]
