"""Steps that ask the engine for something: it works, or it is an error; it is never a hang."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from support.cancellable import ends

from cachedeval import CachedevalError, Engine, node
from cachedeval.engine import scheduler

CIRCLE = "a step waits for its own result"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_STALL", 0.02)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    ends(engine.close)


def in_thread(ask: Callable[[], Any]) -> Any:
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(ask())
        except CachedevalError as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def in_pool(ask: Callable[[], Any]) -> Any:
    with futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(ask).result()


def in_map(ask: Callable[[], Any]) -> Any:
    with futures.ThreadPoolExecutor(1) as pool:
        return next(pool.map(lambda _: ask(), [1]))


def in_waited(ask: Callable[[], Any]) -> Any:
    with futures.ThreadPoolExecutor(1) as pool:
        (future,) = futures.wait([pool.submit(ask)]).done
        return future.result()


def in_completed(ask: Callable[[], Any]) -> Any:
    with futures.ThreadPoolExecutor(1) as pool:
        return next(futures.as_completed([pool.submit(ask)])).result()


def in_threads(ask: Callable[[], Any]) -> Any:
    return in_thread(lambda: in_pool(ask))


def in_no_context(ask: Callable[[], Any]) -> Any:
    return contextvars.Context().run(ask)


POOL = futures.ThreadPoolExecutor(16)


def in_old_pool(ask: Callable[[], Any]) -> Any:
    return POOL.submit(ask).result()


THROUGH = [
    *(in_thread, in_pool, in_map, in_waited, in_completed, in_threads, in_no_context, in_old_pool),
]


def both(engine: Engine) -> list[Callable[[Any], Any]]:
    return [engine.run, lambda calls: asyncio.run(engine.arun(calls))]


@pytest.mark.parametrize("outer", [0, 1])
@pytest.mark.parametrize("inner", [0, 1])
@pytest.mark.parametrize("through", THROUGH)
def test_a_step_that_waits_for_itself_through_a_thread_fails(
    through: Callable[[Callable[[], Any]], Any], inner: int, outer: int, engine: Engine
) -> None:
    @node(version="1", name="circle.itself")
    def itself(x: int) -> int:
        return through(lambda: both(engine)[inner](itself(x)))  # type: ignore[no-any-return]

    @node(version="1", name="circle.other")
    def other(x: int) -> int:
        return x

    with pytest.raises(CachedevalError, match=CIRCLE) as caught:
        ends(lambda: both(engine)[outer](itself(1)))
    assert str(caught.value).count("circle.itself(x=1)") == 2
    found = ends(lambda: engine.settle([itself(1), itself(2), other(3)]))
    assert [outcome.state for outcome in found] == ["failed", "failed", "computed"]


@pytest.mark.parametrize("through", THROUGH)
def test_steps_that_wait_for_each_other_through_threads_fail(
    through: Callable[[Callable[[], Any]], Any], engine: Engine
) -> None:
    @node(version="1", name="circle.a")
    def a(x: int) -> int:
        return through(lambda: engine.run(b(x)))  # type: ignore[no-any-return]

    @node(version="1", name="circle.b")
    def b(x: int) -> int:
        return through(lambda: engine.run(a(x)))  # type: ignore[no-any-return]

    for calls in ([a(1)], [a(1), b(1)], [a(1), a(2), b(1), b(2)]):
        for outcome in ends(lambda calls=calls: engine.settle(calls)):  # type: ignore[misc,attr-defined]
            assert CIRCLE in str(outcome.error)
            assert "circle.a" in str(outcome.error)
            assert "circle.b" in str(outcome.error)


async def awaits_executor(ask: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, ask)


async def awaits_thread(ask: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(ask)


async def awaits_pool(ask: Callable[[], Any]) -> Any:
    return await asyncio.wrap_future(POOL.submit(ask))


async def awaits_own_pool(ask: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(POOL, ask)


async def awaits_several(ask: Callable[[], Any]) -> Any:
    return (await asyncio.gather(awaits_pool(ask), asyncio.sleep(0)))[0]


async def awaits_task(ask: Callable[[], Any]) -> Any:
    return await asyncio.wait_for(asyncio.create_task(awaits_pool(ask)), None)


@pytest.mark.parametrize(
    "through",
    [
        *(awaits_executor, awaits_thread, awaits_pool, awaits_own_pool),
        *(awaits_several, awaits_task),
    ],
)
def test_an_async_step_that_waits_for_itself_through_a_thread_fails(
    through: Any, engine: Engine
) -> None:
    @node(version="1", name="circle.async")
    async def itself(x: int) -> int:
        return await through(lambda: engine.run(itself(x)))  # type: ignore[no-any-return]

    for run in both(engine):
        with pytest.raises(CachedevalError, match=CIRCLE):
            ends(lambda run=run: run(itself(1)))  # type: ignore[misc]


def test_a_step_that_waits_for_its_own_executor_through_a_thread_fails(engine: Engine) -> None:
    @node(version="1", name="circle.serial", executor="gpu")
    def serial(x: int) -> int:
        return in_pool(lambda: engine.run(serial(x - 1))) if x else 0

    with pytest.raises(CachedevalError, match=CIRCLE):
        ends(lambda: engine.run(serial(1)))
    assert ends(lambda: engine.run(serial(0))) == 0


def test_an_async_step_that_asks_for_itself_or_each_other_fails(engine: Engine) -> None:
    @node(version="1", name="circle.a")
    async def a(x: int) -> int:
        return await engine.arun(b(x))  # type: ignore[no-any-return]

    @node(version="1", name="circle.b")
    async def b(x: int) -> int:
        return await engine.arun(a(x) if x else b(x))  # type: ignore[no-any-return]

    for x in (0, 1):
        with pytest.raises(CachedevalError, match=CIRCLE):
            ends(lambda x=x: engine.run(a(x)))  # type: ignore[misc]


def test_a_batched_step_that_asks_for_itself_fails(engine: Engine) -> None:
    @dataclass
    class Item:
        x: int

    @node(version="1", name="circle.batched", batch=True)
    def batched(items: Sequence[Item]) -> Iterator[tuple[int, int]]:
        for index, item in enumerate(items):
            ask = partial(engine.run, batched(item.x))
            yield index, in_pool(ask)

    with pytest.raises(CachedevalError, match=CIRCLE):
        ends(lambda: engine.run(batched(1)))


@node(version="1", name="circle.plain")
def plain(x: int) -> int:
    return x + 1


@pytest.mark.parametrize("inner", [0, 1])
@pytest.mark.parametrize("through", [*THROUGH, lambda ask: ask()])
def test_a_hundred_steps_that_wait_for_another_all_end(
    through: Callable[[Callable[[], Any]], Any], inner: int, engine: Engine
) -> None:
    @node(version="1", name="circle.outer")
    def outer(x: int) -> int:
        return through(lambda: both(engine)[inner](plain(x)))  # type: ignore[no-any-return]

    assert ends(lambda: engine.run([outer(x) for x in range(100)])) == list(range(1, 101))


@pytest.mark.parametrize("through", [in_thread, in_old_pool])
def test_waiting_for_a_step_that_waits_for_another_is_no_circle(
    through: Callable[[Callable[[], Any]], Any],
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked, looks = threading.Event(), 0
    gate = threading.Event()

    @node(version="1", name="circle.gated")
    def gated(x: int) -> int:
        gate.wait()
        return x

    refuse = type(engine._started()._execution).look_for_circles

    def look_for_circles(*args: Any) -> None:
        nonlocal looks
        refuse(*args)
        looks += 1
        if looks > 3:
            looked.set()

    monkeypatch.setattr("cachedeval.engine.execution.Execution.look_for_circles", look_for_circles)
    with futures.ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(engine.run, gated(1)) for _ in range(3)]
        waiting.append(pool.submit(through, lambda: engine.run(gated(1))))
        assert looked.wait(30)
        gate.set()
        assert [each.result() for each in waiting] == [1] * 4


def test_a_thread_that_outlives_its_step_gets_the_result_of_it(engine: Engine) -> None:
    found: list[Any] = []
    started: list[threading.Thread] = []

    @node(version="1", name="circle.outlived")
    def outlived(x: int) -> int:
        thread = threading.Thread(target=lambda: found.append(engine.run(outlived(x))))
        thread.start()
        started.append(thread)
        return x

    assert engine.run(outlived(7)) == 7
    started[0].join(30)
    assert found == [7]
