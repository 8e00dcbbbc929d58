"""A corrupt database: what can be read is served, the rest is lost, and the next write mends it."""

import contextlib
import logging
import random
import sqlite3
import time
from pathlib import Path

import pytest
from support.places import read_only

from cachedeval.testing.processes import Channel, ForkedProcess
from cachedeval_disk import DiskBackend

PAGE = 4096
ONE, TWO, THREE = b"1" * 16, b"2" * 16, b"3" * 16


def _items(number: int = 400) -> dict[bytes, bytes]:
    noise = random.Random(5)
    items = {noise.randbytes(16): noise.randbytes(900) for _ in range(number)}
    return items | {noise.randbytes(16): noise.randbytes(70_000)}


def _cache(folder: Path) -> dict[bytes, bytes]:
    items = _items()
    backend = DiskBackend(folder)
    backend.put_many(items)
    backend.close()
    return items


def _damage(folder: Path, at: int, data: bytes) -> None:
    with (folder / "cache.db").open("r+b") as file:
        file.seek(at)
        file.write(data)


def _page_of(folder: Path, value: bytes) -> int:
    return (folder / "cache.db").read_bytes().index(value) // PAGE * PAGE


def _aside(folder: Path) -> list[Path]:
    return [
        path for path in folder.glob("cache.db.corrupt-*") if path.suffix[-4:] not in "-wal-shm"
    ]


def test_one_bad_page_loses_its_own_values_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items = _cache(tmp_path)
    _damage(tmp_path, _page_of(tmp_path, list(items.values())[200]), b"\xee" * PAGE)
    backend = DiskBackend(tmp_path)
    found = backend.get_many(list(items))
    assert found.items() <= items.items()
    assert len(items) - 4 <= len(found) < len(items)
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1
    assert "is corrupt: " in caplog.text
    shown = {entry.key for entry in backend.scan()}
    assert found.keys() <= shown <= items.keys()
    assert not _aside(tmp_path)  # reading changes nothing

    caplog.clear()
    lost = {key: value for key, value in items.items() if key not in found}
    backend.put_many(lost)
    assert "was corrupt: it is set aside as cache.db.corrupt-" in caplog.text
    assert len(_aside(tmp_path)) == 1
    assert backend.get_many(list(items)) == items
    assert {entry.key for entry in backend.scan()} == items.keys()
    backend.close()
    assert _read(tmp_path, list(items)) == items
    assert _check(tmp_path) == "ok"


def test_what_was_used_and_when_is_carried_over(tmp_path: Path) -> None:
    items = _cache(tmp_path)
    backend = DiskBackend(tmp_path)
    backend.touch_many(dict.fromkeys(items, 3), 2e9)
    before = {entry.key: entry for entry in backend.scan()}
    backend.close()
    _damage(tmp_path, _page_of(tmp_path, list(items.values())[10]), b"\xee" * PAGE)
    backend = DiskBackend(tmp_path)
    backend.get_many(list(items))
    backend.put_many({ONE: b"one"})
    after = {entry.key: entry for entry in backend.scan()}
    assert len(after) > len(before) - 5
    assert all(before[key] == entry for key, entry in after.items() if key != ONE)
    backend.close()


@pytest.mark.parametrize("damage", ["noise", "zeros", "text", "header", "half", "stub", "root"])
def test_a_lost_database_is_replaced_at_the_next_write(damage: str, tmp_path: Path) -> None:
    items = _cache(tmp_path)
    path = tmp_path / "cache.db"
    data = path.read_bytes()
    path.write_bytes(
        {
            "noise": random.Random(1).randbytes(len(data)),
            "zeros": bytes(len(data)),
            "text": b"this is no database\n" * 999,
            "header": b"\xff" * 100 + data[100:],
            "half": data[: len(data) // 2 // PAGE * PAGE],
            "stub": data[:60],
            "root": data[:PAGE] + random.Random(1).randbytes(PAGE * 12) + data[PAGE * 13 :],
        }[damage]
    )
    backend = DiskBackend(tmp_path)
    try:
        found = backend.get_many(list(items))
    except sqlite3.DatabaseError:
        found = {}
    assert found.items() <= items.items()
    backend.put_many({ONE: b"one"})
    kept = backend.get_many([*items, ONE])
    assert kept.pop(ONE) == b"one"
    assert kept.items() <= items.items()
    assert kept.keys() >= found.keys()
    backend.touch_many({ONE: 1}, 2e9)
    assert ONE in {entry.key for entry in backend.scan()}
    backend.close()
    assert _check(tmp_path) == "ok"
    assert len(_aside(tmp_path)) <= 1


def test_every_single_byte_may_be_wrong(tmp_path: Path) -> None:
    items = _cache(tmp_path / "whole")
    data = (tmp_path / "whole/cache.db").read_bytes()
    noise = random.Random(7)
    used = [*range(0, 108, 4), *(noise.randrange(len(data)) for _ in range(40))]
    for number, at in enumerate(used):
        folder = tmp_path / str(number)
        folder.mkdir()
        wrong = bytearray(data)
        wrong[at] ^= noise.randrange(1, 256)
        (folder / "cache.db").write_bytes(wrong)
        backend = DiskBackend(folder)
        try:
            backend.get_many(list(items))
            list(backend.scan())
        except sqlite3.DatabaseError:
            pass
        try:
            backend.put_many(items)
        except sqlite3.DatabaseError:
            # Found corrupt at the second try only: then the third is on a new database.
            backend.put_many(items)
        small = {key: value for key, value in items.items() if len(value) < 60_000}
        found = backend.get_many(list(small))
        assert len(found) > len(small) - 40
        backend.close()


def test_a_damaged_journal_loses_no_more_than_itself(tmp_path: Path) -> None:
    def work(channel: Channel) -> None:
        backend = DiskBackend(tmp_path)
        backend.put_many({ONE: b"one"})
        backend.close()
        backend.put_many({TWO: b"two"})
        channel.send()
        channel.receive()

    with ForkedProcess(work) as child:
        assert child.channel.receive()
    journal = tmp_path / "cache.db-wal"
    assert journal.stat().st_size > 0
    journal.write_bytes(b"\xff" * 20 + journal.read_bytes()[20:])
    backend = DiskBackend(tmp_path)
    assert backend.get_many([ONE, TWO]) == {ONE: b"one"}
    backend.put_many({TWO: b"two"})
    assert backend.get_many([ONE, TWO]) == {ONE: b"one", TWO: b"two"}
    backend.close()


def test_a_journal_without_its_database_is_not_replayed(tmp_path: Path) -> None:
    def work(channel: Channel) -> None:
        backend = DiskBackend(tmp_path)
        backend.put_many({ONE: b"one"})
        channel.send()
        channel.receive()

    with ForkedProcess(work) as child:
        assert child.channel.receive()
    (tmp_path / "cache.db").unlink()
    backend = DiskBackend(tmp_path)
    assert backend.get_many([ONE]) == {}
    backend.put_many({TWO: b"two"})
    assert backend.get_many([ONE, TWO]) == {TWO: b"two"}
    backend.close()
    assert _check(tmp_path) == "ok"


def test_open_handles_find_the_new_database(tmp_path: Path) -> None:
    items = _cache(tmp_path)
    here = DiskBackend(tmp_path)
    here.put_many({ONE: b"one"})

    def work(channel: Channel) -> None:
        there = DiskBackend(tmp_path)
        there.put_many({TWO: b"two"})
        channel.send()
        channel.receive()
        # Here the new database is in use, by another process: closing the old one spares it.
        assert there.get_many([ONE, TWO, THREE]) == {ONE: b"one", TWO: b"two", THREE: b"three"}
        there.put_many({TWO: b"new"})
        there.close()
        channel.send()
        channel.receive()

    with ForkedProcess(work) as child:
        assert child.channel.receive()
        # Not through the file's bytes here: closing them would drop SQLite's own locks on it.
        with ForkedProcess(
            lambda _: _damage(tmp_path, _page_of_many(tmp_path, items), b"\xee" * PAGE)
        ) as c:
            c.finish()
        other = DiskBackend(tmp_path)
        other.get_many(list(items))
        other.put_many({THREE: b"three"})
        assert _aside(tmp_path)
        child.channel.send()
        assert child.channel.receive()
        assert (tmp_path / "cache.db-wal").exists()
        time.sleep(0.02)  # so long, what is read need not be looked for anew
        assert here.get_many([TWO]) == {TWO: b"new"}
        here.put_many({ONE: b"newer"})
        here.close()
        assert other.get_many([ONE, TWO, THREE]) == {ONE: b"newer", TWO: b"new", THREE: b"three"}
        other.put_many({ONE: b"newest"})
        child.channel.send()
        child.finish()
    other.close()
    assert _read(tmp_path, [ONE, TWO]) == {ONE: b"newest", TWO: b"new"}
    assert _check(tmp_path) == "ok"
    assert len(_aside(tmp_path)) == 1


def _page_of_many(folder: Path, items: dict[bytes, bytes]) -> int:
    return _page_of(folder, list(items.values())[100])


def test_processes_that_find_it_damaged_at_once_replace_it_once(tmp_path: Path) -> None:
    items = _cache(tmp_path)
    (tmp_path / "cache.db").write_bytes(b"no database" * 1000)

    def work(number: int) -> None:
        backend = DiskBackend(tmp_path)
        for step in range(5):
            backend.put_many({bytes([number, step]) * 8: b"x" * 500})
        backend.close()

    children = [ForkedProcess(lambda _, number=number: work(number)) for number in range(4)]  # type: ignore[misc]
    for child in children:
        with child:
            child.finish()
    keys = [bytes([number, step]) * 8 for number in range(4) for step in range(5)]
    assert len(_read(tmp_path, keys)) == 20
    assert len(_aside(tmp_path)) == 1
    assert items


def test_damage_in_a_read_only_folder_is_reported(tmp_path: Path) -> None:
    items = _cache(tmp_path)
    (tmp_path / "cache.db").write_bytes(b"no database" * 1000)
    with read_only(tmp_path):
        backend = DiskBackend(tmp_path)
        with pytest.raises(sqlite3.DatabaseError, match="not a database"):
            backend.get_many(list(items))
        with pytest.raises((OSError, sqlite3.Error)):
            backend.put_many({ONE: b"one"})
        backend.close()


@pytest.mark.parametrize("damage", [b"", b"no database" * 1000, bytes(5000)])
def test_damaged_notes_of_use_are_begun_anew(tmp_path: Path, damage: bytes) -> None:
    items = _cache(tmp_path)
    one = next(iter(items))
    backend = DiskBackend(tmp_path)
    backend.touch_many({one: 5}, 2e9)
    (tmp_path / "usage.db").write_bytes(damage)
    assert {entry.hits for entry in backend.scan()} == {0}
    backend.touch_many({one: 2}, 2e9)
    assert {entry.hits for entry in backend.scan()} == {0, 2}
    assert backend.delete_many([one]) == 1
    backend.close()


def _read(folder: Path, keys: list[bytes]) -> dict[bytes, bytes]:
    with contextlib.closing(DiskBackend(folder)) as backend:
        return backend.get_many(keys)


def _check(folder: Path) -> object:
    connection = sqlite3.connect(folder / "cache.db")
    ((answer,),) = connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()
    return answer


@pytest.mark.parametrize("start", [0, PAGE], ids=["anywhere", "behind the schema"])
@pytest.mark.parametrize("seed", range(10))
def test_what_is_stored_after_heavy_damage_stays_stored(
    tmp_path: Path, seed: int, start: int
) -> None:
    noise = random.Random(seed)
    items = {noise.randbytes(16): noise.randbytes(noise.randint(200, 600)) for _ in range(200)}
    backend = DiskBackend(tmp_path)
    for some in _groups(items, 50):
        backend.put_many(some)
    backend.close()
    data = bytearray((tmp_path / "cache.db").read_bytes())
    for _ in range(noise.randint(50, 100)):
        data[noise.randrange(start, len(data))] ^= 1 << noise.randrange(8)
    (tmp_path / "cache.db").write_bytes(data)

    backend = DiskBackend(tmp_path)
    found = _right(backend, items)
    missing = {key: items[key] for key in items.keys() - found}
    stored: set[bytes] = set()
    for some in _groups(missing, 20):
        backend.put_many(some)
        stored |= some.keys()
    backend.close()
    backend = DiskBackend(tmp_path)
    again = _right(backend, items)
    backend.close()
    assert stored == missing.keys()
    if _aside(tmp_path):  # SQLite may see nothing of damage to an index
        assert stored <= again
        assert len(found - again) <= len(items) // 10  # such as a row that two keys lead to


def test_a_database_of_a_format_that_sqlite_does_not_know_is_replaced(tmp_path: Path) -> None:
    items = _cache(tmp_path)
    _damage(tmp_path, 44, (36).to_bytes(4))  # the format of its schema, 1 to 4
    backend = DiskBackend(tmp_path)
    with contextlib.suppress(sqlite3.DatabaseError):
        backend.get_many(list(items))
    backend.put_many({ONE: b"one"})
    assert backend.get_many([ONE]) == {ONE: b"one"}
    backend.close()
    assert _aside(tmp_path)


def _groups(items: dict[bytes, bytes], size: int) -> list[dict[bytes, bytes]]:
    keys = list(items)
    return [{k: items[k] for k in keys[i : i + size]} for i in range(0, len(keys), size)]


def _right(backend: DiskBackend, items: dict[bytes, bytes]) -> set[bytes]:
    """Return the keys whose values are read as they were stored; none of a corrupt database."""
    with contextlib.suppress(sqlite3.DatabaseError):
        return {
            key for key, value in backend.get_many(list(items)).items() if items.get(key) == value
        }
    return set()


def test_the_newest_are_read_behind_thousands_that_are_lost(tmp_path: Path) -> None:
    noise = random.Random(1)
    items = {noise.randbytes(16): noise.randbytes(40) for _ in range(20_000)}
    backend = DiskBackend(tmp_path)
    backend.put_many(items)
    backend.close()
    file = tmp_path / "cache.db"
    with contextlib.closing(sqlite3.connect(file)) as database:
        ((root,),) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'Cache'")
    top = file.read_bytes()[(root - 1) * PAGE : root * PAGE]
    assert top[0] == 5, "not an inner page of a table"
    cells = [int.from_bytes(top[at : at + 2]) for at in range(12, PAGE, 2)]
    below = [int.from_bytes(top[at : at + 4]) for at in cells[: int.from_bytes(top[3:5])]]
    for page in below[: len(below) // 2]:  # in the order of rows, the oldest first
        _damage(tmp_path, (page - 1) * PAGE, b"\xee" * PAGE)
    backend = DiskBackend(tmp_path)
    listed = {entry.key for entry in backend.scan()}
    backend.close()
    assert len(listed) < len(items) - 20 * 256
    assert set(list(items)[-1000:]) <= listed
