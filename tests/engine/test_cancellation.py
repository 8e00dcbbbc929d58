"""Runs that are cancelled at any moment: nothing is lost, left behind or waited for for ever."""

import asyncio
import itertools
import random
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.cancellable import (
    GATE,
    PATIENCE,
    STARTED,
    Item,
    OtherProcess,
    Watched,
    batched,
    blocking,
    ends,
    gated,
    graph,
    key,
    until,
    values,
    waiting,
)

from cachedeval import Engine, Outcome, node

pytestmark = pytest.mark.slow

Moment = Callable[[random.Random, "asyncio.Task[Any]", Watched], Awaitable[None]]
"""Cancels a task at some moment."""


@pytest.fixture(params=["memory", "disk"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory:" if request.param == "memory" else f"disk:{tmp_path / 'cache'}"


@pytest.fixture
def watched(url: str) -> Iterator[Watched]:
    backend = Watched(url)
    yield backend
    backend.close()


@pytest.fixture
def engine(watched: Watched, caplog: pytest.LogCaptureFixture) -> Iterator[Engine]:
    """An engine of which nothing is left when it is closed, and that names no cause of trouble."""
    STARTED.clear()
    GATE.clear()
    before = set(threading.enumerate())
    engine = Engine(watched)
    yield engine
    until(lambda: not watched.held, "a lease is left behind")
    ends(engine.close)
    until(lambda: set(threading.enumerate()) <= before, "a thread is left behind")
    assert [record.getMessage() for record in caplog.records] == []


@pytest.fixture
def other(url: str) -> Iterator[OtherProcess | None]:
    if url == "memory:":
        yield None
        return
    with OtherProcess(url) as process:
        yield process


def rounds(seed: int, count: int, more: int) -> list[Any]:
    """Return seeds: one for each run of the tests, and more for a thorough one."""
    thorough = [pytest.param(seed + n, more, marks=pytest.mark.thorough) for n in range(1, 4)]
    return [pytest.param(seed, count), *thorough]


class Acknowledged:
    """What a run said it had computed: it is never computed again."""

    def __init__(self) -> None:
        self._started: dict[tuple[str, int], int] = {}

    def __call__(self, outcome: Outcome) -> None:
        if outcome.state == "computed":
            self._started[key(outcome)] = STARTED[key(outcome)]

    def check(self) -> None:
        assert {each: STARTED[each] for each in self._started} == self._started


def check(engine: Engine, other: OtherProcess | None, number: int, *, here: bool) -> None:
    """Run the calls of a cancelled run here and in another process, in either order."""
    if other is not None and not here:
        assert other.run(number)[0] == values(number)
    assert ends(lambda: engine.run(graph(number))) == values(number)
    before = STARTED.total()
    if other is not None and here:
        assert other.run(number) == (values(number), 0)
    assert ends(lambda: engine.run(graph(number))) == values(number)
    assert STARTED.total() == before, "it was computed twice"


async def after_a_while(r: random.Random, task: "asyncio.Task[Any]", _: Watched) -> None:
    await asyncio.sleep(r.random() * 0.03)
    task.cancel()


async def after_some_turns(r: random.Random, task: "asyncio.Task[Any]", _: Watched) -> None:
    for _turn in range(int(r.paretovariate(0.5)) % 500):
        await asyncio.sleep(0)
    task.cancel()


def when(asked: str) -> Moment:
    async def moment(r: random.Random, task: "asyncio.Task[Any]", watched: Watched) -> None:
        """Cancel close to one of the times at which the backend is asked for something."""
        loop, reached = asyncio.get_running_loop(), asyncio.Event()
        pause = r.choice([0.0, 0.0, r.random() * 0.001])

        def cancel() -> None:
            loop.call_soon_threadsafe(task.cancel)
            loop.call_soon_threadsafe(reached.set)
            time.sleep(pause)

        setattr(watched, asked, _countdown(r.randrange(1, 8), cancel))
        task.add_done_callback(lambda _: reached.set())
        await asyncio.wait_for(reached.wait(), PATIENCE)
        setattr(watched, asked, lambda: None)

    return moment


MOMENTS: dict[str, Moment] = {
    "after a while": after_a_while,
    "after some turns": after_some_turns,
    "when a lease is taken": when("on_lease"),
    "when records are looked up": when("on_get"),
    "when records are committed": when("on_put"),
}


@pytest.mark.parametrize(("seed", "count"), rounds(1, 12, 200))
@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_task_cancelled_at_a_random_moment_leaves_nothing_behind(
    moment: str,
    seed: int,
    *,
    count: int,
    engine: Engine,
    watched: Watched,
    other: OtherProcess | None,
) -> None:
    r = random.Random(seed)
    for number in range(count):
        acknowledged = Acknowledged()
        task = asyncio.create_task(engine.arun(graph(number), on_outcome=acknowledged))
        await MOMENTS[moment](r, task, watched)
        with suppress(asyncio.CancelledError):
            assert await asyncio.wait_for(task, PATIENCE) == values(number)
        acknowledged.check()
        await asyncio.to_thread(check, engine, other, number, here=r.random() < 0.5)
        acknowledged.check()


@pytest.mark.parametrize(("seed", "count"), rounds(1, 60, 400))
async def test_many_leases_are_asked_for_and_cancelled_again_and_again(
    seed: int, count: int, engine: Engine, watched: Watched
) -> None:
    r = random.Random(seed)
    calls = [waiting(n) for n in range(40)]
    for _ in range(count):
        task = asyncio.create_task(engine.arun(calls))
        await MOMENTS["when records are looked up"](r, task, watched)
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, PATIENCE)
        engine.forget(calls)
    assert await asyncio.wait_for(engine.arun(calls), PATIENCE) == list(range(40))


@pytest.mark.parametrize(("seed", "count"), rounds(2, 25, 200))
async def test_a_run_that_times_out_leaves_nothing_behind(
    seed: int, count: int, engine: Engine, other: OtherProcess | None
) -> None:
    r = random.Random(seed)
    for number in range(count):
        acknowledged = Acknowledged()
        with suppress(TimeoutError):
            run = engine.arun(graph(number), on_outcome=acknowledged)
            await asyncio.wait_for(run, r.random() * 0.03)
        await asyncio.to_thread(check, engine, other, number, here=r.random() < 0.5)
        acknowledged.check()


class Interrupts:
    """Sends this process Ctrl-C, once, while it is armed."""

    def __init__(self) -> None:
        self.armed = False
        signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, *_: object) -> None:
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt

    def send(self, pause: float = 0.0) -> None:
        time.sleep(pause)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    before = signal.getsignal(signal.SIGINT)
    yield Interrupts()
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("seed", "count"), rounds(3, 40, 300))
@pytest.mark.parametrize("asked", [None, "on_lease", "on_get", "on_put"])
def test_an_interrupt_at_a_random_moment_leaves_nothing_behind(
    asked: str | None,
    seed: int,
    *,
    count: int,
    engine: Engine,
    watched: Watched,
    other: OtherProcess | None,
    interrupts: Interrupts,
) -> None:
    r = random.Random(seed)
    engine.run(waiting(10**6))  # what is made once is there
    for number in range(count if asked is None else count // 2):
        acknowledged = Acknowledged()
        pause = r.random() * (0.02 if asked is None else 0.002)
        thread = threading.Thread(target=interrupts.send, args=(pause,))
        if asked is None:
            thread.start()
        else:
            setattr(watched, asked, _countdown(r.randrange(1, 8), thread.start))
        with suppress(KeyboardInterrupt):
            interrupts.armed = True
            engine.run(graph(number), on_outcome=acknowledged)
            interrupts.armed = False
        if asked is not None:
            setattr(watched, asked, lambda: None)
        if thread.ident is not None:
            thread.join()
        check(engine, other, number, here=r.random() < 0.5)
        acknowledged.check()


def _countdown(count: int, work: Callable[[], object]) -> Callable[[], None]:
    left = itertools.count(count - 1, -1)  # counts as one step, whatever the number of threads

    def tick() -> None:
        if next(left) == 0:
            work()

    return tick


async def test_a_waiter_that_gives_up_harms_no_other(engine: Engine) -> None:
    r = random.Random(4)
    for number in range(30):
        GATE.clear()
        joined: list[Outcome] = []
        tasks = [
            asyncio.create_task(
                engine.arun([gated(number), waiting(6 * number + n)], on_outcome=joined.append)
            )
            for n in range(6)
        ]
        while len(joined) < len(tasks):  # noqa: ASYNC110  each waits for the gated step, too
            await asyncio.sleep(0.001)
        leave = r.sample(range(6), r.randrange(1, 6))
        for index in leave:
            tasks[index].cancel()
            if r.random() < 0.5:
                await asyncio.sleep(0)
        GATE.set()
        found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE)
        for index, result in enumerate(found):
            assert isinstance(result, asyncio.CancelledError) == (index in leave)
            assert index in leave or result == [number, 6 * number + index]
        assert STARTED["cancel.gated", number] == 1


async def test_a_wait_for_another_process_may_be_cancelled_at_any_moment(
    engine: Engine, other: OtherProcess | None
) -> None:
    if other is None:
        pytest.skip("no other process shares it")
    r = random.Random(5)
    for number in range(4):
        other.say("hold", number)
        assert other.hear() == ["holds"]
        for _ in range(8):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(engine.arun(gated(number)), r.random() * 0.06)
        other.say("let go")
        assert other.hear() == [number]
        assert await asyncio.wait_for(engine.arun(gated(number)), PATIENCE) == number
        assert not STARTED["cancel.gated", number], "it was computed here, too"
    other.say("hold", 9)
    assert other.hear() == ["holds"]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(engine.arun(gated(9)), 0.03)
    other.kill()
    GATE.set()
    assert await asyncio.wait_for(engine.arun(gated(9)), PATIENCE) == 9
    assert STARTED["cancel.gated", 9] == 1


@pytest.mark.parametrize("step", [waiting, blocking, batched])
async def test_what_is_being_committed_when_a_run_is_cancelled_is_not_computed_again(
    step: Any, engine: Engine, watched: Watched
) -> None:
    commits, commit = threading.Event(), threading.Event()

    def on_put() -> None:
        commits.set()
        assert commit.wait(PATIENCE)

    watched.on_put = on_put
    first = asyncio.create_task(engine.arun(step(0)))
    await asyncio.to_thread(commits.wait, PATIENCE)
    first.cancel()
    second = asyncio.create_task(engine.arun(step(0)))
    for _ in range(50):  # so long that it would have begun
        await asyncio.sleep(0.002)
    commit.set()
    with suppress(asyncio.CancelledError):
        await asyncio.wait_for(first, PATIENCE)
    assert await asyncio.wait_for(second, PATIENCE) == 0
    assert STARTED[step.name, 0] == 1


@node(version="1", name="cancel.itself")
async def cancels_itself(x: int) -> int:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(60)
    return x


@node(version="1", name="cancel.raises")
def raises_cancelled(x: int) -> int:
    raise asyncio.CancelledError(x)


@node(version="1", name="cancel.araises")
async def araises_cancelled(x: int) -> int:
    raise asyncio.CancelledError(x)


@node(version="1", name="cancel.batchraises", batch=True)
def batch_raises_cancelled(items: Sequence[Item]) -> Iterator[tuple[int, int]]:
    raise asyncio.CancelledError(items)
    yield 0, 0


@pytest.mark.parametrize(
    "step", [cancels_itself, raises_cancelled, araises_cancelled, batch_raises_cancelled]
)
async def test_a_step_that_cancels_itself_fails_alone_and_by_its_name(
    step: Any, engine: Engine
) -> None:
    for number in range(3):
        calls = [step(0), waiting(number), *graph(number)]
        found = await asyncio.wait_for(engine.asettle(calls), PATIENCE)
        assert [outcome.value for outcome in found[1:]] == [number, *values(number)]
        assert found[0].state == "failed"
        assert isinstance(found[0].error, Exception)
        assert step.name in str(found[0].error)
        assert "closed" not in str(found[0].error)
        failed = ends(lambda: engine.settle([step(0)])[0])
        assert step.name in str(failed.error)


class _Run:
    cancel: Callable[[], object]


@node(version="1", name="cancel.run")
def cancels_run(x: int) -> int:
    _Run.cancel()
    return x


@node(version="1", name="cancel.arun")
async def acancels_run(x: int) -> int:
    _Run.cancel()
    await asyncio.sleep(0)
    return x


async def test_a_step_may_cancel_the_run_that_waits_for_it(engine: Engine) -> None:
    here = asyncio.get_running_loop()
    for number in range(20):
        calls = [cancels_run(number), acancels_run(number), *graph(number)]
        task = asyncio.create_task(engine.arun(calls))
        _Run.cancel = partial(here.call_soon_threadsafe, task.cancel)
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, PATIENCE)
        found = await asyncio.to_thread(ends, partial(engine.run, calls))
        assert found == [number, number, *values(number)]


async def test_an_outcome_may_cancel_the_run_that_it_is_of(
    engine: Engine, other: OtherProcess | None
) -> None:
    here = asyncio.get_running_loop()
    r = random.Random(6)
    for number in range(20):
        acknowledged = Acknowledged()
        left = r.randrange(1, 15)
        cancel: list[Callable[[], object]] = []

        def on_outcome(
            outcome: Outcome,
            acknowledged: Acknowledged = acknowledged,
            cancel: list[Callable[[], object]] = cancel,
        ) -> None:
            nonlocal left
            acknowledged(outcome)
            left -= 1
            if left == 0:
                here.call_soon_threadsafe(cancel[0])

        task = asyncio.create_task(engine.arun(graph(number), on_outcome=on_outcome))
        cancel.append(task.cancel)
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, PATIENCE)
        await asyncio.to_thread(check, engine, other, number, here=r.random() < 0.5)
        acknowledged.check()


async def test_an_engine_closed_in_the_middle_leaves_nothing_behind(
    url: str, watched: Watched
) -> None:
    r = random.Random(7)
    for number in range(15):
        engine = Engine(watched)
        tasks = [asyncio.create_task(engine.arun(graph(number))) for _ in range(2)]
        await asyncio.sleep(r.random() * 0.03)
        tasks[0].cancel()
        await asyncio.to_thread(engine.close)
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE)
        with Engine(watched) as after:
            found = await asyncio.to_thread(ends, partial(after.run, graph(number)))
            assert found == values(number)
        until(lambda: not watched.held, f"a lease is left behind on {url}")
