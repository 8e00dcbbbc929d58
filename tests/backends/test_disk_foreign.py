"""A database that somebody else wrote: nothing in it runs, and nothing outside it is touched."""

import contextlib
import math
import os
import pickle
import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path

import diskcache
import pytest

from cachedeval.backend import BackendError
from cachedeval_disk import DiskBackend

ONE, TWO, THREE = b"1" * 16, b"2" * 16, b"3" * 16
LARGE = b"large" * 20_000


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    backend = DiskBackend(folder)
    backend.put_many({ONE: b"one", TWO: LARGE})
    backend.close()
    return folder


def _execute(folder: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(folder / "cache.db", isolation_level=None)
    connection.execute(statement, values)
    connection.close()


@pytest.mark.parametrize("raw", [0, 1])
@pytest.mark.parametrize("mode", [4, 3, 0, 5, -1, None, "4", 1.5])
def test_pickles_are_neither_run_nor_held(
    cache: Path, tmp_path: Path, mode: object, raw: int
) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    pickle.loads(bomb)  # noqa: S301  to see that it is a real one
    (tmp_path / "exploded").rmdir()
    (blob,) = cache.glob("*/*/*.val")
    blob.write_bytes(bomb)
    _execute(cache, "UPDATE Cache SET mode = ?, raw = ?, value = ?", mode, raw, bomb)
    backend = DiskBackend(cache)
    # Under keys that are bytes they are met, for the store above to count.
    assert backend.get_many([ONE, TWO]) == ({ONE: b"", TWO: b""} if raw else {})
    assert sorted(entry.key for entry in backend.scan()) == [ONE, TWO]
    backend.touch_many({ONE: 1}, 1e10)
    backend.put_many({ONE: b"new", THREE: b"three"})
    left = {TWO: b""} if raw else {}
    assert backend.get_many([ONE, TWO, THREE]) == {ONE: b"new", THREE: b"three", **left}
    backend.delete_many([ONE, TWO, THREE])
    backend.close()
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("key", [7, 1.5, "text", "\udcff", None, b"", b"blob" * 40])
@pytest.mark.parametrize("raw", [0, 1])
def test_a_row_under_any_key_is_listed_and_can_be_deleted(
    cache: Path, key: object, raw: int
) -> None:
    shown = "CAST(x'ff' AS TEXT)" if key == "\udcff" else "?"
    values = () if key == "\udcff" else (key,)
    _execute(cache, f"UPDATE Cache SET raw = {raw}, key = {shown} WHERE mode = 1", *values)  # noqa: S608
    (blob,) = cache.glob("*/*/*.val")
    backend = DiskBackend(cache)
    assert backend.get_many([TWO]) == {TWO: LARGE}
    (foreign,) = {entry.key for entry in backend.scan()} - {TWO}
    assert backend.delete_many([foreign]) == 1
    assert [entry.key for entry in backend.scan()] == [TWO]
    assert backend.delete_many([TWO]) == 1
    assert list(backend.scan()) == []
    backend.close()
    assert not blob.exists()


def test_a_key_that_is_there_twice_is_listed_once_as_what_is_read(cache: Path) -> None:
    columns = "raw, store_time, expire_time, access_time, access_count, tag, size"
    _execute(
        cache,
        f"INSERT INTO Cache (key, mode, value, {columns}) VALUES (?, 4, ?, 0, 1, NULL, 1, 0, '', 0)",  # noqa: S608
        ONE,
        b"pickle" * 100,
    )
    backend = DiskBackend(cache)
    before = {entry.key: entry for entry in backend.scan()}
    assert sorted(before) == [ONE, TWO]
    assert before[ONE].size < 600
    assert before[ONE].created > 1
    assert backend.delete_many([ONE]) == 2
    assert [entry.key for entry in backend.scan()] == [TWO]
    backend.close()


def test_a_pickle_labelled_as_bytes_is_bytes(cache: Path, tmp_path: Path) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    _execute(cache, "UPDATE Cache SET value = ? WHERE mode = 1", bomb)
    backend = DiskBackend(cache)
    assert backend.get_many([ONE]) == {ONE: bomb}  # for the store above to refuse
    backend.close()
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("value", ["text", "\udcff", 7, 1.5, None, ""])
def test_a_value_of_another_type_is_not_held(cache: Path, value: object) -> None:
    if value == "\udcff":
        _execute(cache, "UPDATE Cache SET value = CAST(x'ff' AS TEXT) WHERE mode = 1")
    else:
        _execute(cache, "UPDATE Cache SET value = ? WHERE mode = 1", value)
    backend = DiskBackend(cache)
    assert backend.get_many([ONE, TWO]) == {ONE: b"", TWO: LARGE}
    backend.close()


@pytest.mark.parametrize("column", ["store_time", "size", "filename", "access_count", "key"])
@pytest.mark.parametrize("value", ["text", None, b"blob", 2**62, -1, 1e300, math.inf, -math.inf])
def test_columns_of_any_type_are_harmless(cache: Path, column: str, value: object) -> None:
    _execute(cache, f"UPDATE Cache SET {column} = ? WHERE mode = 2", value)  # noqa: S608  ours
    backend = DiskBackend(cache)
    assert backend.get_many([ONE, TWO])[ONE] == b"one"
    assert ONE in {entry.key for entry in backend.scan()}
    assert all(type(entry.key) is bytes for entry in backend.scan())
    assert all(abs(entry.created) < 1e12 and entry.size >= 0 for entry in backend.scan())
    backend.put_many({TWO: LARGE})
    assert backend.get_many([ONE, TWO]) == {ONE: b"one", TWO: LARGE}
    assert backend.delete_many([ONE, TWO]) == 2
    backend.close()


@pytest.mark.parametrize(
    "name",
    [
        "../precious",
        "aa/bb/../../../precious",
        "aa/bb/" + "0" * 28 + ".val/../../../../precious",
        "aa/bb/" + "0" * 28 + ".val\n",
        "cache.db",
        "lock",
        "",
        ".",
    ],
)
def test_a_named_file_outside_is_neither_read_nor_removed(
    cache: Path, tmp_path: Path, name: str
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(LARGE)
    names = (name, str(precious))
    for number, path in enumerate(names):
        _execute(cache, "UPDATE Cache SET filename = ? WHERE mode = 2", path)
        backend = DiskBackend(cache)
        assert backend.get_many([TWO]) == {TWO: b""}
        if number:
            backend.put_many({TWO: LARGE})  # which removes the file of what it replaces
        else:
            backend.delete_many([TWO, ONE])
            backend.put_many({TWO: LARGE})
        assert backend.get_many([TWO]) == {TWO: LARGE}
        backend.close()
    assert precious.read_bytes() == LARGE
    assert (cache / "lock").exists()


def test_a_blob_that_is_no_file_of_the_folder_is_not_read(cache: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(LARGE)
    (blob,) = cache.glob("*/*/*.val")
    backend = DiskBackend(cache)
    assert backend.get_many([TWO]) == {TWO: LARGE}

    blob.unlink()
    assert backend.get_many([TWO]) == {}  # as if it had been deleted meanwhile
    blob.symlink_to(precious)
    assert backend.get_many([TWO]) == {TWO: b""}
    blob.unlink()
    os.mkfifo(blob)
    assert backend.get_many([TWO]) == {TWO: b""}  # and it does not wait for the other end
    blob.unlink()
    blob.mkdir()
    assert backend.get_many([TWO]) == {TWO: b""}
    blob.rmdir()

    elsewhere = tmp_path / "elsewhere"
    blob.parent.rename(elsewhere)
    (elsewhere / blob.name).write_bytes(LARGE)
    blob.parent.symlink_to(elsewhere)
    assert backend.get_many([TWO]) == {TWO: b""}
    assert backend.delete_many([TWO]) == 1
    backend.close()
    assert (elsewhere / blob.name).exists()
    assert precious.exists()


@pytest.mark.parametrize("damage", [b"", LARGE[:-1], LARGE + b"x"])
def test_a_blob_of_another_length_is_not_held(cache: Path, damage: bytes) -> None:
    (blob,) = cache.glob("*/*/*.val")
    blob.write_bytes(damage)
    backend = DiskBackend(cache)
    assert backend.get_many([ONE, TWO]) == {ONE: b"one", TWO: b""}
    backend.put_many({TWO: LARGE})
    assert backend.get_many([TWO]) == {TWO: LARGE}
    backend.close()


def test_settings_in_the_database_are_not_believed(cache: Path, tmp_path: Path) -> None:
    for key, value in {
        "eviction_policy": "least-recently-used",
        "cull_limit": 1000,
        "size_limit": 1,
        "disk_min_file_size": 0,
        "disk__directory": str(tmp_path),
        "disk_folder": str(tmp_path),
        "_given": "x",
        "set": "x",
        "sqlite_writable_schema": 1,
        "sqlite_mmap_size": 2**30,
    }.items():
        _execute(cache, "INSERT OR REPLACE INTO Settings VALUES (?, ?)", key, value)
    backend = DiskBackend(cache)
    items = {bytes([number]) * 16: b"x" * 1000 for number in range(60, 250)}
    backend.put_many(items)
    assert backend.get_many(list(items)) == items
    assert backend.get_many([ONE, TWO]) == {ONE: b"one", TWO: LARGE}
    backend.close()
    with diskcache.Cache(str(cache)) as plain:
        settings = dict(plain._sql("SELECT key, value FROM Settings"))
    assert settings["eviction_policy"] == "none"
    assert settings["cull_limit"] == 0
    assert "set" not in settings


@pytest.mark.parametrize(
    "statement",
    [
        (
            "CREATE TRIGGER theirs AFTER INSERT ON Cache BEGIN DELETE FROM Cache WHERE rowid IN "
            "(WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT x FROM r); END"
        ),
        (
            "CREATE TRIGGER theirs AFTER INSERT ON Cache BEGIN "
            "UPDATE Cache SET filename = '/etc/passwd', mode = 2; END"
        ),
        "CREATE INDEX theirs ON Cache (hex(zeroblob(rowid)))",
        "CREATE INDEX theirs ON Cache (key) WHERE length(hex(key)) > 0",
        "CREATE TABLE theirs (x)",
        "CREATE VIEW theirs AS SELECT * FROM Cache",
    ],
    ids=["endless trigger", "trigger", "expression", "partial index", "table", "view"],
)
def test_what_a_stranger_added_to_the_schema_never_runs(cache: Path, statement: str) -> None:
    _execute(cache, statement)
    backend = DiskBackend(cache)
    backend.put_many({THREE: b"three"})
    assert backend.get_many([TWO, THREE]) == {TWO: LARGE, THREE: b"three"}  # carried over
    assert backend.delete_many([TWO, THREE]) == 2
    backend.close()
    assert len([path for path in cache.glob("cache.db.corrupt-*") if path.name[-1].isdigit()]) == 1
    with sqlite3.connect(cache / "cache.db") as new:
        assert not new.execute("SELECT 1 FROM sqlite_master WHERE name = 'theirs'").fetchall()
    new.close()


ENDLESS = "r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r)"


@pytest.mark.parametrize(
    "replacement",
    [
        f"CREATE VIEW Cache AS WITH RECURSIVE {ENDLESS} SELECT x AS rowid, Real.* FROM r, Real WHERE x < 0",  # noqa: S608
        (
            "CREATE VIEW Cache AS SELECT rowid, key, raw, store_time, expire_time, access_time, "
            "access_count, tag, size, mode, filename, zeroblob(900000000) AS value FROM Real"
        ),
        (
            "CREATE TABLE Cache (rowid INTEGER PRIMARY KEY, key BLOB, raw INTEGER, store_time REAL, "
            "expire_time REAL, access_time REAL, access_count INTEGER, tag BLOB, size INTEGER, "
            "mode INTEGER, filename TEXT, value AS (zeroblob(900000000)))"
        ),
        "CREATE VIRTUAL TABLE Cache USING fts5(key, raw, value)",
    ],
    ids=["endless view", "view of bombs", "generated column", "virtual table"],
)
def test_nothing_is_read_from_what_is_not_our_table(cache: Path, replacement: str) -> None:
    _execute(cache, "ALTER TABLE Cache RENAME TO Real")
    _execute(cache, replacement)
    backend = DiskBackend(cache)
    with pytest.raises(sqlite3.DatabaseError, match="that is not ours"):
        backend.get_many([ONE, TWO])
    with pytest.raises(sqlite3.DatabaseError, match="that is not ours"):
        list(backend.scan())
    backend.put_many({THREE: b"three"})
    assert backend.get_many([ONE, TWO, THREE]) == {THREE: b"three"}
    backend.close()


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
@pytest.mark.parametrize(
    "name",
    ["cache.db-journal", "cache.db-wal", "cache.db-shm", "lock", "usage.db", "usage.db-journal"],
)
def test_what_is_no_file_is_neither_waited_for_nor_written_through(
    cache: Path, tmp_path: Path, name: str, kind: str
) -> None:
    victim = tmp_path / "victim"
    with sqlite3.connect(victim) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = victim.read_bytes()
    path = cache / name
    path.unlink(missing_ok=True)
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to(victim)
        case _:
            path.mkdir()
    backend = DiskBackend.__new__(DiskBackend)
    with contextlib.suppress(BackendError):
        backend.__init__(cache)  # type: ignore[misc]
        with contextlib.suppress(OSError):
            backend.put_many({THREE: b"three"})
        with contextlib.suppress(OSError):
            backend.touch_many({ONE: 1}, 2e9)
        assert backend.get_many([ONE])[ONE] == b"one"
        assert {entry.key for entry in backend.scan()} >= {ONE, TWO}
        backend.close()
    assert victim.read_bytes() == before
    assert not [*tmp_path.glob("victim-*")]


def test_a_link_in_the_place_of_the_uses_is_replaced(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").touch()
    (cache / "usage.db").symlink_to(tmp_path / "victim")
    backend = DiskBackend(cache)
    backend.touch_many({ONE: 3}, 2e9)
    assert [entry.hits for entry in backend.scan() if entry.key == ONE] == [3]
    backend.close()
    assert (tmp_path / "victim").read_bytes() == b""


@pytest.mark.parametrize("table", ["notes", "usage"])
@pytest.mark.parametrize(
    "statement",
    [
        (
            "CREATE TRIGGER theirs AFTER INSERT ON {} BEGIN DELETE FROM usage WHERE hits IN "  # noqa: S608
            f"(WITH RECURSIVE {ENDLESS} SELECT x FROM r WHERE x < 0); END"
        ),
        "DROP TABLE {}",
        "CREATE TABLE theirs (x)",
    ],
)
def test_uses_in_tables_that_are_not_ours_are_thrown_away(
    cache: Path, table: str, statement: str
) -> None:
    backend = DiskBackend(cache)
    backend.touch_many({ONE: 1}, 2e9)
    backend.delete_many([THREE])
    backend.close()
    with sqlite3.connect(cache / "usage.db") as connection:
        connection.execute(statement.format(table))
        if statement.startswith("DROP"):
            connection.execute(f"CREATE VIEW {table} AS WITH RECURSIVE {ENDLESS} SELECT x FROM r")  # noqa: S608
    connection.close()
    backend = DiskBackend(cache)
    assert [entry.hits for entry in backend.scan()] == [0, 0]
    backend.touch_many({ONE: 2}, 2e9)
    assert sorted(entry.hits for entry in backend.scan()) == [0, 2]
    backend.close()


def test_our_database_is_diskcaches(cache: Path) -> None:
    plain = diskcache.Cache(str(cache), eviction_policy="none", cull_limit=0)
    assert plain[ONE] == b"one"
    assert plain[TWO] == LARGE
    assert sorted(plain) == [ONE, TWO]
    with warnings.catch_warnings():
        warnings.simplefilter("always")  # it collects them itself
        found = {str(warning.message) for warning in plain.check()}
    assert found == {f"unknown file: {cache / 'lock'}"}
    plain.close()
