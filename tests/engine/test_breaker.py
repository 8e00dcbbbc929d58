"""A cache that does not answer costs one time-out now and then, and gets what it missed."""

import logging
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pytest
from support.cancellable import ends

from cachedeval import Engine, node
from cachedeval.backend import interrupted
from cachedeval.engine.keys import key_of
from cachedeval.engine.record import Record
from cachedeval.engine.store import Store
from cachedeval_memory import MemoryBackend


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow(MemoryBackend):
    """Each operation that is named in `stuck` takes a while and fails."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.stuck: set[str] = set()
        self.tried: list[str] = []
        self.seconds = 5.0

    def _answer(self, operation: str) -> None:
        self.tried.append(operation)
        if operation in self.stuck:
            self.clock.now += self.seconds
            raise OSError("no answer")

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        self._answer("get")
        return super().get_many(keys)

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self._answer("put")
        super().put_many(items)

    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        self._answer("touch")
        super().touch_many(hits, when)

    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:
        self._answer("lease")
        return super().lease_many(keys)

    def release_many(self, keys: Iterable[bytes]) -> None:
        self._answer("release")
        super().release_many(keys)


def record(number: int) -> tuple[bytes, Record]:
    recipe = b"recipe %d" % number
    return key_of(recipe), Record(recipe, b"payload", "digest", 0.0, 0.0)


def number_of(backend: MemoryBackend) -> int:
    return sum(1 for _ in backend.scan())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@pytest.fixture
def slow(clock: Clock) -> Slow:
    return Slow(clock)


def test_writes_are_skipped_after_a_time_out_and_made_up_for(
    slow: Slow, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(slow)
    slow.stuck = {"put"}
    for number in range(100):
        assert not store.put_many(dict([record(number)]))
    assert slow.tried == ["put"]
    assert clock.now == 5.0
    assert store.get_many({record(0)[0]: record(0)[1].recipe}) == {}  # reads go on
    clock.now += 51
    assert not store.put_many(dict([record(100)]))  # a trial
    assert slow.tried == ["put", "get", "put"]
    slow.stuck = set()
    clock.now += 51
    assert store.put_many(dict([record(101)]))
    assert number_of(slow) == 102
    assert len(caplog.records) == 1


@pytest.mark.parametrize("answers", [False, True])
def test_records_that_wait_are_stored_when_the_store_is_flushed(
    slow: Slow, clock: Clock, *, answers: bool
) -> None:
    store = Store(slow)
    slow.stuck = {"put", "touch"}
    store.put_many(dict([record(1)]))
    if answers:
        slow.stuck = set()
        clock.now += 60
    before = clock.now
    store.flush()
    assert clock.now == before
    assert number_of(slow) == int(answers)


def test_a_close_waits_for_one_time_out_at_most(slow: Slow, clock: Clock) -> None:
    store = Store(slow)
    key, first = record(1)
    store.put_many({key: first})
    assert store.get(key, first.recipe) is not None
    slow.stuck = {"put", "touch"}
    store.put_many(dict([record(2)]))
    clock.now += 60
    before = clock.now
    store.close()
    assert clock.now <= before + 5


def test_reads_are_skipped_after_a_time_out(slow: Slow, clock: Clock) -> None:
    store = Store(slow)
    key, first = record(1)
    store.put_many({key: first})
    slow.stuck = {"get"}
    for _ in range(10):
        assert store.get(key, first.recipe) is None
        assert store.get_many({key: first.recipe}) == {}
    assert clock.now == 5.0
    slow.stuck = set()
    clock.now += 51
    assert store.get(key, first.recipe) == first


def test_leases_are_granted_meanwhile_and_released_later(slow: Slow, clock: Clock) -> None:
    store = Store(slow)
    assert store.lease_many([b"1" * 16]) == {b"1" * 16}
    slow.stuck = {"lease", "release"}
    store.release_many([b"1" * 16])
    assert store.lease_many([b"2" * 16]) == {b"2" * 16}
    store.release_many([b"2" * 16])
    assert clock.now == 5.0
    slow.stuck = set()
    clock.now += 51
    assert store.lease_many([b"1" * 16, b"2" * 16]) == {b"1" * 16, b"2" * 16}


def test_failures_that_cost_no_time_skip_nothing(slow: Slow) -> None:
    store = Store(slow)
    slow.stuck, slow.seconds = {"put", "get", "lease"}, 0.1
    for number in range(5):
        store.put_many(dict([record(number)]))
    assert slow.tried == ["put"] * 5


def test_what_waits_takes_no_more_room_than_is_given(
    slow: Slow, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachedeval.engine.breaker._BACKLOG", 50)
    store = Store(slow)
    slow.stuck = {"put"}
    for number in range(10):
        store.put_many(dict([record(number)]))
    slow.stuck = set()
    clock.now += 51
    store.put_many(dict([record(11)]))
    assert number_of(slow) == 1 + 50 // 15


class Held(MemoryBackend):
    """Another program holds it: a write waits until Ctrl-C, as a backend does that asks for that."""

    def __init__(self, on_put: Callable[[], None]) -> None:
        super().__init__()
        self.on_put = on_put
        self.tried = 0

    def put_many(self, items: Mapping[bytes, bytes]) -> None:  # noqa: ARG002
        self.tried += 1
        self.on_put()
        while not interrupted():
            time.sleep(0.001)
        raise TimeoutError("interrupted")


@node(version="1", name="breaker.step")
def step(x: int) -> int:
    return x


@pytest.mark.parametrize("count", [1, 20])
def test_ctrl_c_ends_a_write_that_waits_for_another_program(
    count: int, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Held(lambda: os.kill(os.getpid(), signal.SIGINT))
    engine = Engine(backend)
    with pytest.raises(KeyboardInterrupt):
        engine.run([step(x) for x in range(count)])
    assert not interrupted()
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []
    ends(engine.close)
    assert backend.tried == 1


def test_ctrl_c_ends_a_run_whose_database_another_program_holds(tmp_path: Path) -> None:
    url = f"disk:{tmp_path / 'cache'}"
    with Engine(url) as engine:
        engine.run(step(0))
    holder = sqlite3.connect(tmp_path / "cache" / "cache.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    engine = Engine(url)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        engine.run([step(x) for x in range(1, 5)])
    ends(engine.close)
    holder.close()
    with Engine(url) as engine:
        assert engine.run([step(x) for x in range(5)]) == list(range(5))
