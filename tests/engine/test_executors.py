"""Where steps run: on the caller's thread, on threads, on one thread in turns."""

import asyncio
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from cachedeval import CachedevalError, Engine, node

where: list[threading.Thread] = []


@node(version="1")
def here(x: int) -> int:
    where.append(threading.current_thread())
    return x


@pytest.fixture(autouse=True)
def _fresh() -> None:
    where.clear()


def test_a_single_ready_call_runs_on_the_callers_thread() -> None:
    before = set(threading.enumerate())
    with Engine() as engine:
        engine.run(here(1))
        engine.run(here(here(here(5))))  # one is ready at a time
        assert set(threading.enumerate()) <= before
    assert set(where) == {threading.current_thread()}


def test_a_single_miss_imports_no_asyncio() -> None:
    import subprocess  # noqa: PLC0415

    program = """
import sys
from cachedeval import Engine, node

@node(version="1")
def double(x: int) -> int:
    return x * 2

with Engine() as engine:
    assert engine.run(double(double(3))) == 12
    assert engine.run([double(n) for n in range(9)]) == [2 * n for n in range(9)]
assert not {"asyncio", "concurrent.futures"} & set(sys.modules), "imported"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_several_calls_run_on_threads() -> None:
    with Engine() as engine:
        engine.run([here(n) for n in range(20)])
    assert threading.current_thread() not in where
    assert len(where) == 20


def test_in_a_running_event_loop_a_step_may_start_one_of_its_own() -> None:
    async def answer() -> int:
        return 42

    @node(version="1")
    def starts_a_loop(x: int) -> int:
        return x + asyncio.run(answer())

    async def notebook(engine: Engine) -> Any:
        return engine.run(starts_a_loop(1))

    with Engine() as engine:
        assert asyncio.run(notebook(engine)) == 43
        assert engine.run(starts_a_loop(2)) == 44


def test_threads_are_as_many_as_are_needed_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    now, most = [0], [0]
    lock = threading.Lock()

    @node(version="1")
    def slow(x: int) -> int:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            where.append(threading.current_thread())
        time.sleep(0.01)
        with lock:
            now[0] -= 1
        return x

    with Engine() as engine:
        engine.run([slow(n) for n in range(30)])
        assert most == [5]
        assert len(set(where)) == 5
        assert all(thread.daemon for thread in where)


def test_steps_that_wait_for_runs_of_their_own_get_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: -3)  # one thread
    engine = Engine()

    @node(version="1")
    def outer(x: int) -> int:
        return sum(engine.run([here(x), here(x + 100)]))

    with engine:
        assert engine.run([outer(n) for n in range(6)]) == [100 + 2 * n for n in range(6)]


def test_what_is_left_is_closed_on_its_executor() -> None:
    ended: list[threading.Thread] = []
    started = threading.Event()

    @dataclass
    class Item:
        x: int

    @node(version="1", batch=True)
    def endless(batch: Sequence[Item]) -> Iterator[tuple[int, int] | None]:
        try:
            while batch:
                where.append(threading.current_thread())
                started.set()
                time.sleep(0.001)
                yield None
        finally:
            ended.append(threading.current_thread())

    engine = Engine()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            engine.run(endless(1))
        except CachedevalError as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(5)
    engine.close()
    thread.join(5)
    assert ended == where[:1]
    assert "the engine was closed" in str(failed[0])


def test_a_serial_step_that_hangs_is_left_behind() -> None:
    go, started = threading.Event(), threading.Event()

    @node(version="1", executor="stuck")
    def stuck(x: int) -> int:
        where.append(threading.current_thread())
        started.set()
        go.wait(20)
        return x

    engine = Engine()
    thread = threading.Thread(target=lambda: engine.settle([stuck(1)]), daemon=True)
    thread.start()
    assert started.wait(5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("threading.excepthook", lambda _: None)
        engine.close()
        assert where[0].is_alive()
        assert where[0].daemon
        thread.join(10)
    go.set()
    where[0].join(10)


def test_a_step_that_waits_for_itself_is_an_error_that_names_the_circle() -> None:
    engine = Engine()

    @node(version="1", name="again")
    def again(x: int) -> int:
        return engine.run(again(x))

    @node(version="1", name="ping")
    def ping(x: int) -> int:
        return int(engine.run(pong(x)))

    @node(version="1", name="pong")
    def pong(x: int) -> int:
        return int(engine.run(ping(x)))

    @node(version="1", name="awaits")
    async def awaits(x: int) -> int:
        return int(await engine.arun(awaits(x)))

    with engine:
        with pytest.raises(CachedevalError, match=r"again\(x=1\) -> again\(x=1\)"):
            engine.run(again(1))
        with pytest.raises(CachedevalError, match=r"ping\(x=1\)"):
            engine.run(ping(1))
        with pytest.raises(CachedevalError, match=r"waits for its own result: .*pong\(x=2\)"):
            engine.run([ping(2), pong(2)])
        with pytest.raises(CachedevalError, match=r"awaits\(x=1\) -> awaits\(x=1\)"):
            engine.run(awaits(1))
        assert engine.run(here(1)) == 1


def test_context_variables_reach_steps() -> None:
    from contextvars import ContextVar  # noqa: PLC0415

    user = ContextVar("user", default="nobody")

    @node(version="1")
    def sync(_x: int) -> str:
        return user.get()

    @node(version="1")
    async def asynchronous(_x: int) -> str:
        return user.get()

    with Engine() as engine:
        user.set("ada")
        assert engine.run([sync(1), sync(2), asynchronous(1)]) == ["ada"] * 3
        assert engine.run(sync(3)) == "ada"


def test_steps_that_wait_for_a_run_on_a_thread_or_loop_of_their_own_are_not_stuck(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: -2)  # two threads
    monkeypatch.setattr("cachedeval.engine.scheduler._STALL", 0.05)
    engine = Engine()

    @node(version="1")
    def on_a_loop(x: int) -> int:
        return sum(asyncio.run(engine.arun([here(x), here(x + 1000)])))

    @node(version="1")
    def on_a_thread(x: int) -> int:
        found: list[int] = []
        thread = threading.Thread(
            target=lambda: found.extend(engine.run([here(x), here(x + 2000)]))
        )
        thread.start()
        thread.join()
        return sum(found)

    with engine:
        assert engine.run([on_a_loop(n) for n in range(8)]) == [2 * n + 1000 for n in range(8)]
        assert engine.run([on_a_thread(n) for n in range(8)]) == [2 * n + 2000 for n in range(8)]
