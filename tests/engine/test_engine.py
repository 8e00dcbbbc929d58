"""The engine as its users meet it."""

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.faulty import FaultyBackend

from cachedeval import CachedevalError, Call, Engine, InputError, Outcome, Resource, node
from cachedeval.engine.errors import MissingError
from cachedeval.engine.keys import node_of
from cachedeval.engine.record import Record

ROOT = Path(__file__).parents[2]


@node(version="1")
def double(x: int) -> int:
    return x * 2


@node(version="1")
async def inc(x: int) -> int:
    await asyncio.sleep(0)
    return x + 1


def test_one_call_gives_its_value_and_several_a_list() -> None:
    with Engine("memory:") as engine:
        assert engine.run(inc(double(3))) == 7
        assert engine.run([inc(double(3)), double(1)]) == [7, 2]
        assert engine.run((inc(double(3)),)) == [7]
        assert engine.run([]) == []
        assert engine.run(double(n) for n in range(3)) == [0, 2, 4]


def test_inside_a_running_loop() -> None:
    async def main(engine: Engine) -> tuple[Any, Any, Any]:
        loop = asyncio.get_running_loop()
        blocking = engine.run(inc(1))  # as a notebook does
        awaited = await engine.arun(inc(2))
        settled = await engine.asettle([inc(3), inc(1)])
        assert asyncio.get_running_loop() is loop
        return blocking, awaited, [o.value for o in settled]

    with Engine() as engine:
        for _ in range(2):
            assert asyncio.run(main(engine)) == (2, 3, [4, 2])
            assert asyncio.run(main(engine)) == (2, 3, [4, 2])


def test_arun_runs_generators_and_single_calls() -> None:
    async def main(engine: Engine) -> Any:
        return await engine.arun(double(n) for n in range(3)), await engine.arun(double(5))

    with Engine() as engine:
        assert asyncio.run(main(engine)) == ([0, 2, 4], 10)


@pytest.mark.parametrize("what", [double, 3, None, "call", double(1).inputs])
def test_what_is_no_call(what: Any) -> None:
    with (
        Engine() as engine,
        pytest.raises(TypeError, match=r"is no call: pass what a @node function"),
    ):
        engine.run([what])


@pytest.mark.parametrize("mode", ["on", "", "USE", "read", 1])
def test_a_mode_is_one_of_four(mode: Any) -> None:
    with pytest.raises(InputError, match="it is one of use, refresh, off, offline"):
        Engine(mode=mode)
    with Engine() as engine, pytest.raises(InputError, match="it is one of"):
        engine.run(double(1), mode=mode)


def test_the_first_error_is_raised_once_all_is_done() -> None:
    @node(version="1")
    async def fails(x: int) -> int:
        await asyncio.sleep(0.02 * x)
        raise ValueError(f"no {x}")

    with Engine() as engine:
        with pytest.raises(ValueError, match="no 2"):
            engine.run([double(1), fails(2), fails(1), double(double(2))])
        assert engine.stats[double.name].computed == 3
        assert engine.stats[fails.name].failed == 2


def test_outcomes_are_reported_as_they_come() -> None:
    told: list[tuple[str, Any]] = []

    def note(outcome: Outcome) -> None:
        told.append((outcome.state, outcome.value if outcome.error is None else outcome.error))

    with Engine() as engine:
        engine.settle([inc(double(1))], on_outcome=note)
        engine.settle([inc(double(1)), double(Path())], on_outcome=note)  # type: ignore[arg-type]
    assert told[:2] == [("computed", 2), ("computed", 3)]
    assert sorted(state for state, _ in told[2:]) == ["failed", "hit", "hit"]


def test_an_outcome_has_its_digest_and_record() -> None:
    with Engine() as engine:
        before = time.time()
        one, other = engine.settle([double(1), inc(1)])
        assert one.digest == other.digest
        assert one.digest.startswith("sha256:")
        assert one.record is not None
        assert one.record.seconds >= 0
        assert before <= one.record.created <= time.time()
        failed = engine.settle([double(object())])[0]  # type: ignore[arg-type]
        for ask in (lambda: failed.value, lambda: failed.digest, failed.copy):
            with pytest.raises(InputError):
                ask()


def test_a_callback_that_fails_ends_the_run() -> None:
    def note(_: Outcome) -> None:
        raise KeyError("callback")

    with Engine() as engine:
        for _ in range(2):
            with pytest.raises(KeyError, match="callback"):
                engine.settle([double(1)], on_outcome=note)
        assert engine.run(double(1)) == 2


def test_forgotten_records_are_computed_again() -> None:
    with Engine() as engine:
        calls = [inc(double(n)) for n in range(3)]
        assert engine.forget(calls) == 0
        engine.run(calls)
        assert engine.forget(calls[:2]) == 2
        assert engine.forget([]) == 0
        engine.run(calls)
        assert engine.stats[inc.name].computed == 5
        assert engine.stats[double.name].computed == 3


def test_a_run_of_hits_starts_no_thread() -> None:
    backend = FaultyBackend()
    with Engine(backend) as engine:
        engine.run([inc(double(1))])
    before = threading.active_count()
    with Engine(backend) as engine:
        assert engine.run([inc(double(1))]) == [3]
        assert threading.active_count() == before
        assert engine._runtime is None


def test_closing_ends_all_threads_and_may_be_done_twice() -> None:
    before = set(threading.enumerate())
    backend = FaultyBackend()
    engine = Engine(backend)
    engine.run([inc(double(1)), lane(1)])
    assert len(set(threading.enumerate()) - before) >= 3
    engine.close()
    engine.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(1)
    assert set(threading.enumerate()) <= before
    assert backend.closed == 0  # it is the giver's
    with pytest.raises(CachedevalError, match="the engine is closed"):
        engine.run(double(1))


@node(version="1", executor="one")
def lane(x: int) -> int:
    return x


def test_closing_during_a_run_keeps_results_and_wakes_waiters() -> None:
    backend = FaultyBackend()
    started = threading.Semaphore(0)
    freed: list[int] = []
    stuck = Resource("stuck", 1, lambda: 1, close=freed.append)

    @node(version="1")
    async def waits(x: int) -> int:
        started.release()
        await asyncio.sleep(3600)
        return x

    @dataclass
    class Item:
        thing: Any
        x: int

    @node(version="1", batch=True)
    def endless(batch: Sequence[Item]) -> Iterator[tuple[int, int] | None]:
        with batch[0].thing:
            started.release()
            while True:
                time.sleep(0.001)
                yield None

    with ThreadPoolExecutor(2) as threads:
        engine = Engine(backend)
        waiting = threads.submit(engine.run, [*map(double, range(20)), waits(1), endless(stuck, 1)])

        async def main() -> None:
            await engine.arun([double(1), waits(1)])

        awaiting = threads.submit(asyncio.run, main())
        for _ in range(2):
            assert started.acquire(timeout=5)
        time.sleep(0.2)
        engine.close()
        for future in (waiting, awaiting):
            with pytest.raises(CachedevalError, match="closed before the run ended"):
                future.result(5)
    assert freed == [1]
    assert not backend._leased
    with Engine(backend, mode="offline") as engine:
        assert engine.run([double(n) for n in range(20)]) == [n * 2 for n in range(20)]
        with pytest.raises(MissingError):
            engine.run(waits(1))


def test_a_step_that_does_not_end_is_left_behind(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachedeval.engine.runtime._PATIENCE", 0.1)
    go, started = threading.Event(), threading.Event()

    @node(version="1")
    async def stubborn(x: int) -> int:
        started.set()
        while not go.is_set():
            try:  # noqa: SIM105  it does not even end when it is cancelled
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                pass
        return x

    engine = Engine()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(engine.run, stubborn(1))
        assert started.wait(5)
        with caplog.at_level(logging.WARNING, "cachedeval"):
            engine.close()
        assert "an async step does not end" in caplog.text
        go.set()
        with pytest.raises(CachedevalError):
            waiting.result(5)


def test_a_step_that_waits_for_itself_is_an_error() -> None:
    engine = Engine()

    @node(version="1")
    async def on_the_loop(x: int) -> int:
        return engine.run(double(x))  # it would stop the loop that it waits for

    @node(version="1", executor="one")
    def on_a_lane(x: int) -> int:
        return engine.run(double(x))

    @node(version="1")
    async def awaited(x: int) -> int:
        return int(await engine.arun(double(x)))

    @node(version="1")
    def on_a_thread(x: int) -> int:
        return engine.run(inc(double(x)))

    with engine:
        for step in (on_the_loop, on_a_lane):
            with pytest.raises(RuntimeError, match="pass calls as inputs to calls"):
                engine.run(step(1))
        assert engine.run([awaited(n) for n in range(50)]) == [n * 2 for n in range(50)]
        # More of them than there are threads.
        assert engine.run([on_a_thread(n) for n in range(100, 150)]) == [
            n * 2 + 1 for n in range(100, 150)
        ]


def test_an_engine_that_is_not_closed_notes_its_hits() -> None:
    backend = FaultyBackend()
    engine = Engine(backend)
    engine.run(double(1))
    engine.run(double(1))
    engine.close()
    engine = Engine(backend)
    engine.run(double(1))
    del engine
    gc.collect()
    assert {entry.hits for entry in backend.scan()} == {2}


def test_many_threads_on_one_engine() -> None:
    with Engine() as engine, ThreadPoolExecutor(8) as threads:

        def work(seed: int) -> list[int]:
            calls: list[Call[int]] = [inc(double((seed * 7 + n) % 50)) for n in range(40)]
            return engine.run(calls)

        for seed, values in enumerate(threads.map(work, range(24))):
            assert values == [(seed * 7 + n) % 50 * 2 + 1 for n in range(40)]
        assert engine.stats[double.name].computed == 50
        assert engine.stats[inc.name].computed == 50


PROGRAM = """
import asyncio, sys, threading, time
from cachedeval import Engine, node

@node(version="1")
def quick(x: int) -> int:
    return x

@node(version="1")
async def patient(x: int) -> int:
    print("started\\n", end="", flush=True)
    await asyncio.sleep(60)
    return x

@node(version="1")
def stuck(x: int) -> int:
    print("started\\n", end="", flush=True)
    time.sleep(60)
    return x

engine = Engine(sys.argv[1])
try:
    engine.run([*[quick(n) for n in range(50)], *[f(1) for f in (patient, stuck)]])
except KeyboardInterrupt:
    if sys.argv[2] == "close":
        engine.close()
    print("interrupted", flush=True)
    sys.exit(130)
"""


@pytest.mark.parametrize("close", ["close", "leave"])
def test_an_interrupt_keeps_what_is_done(tmp_path: Path, close: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    url = f"disk:{tmp_path / 'cache'}"
    process = subprocess.Popen(
        [sys.executable, str(program), url, close],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    with process:
        assert [process.stdout.readline() for _ in range(2)] == ["started\n"] * 2
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert process.wait() == 130

    with Engine(url) as engine:
        stored = [
            record.recipe for _, record in engine.store.records() if isinstance(record, Record)
        ]
        assert sum(node_of(recipe) == "program.quick" for recipe in stored) == 50


FORKED = """
import os, sys, warnings
from cachedeval import Engine, node
warnings.simplefilter("ignore", DeprecationWarning)

@node(version="1")
def double(x: int) -> int:
    return x * 2

engine = Engine(sys.argv[1])
assert engine.run(double(1)) == 2
child = os.fork()
assert engine.run([double(1), double(2), double(os.getpid())])[:2] == [2, 4]
engine.close()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("scheme", ["memory", "disk"])
def test_a_forked_process_computes_for_itself(tmp_path: Path, scheme: str) -> None:
    url = "memory:" if scheme == "memory" else f"disk:{tmp_path / 'cache'}"
    done = subprocess.run(
        [sys.executable, "-c", FORKED, url],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        timeout=30,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
