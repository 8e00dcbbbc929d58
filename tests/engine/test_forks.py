"""Engines on both sides of a fork. Every child is a real one."""

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from support.forked import Fork, fork_quietly, forked, wait_for

from cachedeval import Engine, Resource, node, open_backend

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@node(version="1")
def double(x: int) -> int:
    return x * 2


@node(version="1")
async def adouble(x: int) -> int:
    await asyncio.sleep(0)
    return x * 2


class Number(Struct):
    x: int


@node(version="1", batch=True)
def batched(numbers: Sequence[Number]) -> Iterator[tuple[int, int]]:
    for index, number in enumerate(numbers):
        yield index, number.x * 2


KINDS = [double, adouble, batched]


@pytest.fixture(params=["disk", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory:" if request.param == "memory" else f"disk:{tmp_path / 'cache'}"


def computed(engine: Engine, kind: Any) -> int:
    """Return how often a node was computed by this engine, in this process or its parents."""
    stats = engine.stats.get(kind.name)
    return stats.computed if stats else 0


def check_stored(url: str, calls: list[Any], values: list[Any]) -> None:
    """Check in a process of its own that all of it is in the cache."""

    def work() -> None:
        with Engine(url, mode="offline") as engine:
            assert engine.run(calls) == values
            assert not engine.store.counts.errors
            assert not engine.store.counts.corrupt

    with forked(work):
        pass


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.rpartition(".")[2])
@pytest.mark.parametrize("ends", ["closes", "exits"])
def test_an_engine_works_on_both_sides(url: str, kind: Any, ends: str) -> None:
    with Engine(url) as engine:
        assert engine.run([kind(n) for n in range(5)]) == [n * 2 for n in range(5)]

        def work() -> None:
            before = computed(engine, kind)
            assert engine.run([kind(n) for n in range(10)]) == [n * 2 for n in range(10)]
            assert computed(engine, kind) == before + 5  # the rest are hits
            assert asyncio.run(engine.arun([double(50), kind(3)])) == [100, 6]
            if ends == "closes":
                engine.close()

        with forked(work):
            assert engine.run([kind(n) for n in range(20, 25)]) == [n * 2 for n in range(20, 25)]
        before = computed(engine, kind)
        assert engine.run([kind(n) for n in range(5, 10)]) == [n * 2 for n in range(5, 10)]
        assert computed(engine, kind) == before + (5 if url == "memory:" else 0)
        assert not engine.store.counts.errors


@pytest.mark.parametrize("ends", ["closes", "exits"])
def test_the_parents_close_loses_nothing_of_the_childs(tmp_path: Path, ends: str) -> None:
    url = f"disk:{tmp_path}"
    engine = Engine(url)
    engine.run([double(n) for n in range(20)])
    stored, closed = os.pipe(), os.pipe()

    def work() -> None:
        engine.run([double(n) for n in range(100, 150)])
        os.write(stored[1], b".")
        os.read(closed[0], 1)
        for k in range(1000, 1100, 10):
            engine.run([double(n) for n in range(k, k + 10)])
        assert not engine.store.counts.errors
        if ends == "closes":
            engine.close()

    with forked(work):
        os.read(stored[0], 1)
        engine.close()
        os.write(closed[1], b".")
    numbers = [*range(20), *range(100, 150), *range(1000, 1100)]
    check_stored(url, [double(n) for n in numbers], [n * 2 for n in numbers])


_pool_engine: Engine


def _pool_job(number: int) -> int:
    return _pool_engine.run(double(number))


def test_a_pool_of_forked_workers(tmp_path: Path) -> None:
    global _pool_engine  # noqa: PLW0603  as users do, because a worker cannot be given one
    url = f"disk:{tmp_path}"
    _pool_engine = engine = Engine(url)
    engine.run([double(n) for n in range(10)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pool = multiprocessing.get_context("fork").Pool(3)
    with pool:
        expected = [n * 2 for n in range(100, 150)]
        assert pool.map_async(_pool_job, range(100, 150)).get(60) == expected
        assert engine.run([double(n) for n in range(100, 150)]) == expected
        assert computed(engine, double) == 10
        engine.close()
        assert len(pool.map_async(_pool_job, range(200, 300)).get(60)) == 100
        pool.close()
        pool.join()
    numbers = [*range(10), *range(100, 150), *range(200, 300)]
    check_stored(url, [double(n) for n in numbers], [n * 2 for n in numbers])


THIRD = """
import sys
from cachedeval import Engine, node
@node(version="1", name="third")
def third(x: int) -> str:
    return str(x) * 3000
with Engine(sys.argv[1]) as engine:
    for k in range(30):
        engine.run([third(k * 10 + j) for j in range(10)])
    assert not engine.store.counts.errors and not engine.store.counts.corrupt
"""


@node(version="1")
def long(x: int) -> str:
    return str(x) * 5000


def test_a_third_process_writes_meanwhile(tmp_path: Path) -> None:
    url = f"disk:{tmp_path}"
    engine = Engine(url)
    engine.run([long(n) for n in range(50)])

    def work() -> None:
        for k in range(1000, 1200, 10):
            engine.run([long(n) for n in range(k, k + 10)])
        assert not engine.store.counts.errors
        assert not engine.store.counts.corrupt

    with forked(work):
        engine.close()
        third = subprocess.Popen(
            [sys.executable, "-c", THIRD, url], env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        with Engine(url) as second:
            for k in range(2000, 2100, 10):
                second.run([long(n) for n in range(k, k + 10)])
        assert third.wait(60) == 0
    numbers = [*range(50), *range(1000, 1200), *range(2000, 2100)]
    check_stored(url, [long(n) for n in numbers], [str(n) * 5000 for n in numbers])
    assert not list(tmp_path.glob("*corrupt*"))


_inside: Engine
"""The engine whose steps fork."""


def _fork_inside(x: int, *, returns: bool) -> int:
    process = os.getpid()
    child = fork_quietly()
    if child == 0:
        status = 1
        try:
            assert _inside.run([double(x), double(1000 + x)]) == [x * 2, 2000 + x * 2]
            status = 0
        finally:
            if status or not returns:
                os._exit(status)
        return -1
    assert wait_for(child) == 0
    assert os.getpid() == process
    return x


@node(version="1")
def forks(x: int, *, returns: bool) -> int:
    return _fork_inside(x, returns=returns)


@node(version="1")
async def aforks(x: int, *, returns: bool) -> int:
    return _fork_inside(x, returns=returns)


class Forks(Struct):
    x: int
    returns: bool


@node(version="1", batch=True)
def batch_forks(items: Sequence[Forks]) -> Iterator[tuple[int, int]]:
    for index, item in enumerate(items):
        yield index, _fork_inside(item.x, returns=item.returns)


@pytest.mark.parametrize("returns", [False, True], ids=["exits", "returns"])
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("kind", [forks, aforks, batch_forks], ids=["sync", "async", "batched"])
def test_a_step_forks(url: str, kind: Any, count: int, *, returns: bool) -> None:
    """A child that comes back from the step ends, or goes on as its parent does: never hangs."""
    global _inside  # noqa: PLW0603  a step is given plain data
    process = os.getpid()
    with Engine(url) as engine:
        _inside = engine
        try:
            assert engine.run([kind(n, returns=returns) for n in range(count)])[0] in (0, -1)
        finally:
            if os.getpid() != process:
                os._exit(0)
        assert engine.run([double(1000 + n) for n in range(count)]) == [
            2000 + n * 2 for n in range(count)
        ]
        if url != "memory:":
            assert computed(engine, double) == 0
        assert not engine.store.counts.errors


def test_a_step_starts_a_process(tmp_path: Path) -> None:
    engine = Engine(f"disk:{tmp_path}")

    @node(version="1")
    def starts(x: int) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            process = multiprocessing.get_context("fork").Process(
                target=lambda: engine.run([double(x), adouble(x)])
            )
            process.start()
        process.join(60)
        assert process.exitcode == 0
        return x

    assert engine.run([starts(n) for n in range(3)]) == [0, 1, 2]
    engine.close()
    check_stored(f"disk:{tmp_path}", [double(n) for n in range(3)], [0, 2, 4])
    check_stored(f"disk:{tmp_path}", [adouble(n) for n in range(3)], [0, 2, 4])


def test_forks_while_other_threads_run(url: str) -> None:
    stop = threading.Event()
    errors: list[BaseException] = []

    with Engine(url) as engine:
        engine.run([double(n) for n in range(5)])

        def busy(start: int) -> None:
            try:
                for k in range(10**6):
                    if stop.is_set():
                        return
                    numbers = range(start + k * 3, start + k * 3 + 3)
                    calls = [kind(n) for n in numbers for kind in KINDS]
                    assert engine.run(calls) == [n * 2 for n in numbers for _ in KINDS]
                    assert engine.run(double(1)) == 2
            except BaseException as error:  # noqa: BLE001  raised below
                errors.append(error)

        def work(start: int) -> None:
            for n in range(start, start + 4):
                assert engine.run([double(1), *(kind(n) for kind in KINDS)]) == [2, *[n * 2] * 3]
            assert not engine.store.counts.errors

        threads = [threading.Thread(target=busy, args=(n * 10**6,)) for n in (1, 2, 3)]
        for thread in threads:
            thread.start()
        try:
            for n in range(15):
                with forked(lambda n=n: work(10**8 + n * 10)):  # type: ignore[misc]
                    pass
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)
        assert not errors, errors
        assert not engine.store.counts.errors


def test_a_call_in_flight_in_the_parent_is_waited_for_or_computed(url: str) -> None:
    """With a shared cache the child gets the parent's result; its own memory is its own."""
    started, goes_on = threading.Event(), threading.Event()
    process = os.getpid()

    @node(version="1")
    def slow(x: int) -> int:
        started.set()
        if os.getpid() == process:
            assert goes_on.wait(60)
        return x

    with Engine(url) as engine:
        thread = threading.Thread(target=lambda: engine.run(slow(1)))
        thread.start()
        started.wait(60)

        def work() -> None:
            assert engine.run([double(7), double(8)]) == [14, 16]
            assert engine.run([slow(1), slow(2)]) == [1, 2]
            assert computed(engine, slow) == (2 if url == "memory:" else 1)

        with forked(work):
            assert engine.run(double(9)) == 18
            goes_on.set()
        thread.join(60)
        assert not thread.is_alive()
        assert computed(engine, slow) == 1


def test_a_child_takes_over_what_its_parent_was_killed_at(tmp_path: Path) -> None:
    url = f"disk:{tmp_path}"
    started, waiting, done = os.pipe(), os.pipe(), os.pipe()
    process = os.getpid()

    @node(version="1")
    def slow(x: int) -> int:
        if os.getppid() == process:  # in the process that is going to be killed
            os.write(started[1], b".")
            time.sleep(60)
        return x

    def middle() -> None:
        engine = Engine(url)
        engine.run(double(1))
        threading.Thread(target=lambda: engine.run(slow(1)), daemon=True).start()
        os.read(started[0], 1)

        def inner() -> None:
            os.write(waiting[1], b".")
            assert engine.run([slow(1), double(1)]) == [1, 2]
            os.write(done[1], b".")

        Fork(inner)
        time.sleep(60)

    child = Fork(middle)
    os.read(waiting[0], 1)
    time.sleep(0.3)
    child.kill()
    assert os.read(done[0], 1) == b"."


def test_an_outcome_is_reported_and_that_forks(url: str) -> None:
    children = []
    with Engine(url) as engine:

        def notice(_: object) -> None:
            children.append(Fork(lambda: engine.run([double(5), adouble(6)])))

        assert engine.run([double(n) for n in range(3)], on_outcome=notice) == [0, 2, 4]
        for child in children:
            child.join()
        assert len(children) == 3


def test_a_child_opens_its_own_resources(url: str) -> None:
    opened: list[int] = []
    closed: list[int] = []

    def open_() -> int:
        opened.append(os.getpid())
        return os.getpid()

    thing = Resource("thing", "it", open_, close=closed.append)

    @node(version="1")
    def use(thing: Any, x: int) -> int:
        with thing as value:
            assert value == os.getpid()
            return x

    with Engine(url) as engine:
        engine.run(use(thing, 1))
        parent = os.getpid()

        def work() -> None:
            engine.run([use(thing, n) for n in range(2, 5)])
            engine.close()
            assert opened == [parent, os.getpid()]
            assert closed == [os.getpid()]  # the parent's is the parent's to close

        with forked(work):
            pass
        engine.run(use(thing, 9))
    assert opened == closed == [parent]


def test_a_resource_that_another_thread_opens_meanwhile(url: str) -> None:
    opening, goes_on = threading.Event(), threading.Event()
    parent = os.getpid()

    def open_() -> int:
        if os.getpid() == parent:
            opening.set()
            assert goes_on.wait(60)
        return 1

    thing = Resource("thing", "it", open_)

    @node(version="1")
    def use(thing: Any, x: int) -> int:
        with thing as value:
            return x + int(value)

    with Engine(url, memory_budget=1000) as engine:
        thread = threading.Thread(target=lambda: engine.run(use(thing, 1)))
        thread.start()
        opening.wait(60)
        with forked(lambda: engine.run(use(thing, 2)) == 3 or os.abort()):
            pass
        goes_on.set()
        thread.join(60)
        assert engine.run(use(thing, 1)) == 2


FIRST = """
import concurrent.futures.thread, os, sys, threading, time, traceback, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from cachedeval import Engine, node

@node(version="1", name="first")
async def first(x: int) -> int:
    return x

@node(version="1", name="sync")
def sync(x: int) -> int:
    return x

engine = Engine(sys.argv[1])
thread = threading.Thread(target=lambda: engine.run([first(1), sync(1)]))
thread.start()
children = []
for n in range(12):
    time.sleep(float(sys.argv[2]))
    child = os.fork()
    if not child:
        status = 1
        try:
            assert engine.run([first(n + 10), sync(n + 10), sync(1)]) == [n + 10, n + 10, 1]
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    children.append(child)
thread.join()
for child in children:
    assert os.waitpid(child, 0)[1] == 0
engine.close()
"""


@pytest.mark.parametrize("pause", [0.0, 0.003, 0.01])
def test_a_fork_during_the_first_miss_of_another_thread(url: str, pause: float) -> None:
    """What is imported for it in the parent is whole in the child, or imported there."""
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-c", FIRST, url, str(pause)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
            timeout=60,
        )


def test_uses_are_counted_once(tmp_path: Path) -> None:
    url = f"disk:{tmp_path}"
    engine = Engine(url)
    engine.run([double(1), double(2)])
    engine.run([double(1)])

    def work() -> None:
        engine.run(double(2))
        engine.close()

    for child in (engine.close, work):
        with forked(child):
            pass
    engine.close()
    with closing(open_backend(url)) as backend:
        assert sorted(entry.hits for entry in backend.scan()) == [1, 1]


def test_maintenance_in_a_child(tmp_path: Path) -> None:
    with Engine(f"disk:{tmp_path}") as engine:
        engine.run([double(n) for n in range(200)])

        def work() -> None:
            assert engine.plan([double(1), double(999)])
            assert engine.explain(double(999))
            assert engine.forget([double(1), double(2)]) == 2
            engine.prune(max_bytes=0)
            engine.run([double(3)])

        with forked(work):
            pass
        assert engine.run([double(3), double(1)]) == [6, 2]
        assert computed(engine, double) == 201


def test_grandchildren(tmp_path: Path) -> None:
    url = f"disk:{tmp_path}"
    engine = Engine(url)
    engine.run([double(1)])

    def work(number: int, depth: int) -> None:
        assert engine.run([double(1), double(number), adouble(number)])[0] == 2
        if depth:
            with forked(lambda: work(number * 10, depth - 1)):
                engine.run([double(number * 10 + 1)])
        engine.close()

    children = [Fork(lambda n=n: work(n, 3)) for n in range(2, 6)]  # type: ignore[misc]
    for child in children:
        child.join()
    engine.close()
    numbers = [n * 10**depth for n in range(2, 6) for depth in range(4)]
    check_stored(url, [double(n) for n in numbers], [n * 2 for n in numbers])
