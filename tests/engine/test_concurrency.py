"""`@node(concurrency=N)`: never more than N steps at once, and never a hang."""

import asyncio
import contextvars
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from support.cancellable import PATIENCE, ends

from cachedeval import Engine, InputError, node
from cachedeval.engine import scheduler


class Count:
    """Counts what runs at once."""

    def __init__(self) -> None:
        self.now = self.peak = self.total = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.total += 1
            self.peak = max(self.peak, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    ends(engine.close)


def test_of_two_thousand_async_calls_eight_run_at_once(engine: Engine) -> None:
    running = Count()

    @node(version="1", concurrency=8)
    async def ask(x: int) -> int:
        with running:
            for _ in range(1 + x % 3):
                await asyncio.sleep(0)
        return x

    assert ends(lambda: engine.run([ask(x) for x in range(2000)])) == list(range(2000))
    assert running.peak == 8
    assert running.total == 2000


def test_runs_of_several_threads_and_loops_share_the_slots(engine: Engine) -> None:
    running = Count()

    @node(version="1", concurrency=3)
    async def ask(x: int) -> int:
        with running:
            await asyncio.sleep(0.0001)
        return x

    @node(version="1", concurrency=2)
    def compute(x: int) -> int:
        with computing:
            time.sleep(0.0001)
        return x

    computing = Count()

    def work(number: int) -> list[int]:
        calls = [
            step(x) for x in range(100 * number, 100 * number + 150) for step in (ask, compute)
        ]
        if number % 2:
            return engine.run(calls)
        return asyncio.run(engine.arun(calls))

    with ThreadPoolExecutor(4) as pool:
        for number, found in enumerate(pool.map(work, range(4))):
            assert found == [x for x in range(100 * number, 100 * number + 150) for _ in range(2)]
    assert running.peak == 3
    assert computing.peak <= 2
    assert running.total == computing.total == 450


@pytest.mark.parametrize("count", [1, 2])
def test_a_step_may_wait_for_calls_of_its_own_node(count: int, engine: Engine) -> None:
    running = Count()

    @node(version="1", name="slots.down", concurrency=count)
    async def down(x: int) -> int:
        with running:
            pass
        below = await engine.arun([down(x - 1), down(x - 2)]) if x > 1 else [0, x]
        with running:
            await asyncio.sleep(0)
        return sum(below)

    @node(version="1", name="slots.sync", concurrency=count)
    def sync(x: int) -> int:
        below = engine.run([sync(x - 1), sync(x - 2)]) if x > 1 else [0, x]
        with running:
            time.sleep(0.0001)
        return sum(below)

    for step in (down, sync):
        assert ends(lambda step=step: engine.run([step(12), step(11)])) == [144, 89]  # type: ignore[misc]
        assert running.peak <= count
        assert running.now == 0


@pytest.mark.parametrize("in_context", [False, True])
def test_a_step_may_wait_for_its_own_node_through_a_thread(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, *, in_context: bool
) -> None:
    monkeypatch.setattr(scheduler, "_STALL", 0.02)

    @node(version="1", name="slots.threaded", concurrency=1)
    def threaded(x: int) -> int:
        if not x:
            return 0
        run = contextvars.copy_context().run if in_context else lambda f: f()
        with ThreadPoolExecutor(1) as pool:
            below: int = pool.submit(run, lambda: engine.run(threaded(x - 1))).result()
            return 1 + below

    assert ends(lambda: engine.run([threaded(3), threaded(5)])) == [3, 5]


async def test_cancelled_runs_leave_their_slots(engine: Engine) -> None:
    running = Count()

    @node(version="1", name="slots.ask", concurrency=2)
    async def ask(x: int) -> int:
        with running:
            await asyncio.sleep(0.0005)
        return x

    @node(version="1", name="slots.compute", concurrency=2)
    def compute(x: int) -> int:
        time.sleep(0.0005)
        return x

    @node(version="1", name="slots.nested", concurrency=2)
    async def nested(x: int) -> int:
        found: list[int] = await engine.arun([ask(x), compute(x)])
        return sum(found)

    r = random.Random(8)
    for number in range(60):
        calls = [s(20 * number + n) for n in range(10) for s in (ask, compute, nested)]
        with suppress(TimeoutError):
            await asyncio.wait_for(engine.arun(calls), r.random() * 0.02)
    calls = [s(n) for n in range(20) for s in (ask, compute, nested)]
    found = await asyncio.wait_for(engine.arun(calls), PATIENCE)
    assert found == [value for n in range(20) for value in (n, n, 2 * n)]
    assert running.peak == 2


def test_a_single_call_of_the_calling_thread_takes_a_slot(engine: Engine) -> None:
    @node(version="1", name="slots.alone", concurrency=1)
    def alone(x: int) -> int:
        if x == 3:
            raise ValueError(x)
        return x

    assert [engine.run(alone(x)) for x in (1, 2)] == [1, 2]
    with pytest.raises(ValueError, match="3"):
        engine.run(alone(3))
    assert engine.run([alone(4), alone(5)]) == [4, 5]


@pytest.mark.parametrize("given", [0, -1, 1.5, True, "8"])
def test_a_concurrency_is_an_int_above_0(given: Any) -> None:
    with pytest.raises(InputError, match=r"concurrency is .* give an int above 0"):

        @node(version="1", concurrency=given)
        def step(x: int) -> int:
            return x


def batched(items: Sequence[Any]) -> Iterator[tuple[int, int]]:
    yield 0, len(items)


@pytest.mark.parametrize(
    "setting",
    [{"concurrency": 2}, {"timeout": 2}, {"retry": 2}],
    ids=lambda given: next(iter(given)),
)
def test_a_batched_node_computes_all_at_once(setting: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"a batched node takes no {next(iter(setting))}"):
        node(version="1", batch=True, **setting)(batched)


@pytest.mark.parametrize("setting", [{"concurrency": 2}, {"timeout": 2}])
def test_steps_of_an_executor_take_turns(setting: dict[str, Any]) -> None:
    def step(x: int) -> int:
        return x

    make: Callable[..., Any] = node
    with pytest.raises(InputError, match=f"take turns .* take no {next(iter(setting))}"):
        make(version="1", executor="gpu", **setting)(step)
