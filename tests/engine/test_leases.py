"""Leases in waves, held by one process at a time and given back whatever happens."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.faulty import FaultyBackend

from cachedeval import Engine, node
from cachedeval.backend import Backend, Entry
from cachedeval.engine.call import recipe_of
from cachedeval.engine.recipe import key_of
from cachedeval_memory import MemoryBackend


@node(version="1")
def double(x: int) -> int:
    return x * 2


def key(x: int) -> bytes:
    return key_of(recipe_of(double(x), lambda _: ""))


def test_one_wave_for_all_that_became_ready_together() -> None:
    backend = FaultyBackend()
    with Engine(backend) as engine:
        engine.run([double(n) for n in range(500)])
    assert backend.counts["lease"] == 1
    assert backend.counts["get"] == 2  # one to resolve, one after the leases
    assert not backend._leased


def test_what_another_process_computes_is_waited_for_and_taken_over() -> None:
    backend = FaultyBackend()
    with Engine(backend) as engine, Engine(backend) as other, ThreadPoolExecutor(1) as threads:
        assert backend.lease_many([key(1), key(2)]) == {key(1), key(2)}
        waiting = threads.submit(engine.run, [double(n) for n in range(4)])
        time.sleep(0.2)
        assert not waiting.done()
        assert other.run([double(0), double(3)]) == [0, 6]  # stored as soon as they were there
        backend.release_many([key(1)])
        time.sleep(0.3)
        assert not waiting.done()
        backend.release_many([key(2)])
        assert waiting.result(5) == [0, 2, 4, 6]
        assert engine.stats[double.name].computed == 4
    assert not backend._leased


def test_a_long_wait_is_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cachedeval.engine.leases._PATIENCE", 0.1)
    backend = FaultyBackend()
    backend.lease_many([key(1), key(2)])
    with Engine(backend) as engine, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(engine.run, [double(1), double(2)])
        while not caplog.records:
            time.sleep(0.05)
        time.sleep(0.5)
        backend.release_many([key(1), key(2)])
        assert waiting.result(5) == [2, 4]
    (warned,) = caplog.records
    assert "waiting for another process that computes 2 results" in warned.getMessage()


def test_many_are_polled_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachedeval.engine.leases._AT_ONCE", 10)
    backend = FaultyBackend()
    backend.lease_many([key(n) for n in range(35)])
    with Engine(backend) as engine, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(engine.run, [double(n) for n in range(35)])
        time.sleep(0.2)
        backend.counts.clear()
        time.sleep(0.3)
        assert backend.counts["keys read"] <= 10 * backend.counts["get"]
        backend.release_many([key(n) for n in range(35)])
        assert waiting.result(10) == [n * 2 for n in range(35)]


def test_only_so_many_leases_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachedeval.engine.scheduler._WINDOW", 10)
    most = [0]

    class Watched(MemoryBackend):
        def lease_many(self, keys: Any) -> set[bytes]:
            granted = super().lease_many(keys)
            most[0] = max(most[0], len(self._leased))
            return granted

    backend = Watched()
    with Engine(backend) as engine:
        assert engine.run([double(n) for n in range(95)]) == [n * 2 for n in range(95)]
    assert most == [10]
    assert not backend._leased


class Simple:
    """What a backend needs at the least; it does not even inherit."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def get_many(self, keys: Any) -> dict[bytes, bytes]:
        return {key: self.values[key] for key in keys if key in self.values}

    def put_many(self, items: Any) -> None:
        self.values.update(items)

    def delete_many(self, keys: Any) -> int:
        return sum(self.values.pop(key, None) is not None for key in keys)

    def scan(self) -> Iterator[Entry]:
        return iter([Entry(key, len(value), 0.0, 0.0, 0) for key, value in self.values.items()])


class Inheriting(Simple, Backend):
    pass


class OneByOne(Simple):
    """A backend from before leases came in waves."""

    def __init__(self) -> None:
        super().__init__()
        self.held: set[bytes] = set()
        self.lock = threading.Lock()

    def lease(self, key: bytes) -> Any:
        outer = self

        class Context:
            def __enter__(self) -> bool:
                with outer.lock:
                    self.mine = key not in outer.held
                    outer.held.add(key)
                return self.mine

            def __exit__(self, *_: object) -> None:
                if self.mine:
                    outer.held.discard(key)

        return Context()


class InheritingOneByOne(OneByOne, Backend):
    pass


@pytest.mark.parametrize("kind", [Simple, Inheriting, OneByOne, InheritingOneByOne])
def test_a_simple_backend_gets_defaults_for_the_rest(kind: Any) -> None:
    backend = kind()
    with Engine(backend) as engine:
        assert engine.run([double(n) for n in range(5)]) == [0, 2, 4, 6, 8]
        assert engine.run([double(n) for n in range(5)]) == [0, 2, 4, 6, 8]
        assert engine.stats[double.name].hits == 5
        assert engine.prune(max_bytes=0).deleted == 5
    assert not getattr(backend, "held", None)


def test_leases_one_by_one_exclude_each_other() -> None:
    backend = InheritingOneByOne()
    assert backend.lease_many([b"a", b"b"]) == {b"a", b"b"}
    assert backend.lease_many([b"b", b"c"]) == {b"c"}
    backend.release_many([b"b", b"never leased"])
    with backend.lease(b"b") as mine, backend.lease(b"a") as not_mine:
        assert mine
        assert not not_mine
    simple = Inheriting()
    with simple.lease(b"a") as one, simple.lease(b"a") as two:
        assert one
        assert two


class Incomplete:
    def get_many(self, _: Any) -> dict[bytes, bytes]:
        return {}


def test_what_lacks_a_required_method_is_no_backend() -> None:
    assert isinstance(Simple(), Backend)
    assert not isinstance(Incomplete(), Backend)
