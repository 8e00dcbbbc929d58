"""`@node(retry=…, timeout=…)`: what is tried again, how often, and what takes too long."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.cancellable import ends, until

from cachedeval import CachedevalError, Engine, InputError, RetryPolicy, node

FAST = RetryPolicy(attempts=4, wait_initial=1e-6, wait_max=1e-6)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    ends(engine.close)


class Tries:
    """A count that is no data, so that a step may close over it."""

    def __init__(self) -> None:
        self.count = 0


class Attempt(Tries):
    def __init__(self, failures: int, error: Exception) -> None:
        super().__init__()
        self.failures = failures
        self.error = error

    def __call__(self, x: list[int]) -> int:
        self.count += 1
        assert x == [1], "an attempt sees what another one changed"
        x.append(2)
        if self.count <= self.failures:
            raise self.error
        x.pop()
        return self.count


def failing(times: int, error: Exception, *, asynchronous: bool, **settings: Any) -> Any:
    """Return a node that fails so many times, and then returns how often it was tried."""
    attempt = Attempt(times, error)

    def step(x: list[int]) -> int:
        return attempt(x)

    async def astep(x: list[int]) -> int:
        await asyncio.sleep(0)
        return attempt(x)

    make: Any = node(version="1", name="attempts.failing", **settings)
    return make(astep if asynchronous else step)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("times", [0, 1, 3])
def test_a_step_is_tried_again(times: int, *, asynchronous: bool, engine: Engine) -> None:
    step = failing(times, OSError("no"), asynchronous=asynchronous, retry=FAST)
    assert ends(lambda: engine.run(step([1]))) == times + 1
    assert engine.stats[step.name].as_dict()["computed"] == 1


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_last_error_is_raised(*, asynchronous: bool, engine: Engine) -> None:
    step = failing(4, OSError("no"), asynchronous=asynchronous, retry=FAST)
    with pytest.raises(OSError, match="no"):
        ends(lambda: engine.run(step([1])))
    assert ends(lambda: engine.run(step([1]))) == 5


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("error", "retry_on", "again"),
    [
        (ValueError("no"), Exception, True),
        (ValueError("no"), OSError, False),
        (ValueError("no"), (OSError, ValueError), True),
        (CachedevalError("no"), Exception, False),
        (CachedevalError("no"), CachedevalError, True),
    ],
)
def test_it_is_tried_again_after_some_errors(
    error: Exception, retry_on: Any, *, again: bool, asynchronous: bool, engine: Engine
) -> None:
    step = failing(1, error, asynchronous=asynchronous, retry=FAST, retry_on=retry_on)
    (outcome,) = ends(lambda: engine.settle([step([1])]))
    assert outcome.state == ("computed" if again else "failed")


def test_a_number_is_the_number_of_attempts(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RetryPolicy, "pauses", lambda self: iter([0.0] * (self.attempts - 1)))
    for asynchronous in (False, True):
        step = failing(2, OSError("no"), asynchronous=asynchronous, retry=2)
        with pytest.raises(OSError, match="no"):
            ends(lambda step=step: engine.run(step([1])))  # type: ignore[misc]


def test_pauses_double_up_to_a_maximum() -> None:
    pauses = list(RetryPolicy(attempts=6, wait_initial=1, wait_max=4).pauses())
    for pause, least in zip(pauses, [1, 2, 4, 4, 4], strict=True):
        assert least <= pause <= least + 1
    assert len(list(RetryPolicy(attempts=2000).pauses())) == 1999


@pytest.mark.parametrize("asynchronous", [False, True])
def test_all_attempts_together_have_a_limit(*, asynchronous: bool, engine: Engine) -> None:
    policy = RetryPolicy(attempts=100, wait_initial=50, wait_max=50, total_timeout=40)
    step = failing(1, OSError("no"), asynchronous=asynchronous, retry=policy)
    with pytest.raises(OSError, match="no"):
        ends(lambda: engine.run(step([1])))


class Limiter:
    passed = 0

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[None]:
        self.passed += 1
        yield


@pytest.mark.parametrize("asynchronous", [False, True])
def test_each_attempt_waits_for_the_limiter(*, asynchronous: bool, engine: Engine) -> None:
    limiter = Limiter()
    step = failing(2, OSError("no"), asynchronous=asynchronous, retry=FAST, limiter=limiter)
    assert ends(lambda: engine.run(step([1]))) == 3
    assert limiter.passed == 3


def test_an_async_step_is_cancelled_after_its_timeout(engine: Engine) -> None:
    cancelled = Tries()

    @node(version="1", name="attempts.slow", timeout=0.01)
    async def slow(x: int) -> int:
        try:
            await asyncio.sleep(60 if x else 0)
        except asyncio.CancelledError:
            cancelled.count += 1
            raise
        return x

    found = ends(lambda: engine.settle([slow(0), slow(1)]))
    assert [outcome.state for outcome in found] == ["computed", "failed"]
    assert isinstance(found[1].error, TimeoutError)
    assert str(found[1].error) == "attempts.slow(x=1) took longer than its timeout of 0.01 s"
    assert cancelled.count == 1


@pytest.mark.parametrize("count", [1, 3])
def test_a_synchronous_step_is_left_alone_after_its_timeout(count: int, engine: Engine) -> None:
    gate, over = threading.Event(), threading.Semaphore(0)

    @node(version="1", name="attempts.blocks", timeout=0.01)
    def blocks(x: int) -> int:
        gate.wait(30)
        over.release()
        return x

    calls = [blocks(x) for x in range(count)]
    for outcome in ends(lambda: engine.settle(calls)):
        assert isinstance(outcome.error, TimeoutError)
        assert "attempts.blocks(x=" in str(outcome.error)
    gate.set()
    for _ in range(count):
        assert over.acquire(timeout=30)
    assert sum(1 for _ in engine.store.backend.scan()) == 0, "a late result was stored"
    until(
        lambda: not any(t.name == "cachedeval-timed" for t in threading.enumerate()),
        "a thread is left behind",
    )


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("where", ["node", "policy"])
def test_an_attempt_that_took_too_long_is_tried_again(
    where: str, *, asynchronous: bool, engine: Engine
) -> None:
    gate = threading.Event()
    tries = Tries()
    policy = RetryPolicy(wait_initial=1e-6, timeout=0.05 if where == "policy" else None)
    settings: dict[str, Any] = {"retry": policy}
    if where == "node":
        settings["timeout"] = 0.05

    async def first(x: int) -> int:
        tries.count += 1
        await asyncio.sleep(60 if tries.count == 1 else 0)
        return x

    def firsts(x: int) -> int:
        tries.count += 1
        if tries.count == 1:
            gate.wait(30)
        return x

    make: Any = node(version="1", name="attempts.first", **settings)
    step = make(first if asynchronous else firsts)
    assert ends(lambda: engine.run(step(7))) == 7
    gate.set()
    assert tries.count == 2


def test_a_step_within_its_timeout_keeps_its_error_and_its_context(engine: Engine) -> None:
    @node(version="1", name="attempts.inner", timeout=60)
    def inner(x: int) -> int:
        if x == 1:
            raise KeyError(x)
        return engine.run(outer(x))

    @node(version="1", name="attempts.outer")
    def outer(x: int) -> int:
        return engine.run(inner(x)) if x == 2 else x

    with pytest.raises(KeyError):
        ends(lambda: engine.run(inner(1)))
    with pytest.raises(CachedevalError, match="waits for its own result"):
        ends(lambda: engine.run(inner(2)))
    assert ends(lambda: engine.run([inner(x) for x in range(3, 60)])) == list(range(3, 60))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timeout": 0}, "timeout is 0: give seconds above 0"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"timeout": "1"}, "timeout is '1'"),
        ({"timeout": True}, "timeout is True"),
        ({"retry": 0}, "retry is 0: give the number of attempts"),
        ({"retry": "3"}, "retry is '3'"),
        ({"retry": True}, "retry is True"),
        ({"retry_on": "x"}, "retry_on is 'x': give classes of exceptions"),
        ({"retry_on": BaseException}, "retry_on is"),
        ({"timeout": 1, "retry": RetryPolicy(timeout=1)}, "give the timeout of an attempt once"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    def step(x: int) -> int:
        return x

    with pytest.raises(InputError, match=message):
        node(version="1", **settings)(step)


@pytest.mark.parametrize(
    "settings", [{"attempts": 0}, {"attempts": 1.5}, {"timeout": 0}, {"wait_max": -1}]
)
def test_a_policy_that_means_nothing_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"retry: {next(iter(settings))} is"):
        RetryPolicy(**settings)


PROGRAM = """
import sys
from cachedeval import Engine, node
@node(version="1", retry=3, timeout=5, concurrency=2, ttl=1000, tags=("a",))
def step(x: int) -> int:
    return x
with Engine(sys.argv[1]) as engine:
    assert engine.run([step(x) for x in range(3)]) == [0, 1, 2]
print([m for m in sys.modules if m.rpartition(".")[2] in
       {"retry", "attempts", "slots", "asyncio", "random", "tenacity", "datetime"}])
"""


@pytest.mark.slow
def test_a_run_of_hits_imports_no_policy(tmp_path: Any) -> None:
    found = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, f"disk:{tmp_path}/cache"],
            capture_output=True,
            check=True,
            text=True,
        ).stdout.strip()
        for _ in range(2)
    ]
    assert "cachedeval.engine.retry" in found[0]
    assert "cachedeval" not in found[1]
