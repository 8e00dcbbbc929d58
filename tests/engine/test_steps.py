"""How functions run, and what becomes of all the ways in which they can fail."""

import asyncio
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from cachedeval import Computed, Engine, Node, Resource, node


class Odd(BaseException):
    pass


BAD: list[type[BaseException]] = [
    ValueError,
    StopIteration,
    StopAsyncIteration,
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    asyncio.CancelledError,
    TimeoutError,
    Odd,
]


@node(version="1")
def sync_bad(kind: int) -> int:
    raise BAD[kind]("bad")


@node(version="1")
async def async_bad(kind: int) -> int:
    raise BAD[kind]("bad")


@node(version="1", executor="one")
def lane_bad(kind: int) -> int:
    raise BAD[kind]("bad")


@dataclass
class Item:
    x: int


@node(version="1", batch=True)
def batch_raises(batch: Sequence[Item]) -> Iterator[tuple[int, int]]:
    yield 0, len(batch) - 1
    raise BAD[batch[1].x]("bad")


@node(version="1", batch=True)
def batch_yields(batch: Sequence[Item]) -> Iterator[tuple[int, Any]]:
    yield 1, BAD[batch[1].x]("bad")
    yield 0, 1


@pytest.mark.parametrize("bad", [sync_bad, async_bad, lane_bad])
@pytest.mark.parametrize("kind", range(len(BAD)))
def test_whatever_a_step_raises_is_its_own_failure(bad: Node[int], kind: int) -> None:
    with Engine() as engine:
        good: Node[int] = Node(same, version="1")
        outcomes = engine.settle([bad(kind), good(1)])
        _check(outcomes, kind)
        assert engine.settle([bad(kind)])[0].state == "failed"
        assert engine.run(good(2)) == 2  # the engine lives on


def same(x: int) -> int:
    return x


@pytest.mark.parametrize("bad", [batch_raises, batch_yields])
@pytest.mark.parametrize("kind", range(len(BAD)))
def test_whatever_a_batch_raises_or_yields(bad: Node[Any], kind: int) -> None:
    with Engine() as engine:
        _check(engine.settle([bad(100), bad(kind)])[::-1], kind)
        assert engine.settle([bad(101), bad(kind)])[1].state == "failed"


def _check(outcomes: list[Any], kind: int) -> None:
    failed, good = outcomes
    assert (good.state, good.value) == ("computed", 1)
    assert failed.state == "failed"
    assert isinstance(failed.error, Exception)
    cause = failed.error if isinstance(failed.error, BAD[kind]) else failed.error.__cause__
    assert isinstance(cause, BAD[kind])
    assert str(cause) == "bad"


def test_a_step_whose_own_task_is_cancelled_fails_alone() -> None:
    @node(version="1")
    async def gives_up(x: int) -> int:
        task = asyncio.ensure_future(asyncio.sleep(10))
        await asyncio.sleep(0)
        task.cancel()
        await task
        return x

    @node(version="1")
    async def times_out(x: int) -> int:
        async with asyncio.timeout(0.001):
            await asyncio.sleep(10)
        return x

    with Engine() as engine:
        outcomes = engine.settle([gives_up(1), times_out(1), Node(same, version="1")(1)])
        assert [o.state for o in outcomes] == ["failed", "failed", "computed"]
        assert "CancelledError" in str(outcomes[0].error)
        assert isinstance(outcomes[1].error, TimeoutError)


# Batched nodes that do not keep to the rules.


def batched(*produced: Any) -> Node[Any]:
    @node(version="1", batch=True, name=f"batched {produced}")
    def f(batch: Sequence[Item]) -> Iterator[Any]:
        assert batch
        yield from produced

    return f


@pytest.mark.parametrize(
    ("produced", "message"),
    [
        ([(0, 1), (0, 2)], r"yielded a second result for call 0"),
        ([(0, 1), (2, 2)], r"yielded a result for call 2, of 2"),
        ([(0, 1), (-1, 2)], r"yielded a result for call -1, of 2"),
        ([(0, 1), 5], r"yielded a int: a batched node yields \(index, value\)"),
        ([(0, 1), "ab"], r"yielded a str"),
        ([(0, 1), (1, 2, 3)], r"yielded a tuple"),
        ([(0, 1), (True, 2)], r"yielded a tuple"),
        ([(0, 1), ("1", 2)], r"yielded a tuple"),
        ([(0, 1)], r"ended without a result for one of its calls"),
    ],
)
def test_a_bad_yield_is_an_error(produced: list[Any], message: str) -> None:
    bad = batched(*produced)
    with Engine() as engine:
        first, second = engine.settle([bad(1), bad(2)])
        assert first.value == 1
        assert second.error is not None
        with pytest.raises(
            (RuntimeError, TypeError, ValueError, IndexError), match=message
        ) as told:
            raise second.error
        assert "batched" in str(told.value)


def test_an_unstorable_value_in_a_batch_is_handed_on() -> None:
    bad = batched((0, object()), (1, None))
    with Engine() as engine:
        outcomes = engine.settle([bad(1), bad(2)])
        assert [type(o.value) for o in outcomes] == [object, type(None)]


@dataclass
class Picky:
    x: int

    def __post_init__(self) -> None:
        if self.x == 1:
            raise ValueError("no ones")


@node(version="1", batch=True)
def picky(batch: Sequence[Picky]) -> Iterator[tuple[int, int]]:
    for index, item in enumerate(batch):
        yield index, item.x * 10


def test_an_item_that_cannot_be_made_fails_alone() -> None:
    with Engine() as engine:
        assert [o.state for o in engine.settle([picky(n) for n in range(3)])] == [
            *["computed", "failed", "computed"]
        ]
        assert engine.run([picky(0), picky(2)]) == [0, 20]
        assert engine.settle([picky(1)])[0].state == "failed"


# Who runs where, and together with whom.


def test_a_batch_takes_what_is_ready_together_and_hands_on_at_once() -> None:
    sizes: list[int] = []
    handed = threading.Event()

    @node(version="1", batch=True)
    def slow(batch: Sequence[Item]) -> Iterator[tuple[int, int] | None]:
        sizes.append(len(batch))
        for index, item in enumerate(batch):
            yield index, item.x
            if index == 0:
                assert handed.wait(5)
            yield None

    @node(version="1")
    def then(x: int) -> int:
        handed.set()  # only the first result is there by now
        return x

    with Engine() as engine:
        assert engine.run([then(slow(n)) for n in range(50)]) == list(range(50))
    assert sizes == [50]


def test_what_comes_during_a_batch_goes_together_with_the_next() -> None:
    sizes: list[int] = []
    first, go = threading.Event(), threading.Event()

    @node(version="1", batch=True)
    def slow(batch: Sequence[Item]) -> Iterator[tuple[int, int]]:
        sizes.append(len(batch))
        first.set()
        assert go.wait(5)
        for index, item in enumerate(batch):
            yield index, item.x

    with Engine() as engine:
        threads = [
            threading.Thread(target=engine.run, args=([slow(n) for n in numbers],))
            for numbers in ([1, 2], [2, 3], [4])
        ]
        threads[0].start()
        assert first.wait(5)
        for thread in threads[1:]:
            thread.start()
        time.sleep(0.1)
        go.set()
        for thread in threads:
            thread.join(5)
    assert sizes == [2, 2]


def test_two_nodes_of_a_lane_take_turns_on_its_thread() -> None:
    turns: list[str] = []
    threads: set[threading.Thread] = set()
    both = threading.Barrier(2)

    @node(version="1", batch=True, executor="shared")
    def long(batch: Sequence[Item]) -> Iterator[tuple[int, int] | None]:
        for index in range(len(batch)):
            for _ in range(20):
                turns.append("long")
                threads.add(threading.current_thread())
                time.sleep(0.002)
                yield None
            yield index, 0

    @node(version="1", executor="shared")
    def short(x: int) -> int:
        turns.append("short")
        threads.add(threading.current_thread())
        return x

    with Engine() as engine:

        def run(calls: Any) -> None:
            both.wait()
            engine.run(calls)

        others = [
            threading.Thread(target=run, args=([long(n) for n in range(3)],)),
            threading.Thread(target=run, args=([short(n) for n in range(5)],)),
        ]
        for thread in others:
            thread.start()
        for thread in others:
            thread.join(10)
    assert len(threads) == 1
    assert turns.count("short") == 5
    last = max(at for at, turn in enumerate(turns) if turn == "short")
    assert last < 55  # not after all that is long


def test_sync_steps_run_side_by_side_and_lane_steps_one_by_one() -> None:
    barrier = threading.Barrier(3)
    now, peak = [0], [0]

    @node(version="1")
    def together(x: int) -> int:
        barrier.wait(5)
        return x

    @node(version="1", executor="alone")
    def alone(x: int) -> int:
        now[0] += 1
        peak[0] = max(peak[0], now[0])
        time.sleep(0.002)
        now[0] -= 1
        return x

    with Engine() as engine:
        assert engine.run([together(n) for n in range(3)]) == [0, 1, 2]
        assert engine.run([alone(n) for n in range(5)]) == list(range(5))
    assert peak == [1]


def test_the_time_of_a_step_is_its_own() -> None:
    used = set()

    @node(version="1")
    def slow(x: int) -> int:
        used.add(threading.get_ident())
        time.sleep(0.02)
        return x

    with Engine() as engine:
        start = time.perf_counter()
        outcomes = engine.settle([slow(n) for n in range(30)])
        wall = time.perf_counter() - start
        seconds = [o.record.seconds for o in outcomes if o.record is not None]
    assert len(seconds) == 30
    # A thread runs one step after another. The time in which steps waited for it would come on top.
    assert sum(seconds) <= wall * len(used)


def test_the_time_of_a_batch_is_shared_out() -> None:
    @node(version="1", batch=True)
    def slow(batch: Sequence[Item]) -> Iterator[tuple[int, int] | None]:
        for index in range(len(batch)):
            time.sleep(0.01)
            yield index, 0

    with Engine() as engine:
        start = time.perf_counter()
        outcomes = engine.settle([slow(n) for n in range(10)])
        wall = time.perf_counter() - start
        total = sum(o.record.seconds for o in outcomes if o.record is not None)
    assert 0.1 <= total <= wall


def test_an_abandoned_generator_is_closed() -> None:
    ended = threading.Event()
    started = threading.Event()

    @node(version="1", batch=True)
    def endless(batch: Sequence[Item]) -> Iterator[tuple[int, int] | None]:
        try:
            while batch:
                started.set()
                time.sleep(0.001)
                yield None
        finally:
            ended.set()

    async def main(engine: Engine) -> None:
        task = asyncio.create_task(engine.arun(endless(1)))
        await asyncio.to_thread(started.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with Engine() as engine:
        asyncio.run(main(engine))
        assert ended.wait(5)
        assert engine.run(batched((0, 5))(1)) == 5


def test_a_batch_that_goes_on_after_its_last_answer_is_ended() -> None:
    ended, after = threading.Event(), threading.Event()

    @node(version="1", batch=True)
    def goes_on(batch: Sequence[Item]) -> Iterator[tuple[int, int] | None]:
        try:
            yield 0, len(batch)
            after.set()  # what follows the last answer is still done
            while True:
                yield None
        finally:
            ended.set()

    with Engine() as engine:
        assert engine.run(goes_on(1)) == 1
        assert after.is_set()
        assert ended.is_set()


def test_exit_codes_do_not_end_the_program() -> None:
    @node(version="1")
    def leaves(x: int) -> int:
        sys.exit(x)

    with Engine() as engine, pytest.raises(RuntimeError, match="leaves raised SystemExit 3"):
        engine.run(leaves(3))


SERVER = Resource("server", "one", object)


def asks(computed: list[float | None]) -> Node[str]:
    """Return a step that asks a service which takes no temperature."""

    @node(version="1", name="asks")
    def step(server: Any, text: str, temperature: float | None) -> Computed[str]:
        with server:
            computed.append(temperature)
        return Computed(text.upper(), inputs={"temperature": None})

    return step


def test_a_result_is_stored_for_the_inputs_that_the_step_really_used() -> None:
    computed: list[float | None] = []
    step = asks(computed)
    with Engine() as engine:
        outcomes = engine.settle([step(SERVER, "a", 0.0), step(SERVER, "b", 0.0)])
        assert [outcome.value for outcome in outcomes] == ["A", "B"]
        assert [outcome.state for outcome in outcomes] == ["computed", "computed"]
        assert engine.run([step(SERVER, "a", None), step(SERVER, "b", None)]) == ["A", "B"]
        assert len(computed) == 2
        assert engine.run(step(SERVER, "a", 0.0)) == "A"
        assert len(computed) == 3  # nothing is stored for that temperature


def test_an_input_that_a_step_does_not_have_is_an_error() -> None:
    @node(version="1", name="invents")
    def invents(x: int) -> Computed[int]:
        return Computed(x, inputs={"y": 1})

    with Engine() as engine:
        (outcome,) = engine.settle([invents(1)])
    assert "is for an input that it does not have: y" in str(outcome.error)
