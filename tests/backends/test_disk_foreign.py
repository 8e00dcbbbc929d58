"""A database that somebody else wrote: nothing in it runs, and nothing outside it is touched."""

import math
import os
import pickle
import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path

import diskcache
import pytest

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


def test_a_pickle_said_to_be_bytes_is_bytes(cache: Path, tmp_path: Path) -> None:
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
def test_columns_of_any_type_harm_nobody(cache: Path, column: str, value: object) -> None:
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


def test_a_trigger_in_the_database_removes_no_file(cache: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.touch()
    trigger = "CREATE TRIGGER theirs AFTER INSERT ON Cache BEGIN UPDATE Cache SET {}, mode = 2; END"
    _execute(cache, trigger.format(f"filename = '{precious}'"))
    backend = DiskBackend(cache)
    backend.put_many({THREE: b"three"})
    assert backend.get_many([ONE, TWO, THREE]) == dict.fromkeys([ONE, TWO, THREE], b"")
    assert backend.delete_many([ONE, TWO, THREE]) == 3
    backend.close()
    assert precious.exists()


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
