"""One computation for all who want it, whoever they are and whatever becomes of them."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from support.faulty import FaultyBackend

from cachedeval import CachedevalError, Engine, node
from cachedeval.engine.errors import MissingError
from cachedeval.engine.result import Outcome

ran: Counter[int] = Counter()
entered = threading.Semaphore(0)
go = threading.Event()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    ran.clear()
    go.clear()
    while entered.acquire(blocking=False):
        pass
    yield
    go.set()


@node(version="1")
def blocked(x: int) -> int:
    ran.update([x])
    entered.release()
    assert go.wait(10)
    return x * 10


@node(version="1")
async def blocked_async(x: int) -> int:
    ran.update([x])
    entered.release()
    assert await asyncio.to_thread(go.wait, 10)
    return x * 10


@dataclass
class Item:
    x: int


@node(version="1", batch=True)
def blocked_batch(batch: Sequence[Item]) -> Iterator[tuple[int, int] | None]:
    for item in batch:
        ran.update([item.x])
    entered.release()
    while not go.is_set():
        time.sleep(0.002)
        yield None
    for index, item in enumerate(batch):
        yield index, item.x * 10


KINDS = [blocked, blocked_async, blocked_batch]


@pytest.mark.parametrize("step", KINDS)
def test_tasks_threads_and_loops_share_one_computation(step: Any) -> None:
    with Engine() as engine, ThreadPoolExecutor(8) as threads:

        async def many() -> list[int]:
            return list(await asyncio.gather(*(engine.arun(step(1)) for _ in range(5))))

        waiting = [threads.submit(engine.run, [step(1), step(1)]) for _ in range(4)]
        waiting += [threads.submit(asyncio.run, many()) for _ in range(2)]
        assert entered.acquire(timeout=5)
        time.sleep(0.1)
        go.set()
        assert [set(done.result(10)) for done in waiting] == [{10}] * 6
        stats = engine.stats[step.name]
        assert (ran[1], stats.computed, stats.hits) == (1, 1, 17)


@pytest.mark.parametrize("step", KINDS)
def test_two_engines_on_one_backend_share_one_computation(step: Any) -> None:
    backend = FaultyBackend()
    with Engine(backend) as one, Engine(backend) as other, ThreadPoolExecutor(2) as threads:
        waiting = [
            threads.submit(engine.run, [step(n) for n in range(5)]) for engine in (one, other)
        ]
        assert entered.acquire(timeout=5)
        time.sleep(0.1)
        go.set()
        assert [done.result(10) for done in waiting] == [[0, 10, 20, 30, 40]] * 2
        assert set(ran.values()) == {1}
        computed = [engine.stats[step.name].computed for engine in (one, other)]
        assert sum(computed) == 5


def waiters(engine: Engine) -> int:
    assert engine._runtime is not None
    table = engine._runtime._execution.table
    with table.lock:
        return sum(len(flight.waiters) for flight in table._calls.values())


@pytest.mark.parametrize("step", KINDS)
def test_a_waiter_that_gives_up_harms_no_other(step: Any) -> None:
    with Engine() as engine, ThreadPoolExecutor(2) as threads:

        async def first_gives_up() -> None:
            first = asyncio.create_task(engine.arun(step(1)))
            await asyncio.to_thread(entered.acquire, timeout=5)
            waiting = threads.submit(engine.run, step(1))
            while waiters(engine) < 2:  # noqa: ASYNC110  set on another thread
                await asyncio.sleep(0.001)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            go.set()
            assert await asyncio.wrap_future(waiting) == 10

        asyncio.run(first_gives_up())
        assert ran[1] == 1
        assert engine.stats[step.name].computed == 1


@pytest.mark.parametrize("step", KINDS)
def test_when_all_give_up_it_is_called_off_and_the_next_starts_anew(step: Any) -> None:
    with Engine() as engine:

        async def give_up() -> None:
            tasks = [asyncio.create_task(engine.arun(step(1))) for _ in range(3)]
            await asyncio.to_thread(entered.acquire, timeout=5)
            for task in tasks:
                task.cancel()
            # At once, while the other is still being called off.
            again = asyncio.create_task(engine.arun(step(1)))
            await asyncio.gather(*tasks, return_exceptions=True)
            go.set()
            assert await asyncio.wait_for(again, 5) == 10

        asyncio.run(give_up())
        assert ran[1] in {1, 2}


def test_an_error_reaches_all_waiters_and_is_not_stored() -> None:
    attempts = Counter[int]()

    @node(version="1")
    async def fails(x: int) -> int:
        attempts.update([x])
        await asyncio.sleep(0.05)
        if not go.is_set():
            raise ValueError(f"no {x}")
        return x

    @node(version="1")
    def after(x: int) -> int:
        return x

    backend = FaultyBackend()
    with Engine(backend) as engine, ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(engine.settle, [after(fails(1)), fails(1)]) for _ in range(4)]
        for done in waiting:
            outcomes = done.result(5)
            assert [o.state for o in outcomes] == ["failed", "failed"]
            assert [str(o.error) for o in outcomes] == ["no 1", "no 1"]
            with pytest.raises(ValueError, match="no 1"):
                _ = outcomes[0].value
        assert attempts[1] <= 4
        assert not list(backend.scan())
        with pytest.raises(ValueError, match="no 2"):
            engine.run([after(1), fails(2)])
        go.set()
        assert engine.run([after(fails(1)), fails(2)]) == [1, 2]


def test_others_go_on_when_one_fails() -> None:
    @node(version="1")
    def half(x: int) -> int:
        if x % 2:
            raise ValueError("odd")
        return x // 2

    @node(version="1")
    def total(xs: list[int]) -> int:
        return sum(xs)

    with Engine() as engine:
        outcomes = engine.settle([total([half(0), half(2)]), total([half(2), half(3)]), half(4)])
        assert [o.state for o in outcomes] == ["computed", "failed", "computed"]
        assert engine.stats[total.name].failed == 1
        assert engine.stats[half.name].failed == 1


class OverError(CachedevalError):
    fatal = True


def test_a_fatal_error_ends_the_run_at_once_and_keeps_what_is_done() -> None:
    started = Counter[int]()

    @node(version="1")
    async def step(x: int) -> int:
        started.update([x])
        if x == 3:
            await asyncio.sleep(0.05)
            raise OverError("no credit left")
        await asyncio.sleep(0 if x < 3 else 3600)  # longer than a test may take
        return x

    with Engine() as engine:
        with pytest.raises(OverError, match="no credit left"):
            engine.settle([step(n) for n in range(10)])
        assert engine.run([step(n) for n in range(3)]) == [0, 1, 2]
        assert engine.stats[step.name].hits == 3
        assert set(started.values()) == {1}


def test_results_of_a_cancelled_run_are_stored() -> None:
    backend = FaultyBackend()

    @node(version="1")
    async def step(x: int) -> int:
        if x >= 5:
            entered.release()
            await asyncio.sleep(30)
        return x

    async def cancelled(engine: Engine) -> None:
        task = asyncio.create_task(engine.arun([step(n) for n in range(6)]))
        await asyncio.to_thread(entered.acquire, timeout=5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with Engine(backend) as engine:
        asyncio.run(cancelled(engine))
    with Engine(backend, mode="offline") as engine:
        assert engine.run([step(n) for n in range(5)]) == [0, 1, 2, 3, 4]


def test_early_cut_off() -> None:
    judged = Counter[str]()

    @node(version="1")
    def answer(model: str, x: int) -> str:
        return f"{x} from {model[0]}"

    @node(version="1")
    def judge(text: str, criterion: str = "good") -> int:
        judged.update([text])
        return len(text + criterion)

    with Engine() as engine:
        engine.run([judge(answer("a1", n)) for n in range(5)])
        engine.run([judge(answer("a2", n)) for n in range(5)])  # it answers the same
        assert set(judged.values()) == {1}
        assert engine.stats[answer.name].computed == 10
        engine.run([judge(answer("a2", n), "short") for n in range(5)])
        assert engine.stats[answer.name].computed == 10
        assert engine.stats[judge.name].computed == 10


def double_of(x: int) -> int:
    ran.update([x])
    return x * 2


double = node(version="1")(double_of)


@pytest.mark.parametrize("mode", ["use", "refresh", "off"])
def test_identical_calls_of_a_run_are_computed_once(mode: Any) -> None:
    @node(version="1")
    def add(a: int, b: int) -> int:
        return a + b

    with Engine(mode=mode) as engine:
        # The second double(1) becomes known only when double(0) + 1 is.
        assert engine.run([double(1), double(1), double(add(double(0), 1)), double(1)]) == [
            2,
            2,
            2,
            2,
        ]
        assert ran[0] == 1
        assert ran[1] == 2  # once by its value, once by an output's digest
        assert engine.stats[double.name].computed == 3


def test_modes() -> None:
    backend = FaultyBackend()
    with Engine(backend) as engine:
        assert engine.run(double(1), mode="off") == 2
        assert not backend.counts
        with pytest.raises(
            MissingError, match=r"double_of\(x=1\) is not in the cache, and offline"
        ):
            engine.run(double(1), mode="offline")
        assert backend.counts == {"get": 1, "keys read": 1}
        assert engine.run(double(1), mode="refresh") == 2
        assert engine.run(double(1), mode="offline") == 2
        assert engine.run(double(1)) == 2
        assert ran[1] == 2
        before = backend.counts.copy()
        assert engine.run(double(1), mode="off") == 2
        assert backend.counts == before
        assert engine.run(double(1), mode="refresh") == 2
        assert backend.counts["get"] == before["get"]
        assert backend.counts["put"] == before["put"] + 1
        assert ran[1] == 4
    for name, gets in (("off", 0), ("refresh", 0), ("offline", 1)):
        backend.counts.clear()
        with Engine(backend, mode=name) as engine:  # type: ignore[arg-type]
            engine.run(double(1))
        assert backend.counts["get"] == gets


def test_offline_names_what_is_missing() -> None:
    with Engine(mode="offline") as engine:
        outcome = engine.settle([double(double(1)), double(2)])[0]
        assert isinstance(outcome.error, MissingError)
        assert "double_of(x=1)" in str(outcome.error)
    assert not ran


@pytest.mark.parametrize("bits", [0, 3, 8])
def test_collisions_are_misses(monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    import xxhash  # noqa: PLC0415

    def short(recipe: bytes) -> bytes:
        number: int = xxhash.xxh3_64_intdigest(recipe) % 2**bits
        return number.to_bytes(16, "big")

    for module in ("resolve", "scheduler", "leases", "explain", "engine", "digest_cache"):
        monkeypatch.setattr(f"cachedeval.engine.{module}.key_of", short)

    @node(version="1")
    async def inc(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    backend = FaultyBackend()
    wanted = [n * 2 + 1 for n in range(60)]
    for _ in range(3):
        with Engine(backend) as engine:
            assert engine.run([inc(double(n)) for n in range(60)]) == wanted
            assert engine.settle([double(3), double(4)], mode="refresh")[1].value == 8
            assert [str(e.state) for e in engine.explain_many([double(n) for n in range(5)])]
            assert engine.store.counts.collisions >= 0
    assert len(list(backend.scan())) <= 2**bits


def test_a_thousand_waiters_make_one_look_up() -> None:
    backend = FaultyBackend()
    with Engine(backend) as engine:
        engine.run([double(n) for n in range(1000)])
        # One to resolve, one after the claim.
        assert backend.counts["get"] == 2
        assert backend.counts["put"] < 200
        backend.counts.clear()
        engine.run([double(n) for n in range(1000)])
        assert backend.counts == {"get": 1, "keys read": 1000}


def test_damaged_records_are_computed_again() -> None:
    backend = FaultyBackend()
    for change in (
        lambda value: value[:-3],
        lambda value: value[:30] + bytes([value[30] ^ 1]) + value[31:],
        lambda _: b"\x80\x04N.",
        lambda _: None,
    ):
        with Engine(backend) as engine:
            assert engine.run([double(n) for n in range(5)]) == [0, 2, 4, 6, 8]
        backend.damage(change)
        with Engine(backend) as engine:
            assert engine.run([double(n) for n in range(5)]) == [0, 2, 4, 6, 8]
            assert engine.store.counts.corrupt == 5
            assert engine.stats[double.name].computed == 5


@pytest.mark.parametrize("operation", ["get", "put", "lease", "touch", "close", "scan", "delete"])
def test_a_backend_that_breaks_harms_no_run(
    operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend = FaultyBackend()
    with Engine(backend) as engine:
        assert engine.run([double(n) for n in range(3)]) == [0, 2, 4]
        backend.broken = {operation}
        assert engine.run([double(n) for n in range(6)]) == [0, 2, 4, 6, 8, 10]
        assert engine.plan([double(7)])[double.name].computed == 1
        assert engine.explain(double(7)).state in {"new", "changed"}
    assert len(caplog.records) <= 1


def test_each_result_is_stored_at_once() -> None:
    backend = FaultyBackend()
    seen: list[int] = []

    @node(version="1")
    async def step(x: int) -> int:
        await asyncio.sleep(x * 0.05)
        return x

    def note(outcome: Outcome) -> None:
        assert outcome.state == "computed"
        seen.append(len(list(backend.scan())))

    with Engine(backend) as engine:
        engine.settle([step(n) for n in range(4)], on_outcome=note)
    assert seen == [1, 2, 3, 4]


def test_a_claim_is_given_back_however_the_step_ends() -> None:
    backend = FaultyBackend()

    @node(version="1")
    def fails(x: int) -> int:
        raise ValueError(x)

    with Engine(backend) as engine:
        engine.settle([fails(1), double(1)])
        assert not backend._leased


def test_a_slow_holder_is_waited_for_and_a_dead_one_replaced() -> None:
    backend = FaultyBackend()
    with Engine(backend) as engine, ThreadPoolExecutor(1) as threads:
        from cachedeval.engine.keys import key_of  # noqa: PLC0415
        from cachedeval.engine.node import recipe_of  # noqa: PLC0415

        lease = backend.lease(key_of(recipe_of(double(1), lambda _: "")))
        assert lease.__enter__()
        waiting = threads.submit(engine.run, double(1))
        time.sleep(0.3)
        assert not waiting.done()
        assert backend.counts["get"] < 20  # no storm
        lease.__exit__(None, None, None)
        assert waiting.result() == 2


def chain(length: int, step: Callable[[Any], Any]) -> Any:
    call = step(0)
    for _ in range(length - 1):
        call = step(call)
    return call


@node(version="1")
def plus(x: int) -> int:
    return x + 1


@node(version="1")
async def plus_async(x: int) -> int:
    return x + 1


@pytest.mark.parametrize("step", [plus, plus_async])
def test_a_chain_of_5000_steps(step: Any) -> None:
    with Engine() as engine:
        assert engine.run(chain(5000, step)) == 5000
        call = chain(5000, step)
        assert engine.run(call) == 5000
        assert engine.plan([call])[step.name].hits == 5000
        assert engine.stats[step.name].computed == 5000
        missing = chain(5001, plus if step is plus_async else plus_async)
        assert engine.plan([missing])[missing.node.name].unknown == 5000
        assert engine.explain(missing).state == "waits"
        assert "nothing of this step is in the cache yet" in str(engine.explain(missing))


def test_a_graph_of_10000_calls() -> None:
    @node(version="1")
    def mean(xs: list[int]) -> float:
        return sum(xs) / len(xs)

    with Engine() as engine:

        def graph() -> Any:
            return mean([plus_async(plus(n)) for n in range(5000)])

        assert engine.run(graph()) == 2501.5
        assert engine.run(graph()) == 2501.5
        assert sum(stats.computed for stats in engine.stats.values()) == 10_001
