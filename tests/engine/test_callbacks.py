"""Callbacks that raise: the run ends with the error, and the engine stays usable."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from support.cancellable import PATIENCE, ends

from cachedeval import CachedevalError, Engine, Outcome, node
from cachedeval.engine import scheduler


@dataclass
class Item:
    x: int


@node(version="1", name="callback.sync")
def sync(x: int) -> int:
    return x


@node(version="1", name="callback.async")
async def asynchronous(x: int) -> int:
    await asyncio.sleep(0)
    return x


@node(version="1", name="callback.batch", batch=True)
def batch(items: Sequence[Item]) -> Iterator[tuple[int, int]]:
    for index, item in enumerate(items):
        yield index, item.x


@node(version="1", name="callback.serial", executor="one")
def serial(x: int) -> int:
    return x


STEPS = [sync, asynchronous, batch, serial]


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    ends(engine.close)


def raises_at(count: int, error: BaseException) -> Callable[[Outcome], None]:
    left = count

    def on_outcome(_: Outcome) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise error

    return on_outcome


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), ValueError("no")])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("at", [1, 5])
@pytest.mark.parametrize("known", [False, True])
def test_a_run_ends_with_the_error_of_its_callback(
    step: Any, error: BaseException, at: int, *, known: bool, engine: Engine
) -> None:
    calls = [step(x) for x in range(8)]
    if known:
        engine.run(calls)
    with pytest.raises(type(error)):
        ends(lambda: engine.run(calls, on_outcome=raises_at(at, error)))
    assert ends(lambda: engine.run(calls)) == list(range(8))
    with pytest.raises(type(error)):
        ends(lambda: engine.run(calls[0], on_outcome=raises_at(1, error)))


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), ValueError("no")])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("at", [1, 5])
@pytest.mark.parametrize("known", [False, True])
def test_an_async_run_ends_with_the_error_of_its_callback(
    step: Any, error: BaseException, at: int, *, known: bool, engine: Engine
) -> None:
    calls = [step(x) for x in range(8)]
    if known:
        engine.run(calls)

    def run() -> None:
        asyncio.run(asyncio.wait_for(engine.arun(calls, on_outcome=raises_at(at, error)), PATIENCE))

    with pytest.raises(type(error)):
        ends(run)
    assert ends(lambda: asyncio.run(engine.arun(calls))) == list(range(8))


@pytest.mark.parametrize("inner", [sync, asynchronous])
def test_a_callback_of_a_nested_run_fails_its_step_alone(inner: Any, engine: Engine) -> None:
    @node(version="1", name="callback.nested")
    async def nested(x: int) -> int:
        found = await engine.arun([inner(x)], on_outcome=raises_at(1, SystemExit(3)))
        return int(found[0])

    outcomes = ends(lambda: engine.settle([nested(1), sync(2)]))
    assert [outcome.state for outcome in outcomes] == ["failed", "computed"]
    assert "SystemExit" in str(outcomes[0].error)
    assert ends(lambda: engine.run(asynchronous(5))) == 5


def test_a_callback_may_run_other_calls(engine: Engine) -> None:
    found: list[int] = []

    def on_outcome(outcome: Outcome) -> None:
        found.append(engine.run(sync(10 * outcome.value)))

    calls = [step(x) for x in range(5) for step in STEPS]
    ends(lambda: engine.run(calls, on_outcome=on_outcome))
    assert sorted(found) == [10 * x for x in range(5) for _ in STEPS]


@pytest.mark.parametrize("through", ["itself", "another step"])
@pytest.mark.parametrize("asynchronously", [False, True])
def test_a_callback_that_waits_for_a_call_of_its_run_ends_the_run(
    through: str, *, asynchronously: bool, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "_STALL", 0.02)
    gate = threading.Event()

    @node(version="1", name="callback.gated")
    def gated(x: int) -> int:
        gate.wait(PATIENCE)
        return x

    @node(version="1", name="callback.asks")
    def asks(x: int) -> int:
        return engine.run(gated(x))

    def on_outcome(outcome: Outcome) -> None:
        if outcome.call.node is sync:
            timer = threading.Timer(0.1, gate.set)
            timer.start()
            engine.run(gated(1) if through == "itself" else asks(1))

    calls = [sync(1), sync(2), gated(1)]

    def run() -> Any:
        if asynchronously:
            return asyncio.run(engine.arun(calls, on_outcome=on_outcome))
        return engine.run(calls, on_outcome=on_outcome)

    with pytest.raises(CachedevalError, match="a step waits for its own result"):
        ends(run)
    assert ends(lambda: engine.run(calls)) == [1, 2, 1]
