"""`@node(ttl=…)`: judged when a result is read, and no part of the key."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from cachedeval import Engine, InputError, MissingError, node, open_backend


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


class Computations:
    """Counts them; no data, so that a step may close over it."""

    def __init__(self, result: Callable[[int], int] = lambda n: n) -> None:
        self.result = result
        self.count = 0

    def __call__(self, _: int) -> int:
        self.count += 1
        return self.result(self.count)


def counted(
    ttl: Any, *, asynchronous: bool = False, result: Callable[[int], int] = lambda n: n
) -> Any:
    """Return a node that returns how often it was computed."""
    computed = Computations(result)

    @node(version="1", name="ttl.sync", ttl=ttl)
    def sync(x: int) -> int:
        return computed(x)

    @node(version="1", name="ttl.async", ttl=ttl)
    async def step(x: int) -> int:
        return computed(x)

    return step if asynchronous else sync


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("ttl", [60, 60.0, timedelta(minutes=1)])
@pytest.mark.parametrize("several", [False, True])
def test_a_result_that_is_too_old_is_a_miss(
    ttl: Any, clock: Clock, *, asynchronous: bool, several: bool
) -> None:
    step = counted(ttl, asynchronous=asynchronous)
    with Engine() as engine:

        def run() -> Any:
            return engine.run([step(1), step(1)])[0] if several else engine.run(step(1))

        assert [run(), run()] == [1, 1]
        clock.now += 60
        assert run() == 1
        clock.now += 1
        assert [run(), run()] == [2, 2]
        clock.now += 60
        assert run() == 2  # its age is that of the new result


def test_the_reader_judges(clock: Clock) -> None:
    backend = open_backend("memory:")
    with Engine(backend) as engine:
        assert engine.run(counted(None)(1)) == 1
        clock.now += 100
        assert engine.run(counted(200)(1)) == 1
        assert engine.run(counted(50, result=lambda n: 10 * n)(1)) == 10
        assert engine.run(counted(None)(1)) == 10
        assert sum(1 for _ in backend.scan()) == 1


def test_what_depends_on_an_equal_result_is_not_computed_again(clock: Clock) -> None:
    old = counted(60, result=lambda _: 7)
    uses = Computations()

    @node(version="1", name="ttl.uses")
    def use(x: int) -> int:
        uses(x)
        return x

    with Engine() as engine:
        assert engine.run(use(old(1))) == 7
        clock.now += 61
        assert engine.run(use(old(1))) == 7
        assert uses.count == 1
        assert engine.stats["ttl.sync"].computed == 2


def test_an_offline_run_takes_nothing_that_is_too_old(clock: Clock) -> None:
    step = counted(60)
    with Engine() as engine:
        engine.run(step(1))
        assert engine.run(step(1), mode="offline") == 1
        clock.now += 61
        with pytest.raises(MissingError):
            engine.run(step(1), mode="offline")


def test_plan_explain_and_forget_know_of_it(clock: Clock) -> None:
    step = counted(60)
    with Engine() as engine:
        engine.run(step(1))
        assert engine.plan([step(1)])["ttl.sync"].hits == 1
        clock.now += 61
        assert engine.plan([step(1)])["ttl.sync"].computed == 1
        assert "61 s" in str(engine.explain(step(1)))
        assert "ttl" in str(engine.explain(step(1)))
        assert engine.forget([step(1)]) == 1


def test_a_clock_that_was_set_back_makes_no_miss(clock: Clock) -> None:
    step = counted(60)
    with Engine() as engine:
        engine.run(step(1))
        clock.now -= 1000
        assert engine.run(step(1)) == 1


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), "1d", True, timedelta(0)])
def test_a_ttl_is_above_0(ttl: Any) -> None:
    with pytest.raises(InputError, match=r"ttl is .* give seconds above 0, or a timedelta"):
        counted(ttl)
