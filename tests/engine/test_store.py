import contextlib
import logging
import pickle
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.faulty import FaultyBackend
from support.places import small_disk

from cachedeval import Engine, node
from cachedeval.engine.errors import BackendError
from cachedeval.engine.record import CorruptRecord, Record, pack
from cachedeval.engine.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def record(recipe: bytes) -> Record:
    return Record(recipe, b"m\x01", "sha256:0", 1.0, 2.0)


def filled() -> tuple[FaultyBackend, Store, dict[bytes, bytes]]:
    backend = FaultyBackend()
    store = Store(backend)
    recipes = {f"key {n:012}".encode(): f"recipe {n}".encode() for n in range(5)}
    assert store.put_many({key: record(recipe) for key, recipe in recipes.items()})
    return backend, store, recipes


def test_what_is_put_is_got_in_one_look() -> None:
    backend, store, recipes = filled()
    backend.counts.clear()
    assert {k: r.recipe for k, r in store.get_many(recipes).items()} == recipes
    assert backend.counts == {"get": 1, "keys read": 5}


def test_another_recipe_under_a_key_is_a_collision_and_a_miss() -> None:
    _, store, recipes = filled()
    key = next(iter(recipes))
    assert store.get_many({key: b"another"}) == {}
    assert store.counts.collisions == 1


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_damaged_records_are_misses_counted_and_reported_once(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    backend, store, recipes = filled()
    changes: list[Callable[[bytes], bytes]] = [
        lambda value: value[:-1],
        lambda value: value[:40] + b"!" + value[41:],
        lambda _: pickle.dumps(Bomb(tmp_path / "boom")),
        lambda _: b"",
        lambda value: value[:4] + b"\x09" + value[5:],
    ]

    def damage(value: bytes) -> bytes:
        return changes.pop()(value)

    with caplog.at_level(logging.WARNING, "cachedeval"):
        backend.damage(damage)
        for _ in range(2):
            assert store.get_many(recipes) == {}
    assert store.counts.corrupt == 5
    assert len(caplog.records) == 1
    assert "corrupt record" in caplog.text
    assert not (tmp_path / "boom").exists()
    assert all(isinstance(found, CorruptRecord) for _, found in store.records())
    # Written anew and corrupt again, they count again.
    store.put_many({key: record(recipe) for key, recipe in recipes.items()})
    assert len(store.get_many(recipes)) == 5
    backend.damage(lambda value: value[:-1])
    assert store.get_many(recipes) == {}
    assert store.counts.corrupt == 10


@pytest.mark.parametrize("value", [None, "text", 3, object()])
def test_a_backend_that_returns_no_bytes(value: Any) -> None:
    backend, store, recipes = filled()
    backend.damage(lambda _: value)
    assert store.get_many(recipes) == {}
    assert store.counts.corrupt == 5


def test_a_broken_backend_is_reported_once_and_harmless(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend, store, recipes = filled()
    backend.broken = {"get", "put", "delete", "lease", "touch", "scan", "close"}
    with caplog.at_level(logging.WARNING, "cachedeval"):
        assert store.get_many(recipes) == {}
        assert not store.put_many({b"k" * 16: record(b"r")})
        assert store.delete_many(list(recipes)) == 0
        assert store.lease_many([b"k" * 16]) == {b"k" * 16}
        store.release_many([b"k" * 16])
        with pytest.raises(BackendError, match=r"the cache cannot be read: .*no room"):
            list(store.records())
        store.close()
        store.close()
    assert store.counts.errors == {"get": 1, "put": 1, "delete": 1, "lease": 1, "close": 1}
    assert len(caplog.records) == 1
    assert "the cache cannot be used (get: OSError: [Errno 28] no room is left here)" in caplog.text


def test_hits_are_noted_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, store, recipes = filled()
    for _ in range(3):
        store.get_many(recipes)
    store.peek_many(recipes)
    assert backend.counts["touch"] == 0
    assert {entry.hits for entry in backend.scan()} == {0}
    store.flush()
    store.flush()
    assert backend.counts["touch"] == 1
    assert {entry.hits for entry in backend.scan()} == {3}
    monkeypatch.setattr("cachedeval.engine.store._TOUCH_AT", 4)
    store.get_many(recipes)
    assert backend.counts["touch"] == 2


def test_hits_looked_up_alone_are_noted_in_one_go_too(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, store, recipes = filled()
    monkeypatch.setattr("cachedeval.engine.store._TOUCH_AT", len(recipes) - 1)
    for key, recipe in recipes.items():
        assert backend.counts["touch"] == 0
        assert store.get(key, recipe) is not None
    assert backend.counts["touch"] == 1
    assert {entry.hits for entry in backend.scan()} == {1}


def test_a_touch_that_fails_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    backend, store, recipes = filled()
    backend.broken = {"touch"}
    store.get_many(recipes)
    with caplog.at_level(logging.WARNING, "cachedeval"):
        store.flush()
    assert store.counts.errors == {"touch": 1}
    assert not caplog.records


def test_a_lease_is_held_by_one() -> None:
    backend, store, _ = filled()
    other = Store(backend)
    assert store.lease_many([b"k" * 16, b"l" * 16]) == {b"k" * 16, b"l" * 16}
    assert other.lease_many([b"k" * 16, b"m" * 16]) == {b"m" * 16}
    store.release_many([b"k" * 16])
    assert other.lease_many([b"k" * 16, b"l" * 16]) == {b"k" * 16}


def test_records_come_in_batches() -> None:
    backend = FaultyBackend()
    store = Store(backend)
    records = {f"key {n:012}".encode(): record(b"r") for n in range(1201)}
    store.put_many(records)
    assert {entry.key: found for entry, found in store.records()} == records
    assert backend.counts["get"] == 3


def test_what_vanishes_during_a_scan_is_corrupt() -> None:
    backend, store, recipes = filled()
    found = store.records()
    gone = next(iter(recipes))
    scan = list(backend.scan())
    backend.delete_many([gone])
    backend.scan = lambda: iter(scan)  # type: ignore[method-assign]
    assert [str(r) for e, r in found if e.key == gone] == ["it cannot be read"]


def test_a_value_of_another_project_stays_where_it_is() -> None:
    backend, store, recipes = filled()
    key = next(iter(recipes))
    backend.put_many({key: b"foreign"})
    assert key not in store.get_many(recipes)
    assert backend.get_many([key]) == {key: b"foreign"}
    store.put_many({key: record(recipes[key])})
    assert backend.get_many([key]) == {key: pack(record(recipes[key]))}


@pytest.mark.parametrize(
    ("damage", "count"),
    [
        ("UPDATE Cache SET mode = 4, value = x'80054b012e'", 3),
        ("UPDATE Cache SET mode = 3 WHERE mode = 2", 1),
        ("UPDATE Cache SET value = 'text' WHERE mode = 1", 2),
        ("UPDATE Cache SET size = size - 1 WHERE mode = 2", 1),
        ("UPDATE Cache SET filename = '../x' WHERE mode = 2", 1),
    ],
)
def test_what_a_database_says_is_no_bytes_is_counted_computed_again_and_healed(
    tmp_path: Path, damage: str, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    @node(version="1", name="repeat")
    def repeat(times: int) -> str:
        return "x" * times

    calls = [repeat(10), repeat(20), repeat(100_000)]
    with Engine(f"disk:{tmp_path}") as engine:
        values = engine.run(calls)
    with contextlib.closing(sqlite3.connect(tmp_path / "cache.db")) as database, database:
        database.execute(damage)
    with Engine(f"disk:{tmp_path}") as engine:
        assert engine.run(calls) == values
        assert engine.store.counts.corrupt == count
        assert engine.stats["repeat"].computed == count
    assert [record.getMessage()[:34] for record in caplog.records] == [
        "the cache holds a corrupt record ("
    ]
    with Engine(f"disk:{tmp_path}") as engine:
        assert engine.run(calls) == values
        assert engine.store.counts.corrupt == engine.stats["repeat"].computed == 0


class SmallBackend(FaultyBackend):
    """Has room for so many values; stores a group whole or not at all."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def put_many(self, items: "Mapping[bytes, bytes]") -> None:
        if len(self._values.keys() | items.keys()) > self.room:
            self.broken = {"put"}
        try:
            super().put_many(items)
        finally:
            self.broken = set()


@pytest.mark.parametrize("room", [0, 1, 12, 30, 59, 60])
def test_a_group_that_does_not_fit_is_stored_as_far_as_it_fits(room: int) -> None:
    backend = SmallBackend(room)
    store = Store(backend)
    records = {b"%16d" % n: record(b"%d" % n) for n in range(60)}
    stored = store.put_many(records)
    assert len(stored) == room
    assert stored == {entry.key for entry in backend.scan()}
    assert backend.counts["put"] <= 20 + room  # it does not try each of the rest


def test_a_group_that_holds_one_bad_record_loses_that_one_alone() -> None:
    backend = FaultyBackend()
    store = Store(backend)
    bad = b"%16d" % 17
    put = backend.put_many

    def refuse(items: "Mapping[bytes, bytes]") -> None:
        if bad in items:
            raise OSError(27, "file too large")
        put(items)

    backend.put_many = refuse  # type: ignore[method-assign]
    records = {b"%16d" % n: record(b"%d" % n) for n in range(60)}
    assert store.put_many(records) == records.keys() - {bad}


def test_a_group_is_not_tried_again_on_a_backend_that_does_not_answer() -> None:
    backend = FaultyBackend()

    def time_out(items: "Mapping[bytes, bytes]") -> None:
        del items
        backend.counts["put"] += 1
        raise TimeoutError

    backend.put_many = time_out  # type: ignore[method-assign]
    assert not Store(backend).put_many({b"%16d" % n: record(b"%d" % n) for n in range(60)})
    assert backend.counts["put"] == 1


@pytest.mark.slow
def test_results_are_stored_as_far_as_the_disk_has_room(tmp_path: Path) -> None:
    @node(version="1", name="room.step")
    def step(x: int) -> bytes:
        return bytes((x,)) * 60_000

    calls = [step(x) for x in range(60)]
    with small_disk(tmp_path, "2m"):
        with Engine(f"disk:{tmp_path}/cache") as engine:
            assert [value[0] for value in engine.run(calls)] == [*range(60)]
        with Engine(f"disk:{tmp_path}/cache") as engine:
            assert engine.plan(calls)[step.name].hits >= 10
