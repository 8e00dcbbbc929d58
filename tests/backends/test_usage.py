import contextlib
import sqlite3
from pathlib import Path

import msgspec
import pytest

from cachedeval_disk import DiskBackend, usage


def _count(folder: Path, table: str) -> int:
    with contextlib.closing(sqlite3.connect(folder / "usage.db")) as connection:
        ((number,),) = connection.execute(f"SELECT count(*) FROM {table}").fetchall()  # noqa: S608  a name of ours
    return int(number)


def _hits(backend: DiskBackend) -> dict[bytes, int]:
    return {entry.key: entry.hits for entry in backend.scan() if entry.hits}


@pytest.fixture
def backend(tmp_path: Path) -> DiskBackend:
    backend = DiskBackend(tmp_path)
    backend.put_many({bytes((n,)): b"value" for n in range(100)})
    return backend


def test_the_same_use_is_noted_once(backend: DiskBackend, tmp_path: Path) -> None:
    for when in (3e9, 1e9, 2e9):
        backend.touch_many({b"\x01": 1, b"\x02": 2}, when)
    assert _count(tmp_path, "notes") == 1
    backend.touch_many({b"\x01": 1}, 1e9)
    assert _count(tmp_path, "notes") == 2
    assert _hits(backend) == {b"\x01": 4, b"\x02": 6}
    assert {entry.used for entry in backend.scan() if entry.hits} == {3e9}


def test_many_notes_are_added_up(
    backend: DiskBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "_LEAST", 100)
    monkeypatch.setattr(usage, "_SHARE", 10**9)
    expected: dict[bytes, int] = {}
    for n in range(1, 60):
        hits = {bytes((n,)): n, b"\x00": 1}
        backend.touch_many(hits, 2e9 + n)
        for key, count in hits.items():
            expected[key] = expected.get(key, 0) + count
        assert _hits(backend) == expected
    assert _count(tmp_path, "notes") < 30
    assert _count(tmp_path, "usage") >= 30


@pytest.mark.parametrize("deletes", [False, True])
def test_a_use_of_what_was_not_held_is_none(backend: DiskBackend, *, deletes: bool) -> None:
    backend.touch_many({b"new": 5}, 2e9)
    if deletes:  # adds up what was noted
        backend.delete_many([b"\x01"])
    backend.put_many({b"new": b"value"})
    assert _hits(backend) == {}
    backend.touch_many({b"new": 1}, 2e9)
    assert _hits(backend) == {b"new": 1}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("hits", b"\x00no map"),
        ("hits", "text"),
        ("used", "text"),
        ("times", -1),
        ("used", 9e999),
        ("times", b""),
        ("upto", 0.5),
    ],
)
def test_a_damaged_note_is_passed_over(
    backend: DiskBackend, tmp_path: Path, column: str, value: object
) -> None:
    backend.touch_many({b"\x01": 1}, 2e9)
    backend.touch_many({b"\x02": 1}, 2e9)
    with contextlib.closing(sqlite3.connect(tmp_path / "usage.db")) as connection, connection:
        connection.execute(f"UPDATE notes SET {column} = ? WHERE rowid = 1", (value,))  # noqa: S608
    assert _hits(backend) == {b"\x02": 1}
    assert backend.delete_many([b"\x05"]) == 1
    assert _hits(backend) == {b"\x02": 1}


@pytest.mark.parametrize("column", ["times", "hits"])
def test_a_count_that_no_database_can_hold_does_not_stop_a_prune(
    backend: DiskBackend, tmp_path: Path, column: str
) -> None:
    backend.touch_many({b"\x01": 5}, 2e9)
    value = 2**63 - 1 if column == "times" else msgspec.msgpack.encode({b"\x01": 2**63})
    with contextlib.closing(sqlite3.connect(tmp_path / "usage.db")) as connection, connection:
        connection.execute(f"UPDATE notes SET {column} = ?", (value,))  # noqa: S608
    for key in (b"\x05", b"\x06"):
        backend.touch_many({b"\x01": 2**63 - 1}, 2e9)
        assert backend.delete_many([key]) == 1
        assert _hits(backend) == {b"\x01": 2**53}
