"""`engine.map`: results as they come, and a bounded number of them in memory."""

import asyncio
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cancellable import PATIENCE, Watched, ends, until

from cachedeval import CachedevalError, Engine, node
from cachedeval.engine import mapping


@node(version="1", name="map.double")
def double(x: int) -> int:
    if x < 0:
        raise ValueError(x)
    return 2 * x


@node(version="1", name="map.adouble")
async def adouble(x: int) -> int:
    await asyncio.sleep(0)
    if x < 0:
        raise ValueError(x)
    return 2 * x


@node(version="1", name="map.add")
def add(x: int, y: int = 1) -> int:
    return x + y


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    ends(engine.close)


async def collected(results: Any) -> list[Any]:
    return [result async for result in results]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("step", [double, adouble])
def test_a_map_is_the_run_of_all_items(step: Any, engine: Engine, *, ordered: bool) -> None:
    wanted = [2 * x for x in range(6000)]
    keep = list if ordered else sorted
    found = ends(lambda: keep(engine.map(step, range(6000), ordered=ordered)))
    assert found == wanted
    again = ends(lambda: keep(engine.map(step, range(6000), ordered=ordered)))
    assert again == wanted
    assert engine.stats[step.name].as_dict() == {
        "calls": 12000,
        "hits": 6000,
        "computed": 6000,
        "failed": 0,
    }
    third = ends(lambda: asyncio.run(collected(engine.amap(step, range(9000), ordered=ordered))))
    assert keep(third) == [2 * x for x in range(9000)]


def test_items_are_arguments_as_for_the_built_in_map(engine: Engine) -> None:
    assert list(engine.map(add, [1, 2, 3], [10, 20])) == [11, 22]
    assert list(engine.map(lambda x: add(x, y=5), [1, 2])) == [6, 7]
    assert list(engine.map(double, [double(1), add(double(2))])) == [4, 10]
    assert list(engine.map(double, [])) == []
    assert list(engine.map(double, [3] * 1500)) == [6] * 1500


def test_one_call_may_come_again_and_again(engine: Engine) -> None:
    call = double(4)
    assert list(engine.map(lambda _: call, range(1100))) == [8] * 1100


def test_neither_items_nor_results_are_held(engine: Engine) -> None:
    taken = 0
    refs: list[weakref.ref[Any]] = []

    def items() -> Iterator[int]:
        nonlocal taken
        for x in range(30_000):
            taken += 1
            yield x

    def made(x: int) -> Any:
        call = double(x)
        refs.append(weakref.ref(call))
        return call

    for number, result in enumerate(engine.map(made, items())):
        assert result == 2 * number
        assert taken <= number + mapping.WINDOW
        if number % 10_000 == 9_999:
            gc.collect()
            assert sum(ref() is not None for ref in refs) <= mapping.WINDOW + 1


def test_a_result_comes_before_the_others_of_its_part(engine: Engine) -> None:
    gate = threading.Event()

    @node(version="1", name="map.gated")
    async def gated(x: int) -> int:
        while x > 3 and not gate.is_set():  # noqa: ASYNC110  set by another thread
            await asyncio.sleep(0.001)
        return x

    results = engine.map(gated, range(100))
    assert ends(lambda: [next(results) for _ in range(4)]) == [0, 1, 2, 3]
    gate.set()
    assert ends(lambda: list(results)) == list(range(4, 100))


def test_unordered_results_do_not_wait_for_a_slow_one(engine: Engine) -> None:
    gate = threading.Event()

    @node(version="1", name="map.slow")
    async def slow(x: int) -> int:
        while x == 0 and not gate.is_set():  # noqa: ASYNC110  set by another thread
            await asyncio.sleep(0.001)
        return x

    count = 2 * mapping.WINDOW
    results = engine.map(slow, range(count), ordered=False)
    first = ends(lambda: list(itertools.islice(results, count - 1)))
    assert sorted(first) == list(range(1, count))
    gate.set()
    assert ends(lambda: list(results)) == [0]


@pytest.mark.parametrize("step", [double, adouble])
def test_an_error_comes_in_its_turn(step: Any, engine: Engine) -> None:
    results = engine.map(step, [1, 2, -3, 4])
    assert [next(results), next(results)] == [2, 4]
    with pytest.raises(ValueError, match="-3"):
        next(results)
    found = list(engine.map(step, [1, -2, 3], return_exceptions=True))
    assert [found[0], found[2]] == [2, 6]
    assert isinstance(found[1], ValueError)


class FatalError(CachedevalError):
    fatal = True


def test_a_fatal_error_ends_it(engine: Engine) -> None:
    @node(version="1", name="map.fatal")
    def fatal(x: int) -> int:
        if x == 700:
            raise FatalError(x)
        return x

    with pytest.raises(FatalError):
        ends(lambda: list(engine.map(fatal, range(10**9), return_exceptions=True)))


@pytest.mark.parametrize("url", ["memory:", "disk:"])
def test_a_map_that_is_left_leaves_nothing_behind(url: str, tmp_path: Path) -> None:
    backend = Watched(url if url == "memory:" else f"disk:{tmp_path / 'cache'}")
    before = set(threading.enumerate())
    engine = Engine(backend)
    for step in (double, adouble):
        for count in (0, 1, 700):
            results = engine.map(step, range(100_000))
            ends(lambda: list(itertools.islice(results, count)))  # noqa: B023
            results.close()  # type: ignore[attr-defined]
            until(lambda: not backend.held, "a lease is left behind")
    assert engine.run(double(5)) == 10
    ends(engine.close)
    until(lambda: set(threading.enumerate()) <= before, "a thread is left behind")
    backend.close()


async def test_an_async_map_may_be_cancelled(engine: Engine) -> None:
    async def run() -> None:
        async for _ in engine.amap(adouble, range(10**9)):
            pass

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(run(), 0.2)
    found = await asyncio.wait_for(collected(engine.amap(adouble, range(100))), PATIENCE)
    assert found == [2 * x for x in range(100)]


def test_a_step_may_map(engine: Engine) -> None:
    @node(version="1", name="map.outer", concurrency=1)
    def outer(x: int) -> int:
        return sum(engine.map(outer, range(x)))

    @node(version="1", name="map.aouter", concurrency=1)
    async def aouter(x: int) -> int:
        return sum([y async for y in engine.amap(aouter, range(x))]) + x

    assert ends(lambda: engine.run([outer(6), outer(7)])) == [0, 0]
    assert ends(lambda: engine.run([aouter(3), aouter(4)])) == [7, 15]


def test_an_async_step_does_not_block_its_loop(engine: Engine) -> None:
    @node(version="1", name="map.blocks")
    async def blocks(x: int) -> int:
        return sum(engine.map(double, range(x)))

    with pytest.raises(RuntimeError, match="a step waits here for steps that wait for it"):
        ends(lambda: engine.run(blocks(3)))


def test_a_closed_engine_ends_it() -> None:
    engine = Engine()
    results = engine.map(adouble, range(10**9))
    next(results)
    ends(engine.close)
    with pytest.raises(CachedevalError, match="closed"):
        ends(lambda: list(results))


PROGRAM = r"""
import re, sys
from pathlib import Path
from cachedeval import Engine, node

@node(version="1")
def trivial(x: int) -> int:
    return x + 1

count = int(sys.argv[2])
with Engine(sys.argv[1]) as engine:
    total = 0
    for number, value in enumerate(engine.map(trivial, range(count))):
        if number % 1000 == 0:
            print(number, flush=True)
        total += value
    stats = engine.stats[trivial.name]
    # Not `ru_maxrss`, which a process inherits from the one that started it.
    status = Path("/proc/self/status")
    peak = int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) if status.exists() else 0
    print("done", total, stats.hits, stats.computed, peak, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.thorough)])
def test_a_map_that_is_killed_is_finished_by_the_next(count: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, f"disk:{tmp_path / 'cache'}", str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        for line in first.stdout:
            if int(line) >= count // 2:
                break
        os.kill(first.pid, signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    total, hits, computed, peak = map(int, done.stdout.split("done")[1].split())
    assert total == count * (count + 1) // 2
    assert hits + computed == count
    assert hits >= count // 2
    assert peak < 200_000, "kilobytes"
