import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diskcache
import pytest

from cachedeval.engine.backend import Backend
from cachedeval.engine.errors import BackendError, InputError
from cachedeval.testing import BackendContract
from cachedeval.testing.processes import Channel, ForkedProcess
from cachedeval_disk import DiskBackend, open_url, reader
from cachedeval_disk.writer import row_size

ONE, TWO = b"1" * 16, b"2" * 16
LARGE = b"large" * 20_000


class TestContract(BackendContract):
    def open_backend(self, place: Path) -> Backend:
        return DiskBackend(place / "cache")


@pytest.mark.parametrize(
    "name", ["with space", "🧪 späth", "what?mode=memory#x%20y", "~", "$HOME", "a;b'c\"d&e", "-x"]
)
def test_any_name_is_a_folder(name: str, tmp_path: Path) -> None:
    backend = DiskBackend(tmp_path / name)
    backend.put_many({ONE: b"one", TWO: LARGE})
    backend.touch_many({ONE: 1}, 1e10)
    assert backend.get_many([ONE, TWO]) == {ONE: b"one", TWO: LARGE}
    assert sorted(entry.hits for entry in backend.scan()) == [0, 1]
    backend.close()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    backend = open_url("~/deep/cache")
    backend.put_many({ONE: b"one"})
    backend.close()
    assert (tmp_path / "deep/cache/cache.db").is_file()


def test_a_relative_folder_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    backend = open_url("cache")
    monkeypatch.chdir("/")
    backend.put_many({ONE: b"one"})
    assert backend.get_many([ONE])
    backend.close()
    assert (tmp_path / "cache/cache.db").is_file()


@pytest.mark.parametrize("rest", ["", "a\0b"])
def test_no_folder_is_refused(rest: str) -> None:
    with pytest.raises(InputError, match="give a folder"):
        open_url(rest)


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is not a folder"):
        open_url(str(tmp_path / "file"))


def test_a_folder_that_cannot_be_found_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="disk:~nobody-of-this-name/cache"):
        open_url("~nobody-of-this-name/cache")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(InputError, match="circle"):
        open_url(str(tmp_path / "circle"))


def test_a_linked_folder_is_the_same_cache(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    link.symlink_to(real)  # to nothing yet
    one, other = DiskBackend(link), DiskBackend(real)
    one.put_many({ONE: b"one", TWO: LARGE})
    assert other.get_many([ONE, TWO]) == one.get_many([ONE, TWO]) == {ONE: b"one", TWO: LARGE}
    with one.lease(ONE) as mine, other.lease(ONE) as second:
        assert (mine, second) == (True, False)
    one.close()
    other.close()


def test_nothing_is_made_before_it_is_needed(tmp_path: Path) -> None:
    backend = DiskBackend(tmp_path / "cache")
    assert backend.get_many([ONE]) == {}
    assert list(backend.scan()) == []
    assert backend.delete_many([ONE]) == 0
    backend.touch_many({ONE: 1}, 1.0)
    backend.close()
    assert not (tmp_path / "cache").exists()


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        backend = DiskBackend(tmp_path / "cache")
        backend.put_many({ONE: b"one", TWO: LARGE})
        backend.touch_many({ONE: 1}, 1e10)
        paths = [tmp_path / "cache", *(tmp_path / "cache").rglob("*")]
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in paths}
    finally:
        os.umask(before)
    backend.close()
    assert {modes.pop(path) for path in paths if path.is_dir()} == {0o700}
    names = {path.name for path in modes}
    assert {"cache.db", "cache.db-wal", "cache.db-shm", "usage.db", "lock"} < names
    assert set(modes.values()) == {0o600}


def test_a_folder_that_was_there_keeps_its_permissions(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    backend = DiskBackend(tmp_path)
    backend.put_many({ONE: b"one"})
    backend.close()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_reading_needs_little(tmp_path: Path) -> None:
    backend = DiskBackend(tmp_path)
    backend.put_many({ONE: b"one", TWO: LARGE})
    backend.close()
    script = (
        "import sys; from cachedeval_disk import open_url; backend = open_url(sys.argv[1]);"
        "assert len(backend.get_many([b'1' * 16, b'2' * 16, b'3' * 16])) == 2;"
        "print(sorted({'diskcache', 'pickle', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_values_and_keys_are_bytes_and_nothing_else(tmp_path: Path) -> None:
    backend = DiskBackend(tmp_path)
    bad: list[dict[object, object]] = [
        {ONE: "text"},
        {ONE: 1},
        {ONE: {}},
        {"text": b""},
        {1: b""},
        {(1,): b""},
    ]
    for items in bad:
        with pytest.raises(TypeError, match="is bytes, not"):
            backend.put_many({TWO: LARGE, **items})  # type: ignore[dict-item]
    assert backend.get_many([ONE, TWO]) == {}
    assert list(tmp_path.glob("*/*/*")) == []  # what was written before the error is gone
    backend.put_many({ONE: b"one"})
    assert backend.get_many([ONE]) == {ONE: b"one"}
    backend.close()


def test_a_closed_backend_opens_again(tmp_path: Path) -> None:
    backend = DiskBackend(tmp_path)
    backend.put_many({ONE: b"one"})
    backend.close()
    assert backend.get_many([ONE]) == {ONE: b"one"}
    backend.put_many({TWO: b"two"})
    backend.close()
    assert not list(tmp_path.glob("*-wal"))


def test_a_forked_child_goes_on_by_itself(tmp_path: Path) -> None:
    backend = DiskBackend(tmp_path)
    backend.put_many({ONE: b"one"})

    def work(channel: Channel) -> None:
        with backend.lease(ONE) as mine, backend.lease(TWO) as other:
            assert not mine  # the parent's
            assert other
            assert backend.get_many([ONE]) == {ONE: b"one"}
            backend.put_many({TWO: b"two"})
        lease.__exit__(None, None, None)  # inherited, and not the child's to end
        channel.send()
        backend.close()

    lease = backend.lease(ONE)
    assert lease.__enter__()
    with ForkedProcess(work) as child:
        assert child.channel.receive()
        child.finish()
    with contextlib.closing(DiskBackend(tmp_path)) as other, other.lease(ONE) as second:
        assert not second
    assert _leased_elsewhere(tmp_path)
    assert backend.get_many([ONE, TWO]) == {ONE: b"one", TWO: b"two"}
    backend.put_many({ONE: b"new"})
    assert backend.get_many([ONE]) == {ONE: b"new"}
    lease.__exit__(None, None, None)
    assert not _leased_elsewhere(tmp_path)
    backend.close()


def _leased_elsewhere(folder: Path) -> bool:
    def ask(channel: Channel) -> None:
        with DiskBackend(folder).lease(ONE) as mine:
            channel.send(b"n" if mine else b"y")

    with ForkedProcess(ask) as child:
        return child.channel.receive() == b"y"


@pytest.mark.parametrize("stamp", [0x02020202, 0x7F7F7F7F])
def test_a_newer_versions_cache_is_left_alone(stamp: int, tmp_path: Path) -> None:
    backend = DiskBackend(tmp_path)
    backend.put_many({ONE: b"one"})
    backend.close()
    _stamp(tmp_path, "user_version", stamp)
    before = (tmp_path / "cache.db").read_bytes()
    with pytest.raises(BackendError, match="written by a newer version"):
        DiskBackend(tmp_path)
    for use in (lambda: backend.get_many([ONE]), lambda: backend.put_many({TWO: b"two"})):
        with pytest.raises(BackendError, match="written by a newer version"):
            use()
    backend.close()
    assert (tmp_path / "cache.db").read_bytes() == before


def test_a_damaged_stamp_is_not_a_newer_version(tmp_path: Path) -> None:
    for name, value in (("user_version", 0x01010501), ("application_id", 77), ("user_version", 9)):
        backend = DiskBackend(tmp_path / name)
        backend.put_many({ONE: b"one"})
        backend.close()
        _stamp(tmp_path / name, name, value)
        backend = DiskBackend(tmp_path / name)
        assert backend.get_many([ONE]) == {ONE: b"one"}
        backend.put_many({TWO: b"two"})
        backend.close()


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    cache = diskcache.Cache(str(tmp_path))
    cache["theirs"] = 1
    cache.close()
    before = (tmp_path / "cache.db").read_bytes()
    with pytest.raises(BackendError, match="is not a cache of cachedeval's"):
        DiskBackend(tmp_path)
    assert (tmp_path / "cache.db").read_bytes() == before


def test_a_database_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cache.db")
    with pytest.raises(BackendError, match="not a regular file"):
        DiskBackend(tmp_path)


def _stamp(folder: Path, name: str, value: int) -> None:
    connection = sqlite3.connect(folder / "cache.db")
    connection.execute(f"PRAGMA {name} = {value}")
    connection.close()


def test_what_is_deleted_while_it_is_read_is_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = DiskBackend(tmp_path)
    backend.put_many({ONE: LARGE, TWO: b"two"})
    reader = backend._reader
    select = reader._select

    def slowly(connection: sqlite3.Connection, query: str, keys: Sequence[bytes]) -> Any:
        found = select(connection, query, keys)
        DiskBackend(tmp_path).delete_many([ONE])
        return found

    monkeypatch.setattr(reader, "_select", slowly)
    assert backend.get_many([ONE, TWO]) == {TWO: b"two"}


def test_sizes_are_the_same_in_the_database_and_outside() -> None:
    query = f"SELECT {reader._SIZE} FROM (SELECT ? AS v, ? AS filename)"  # noqa: S608
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for size in [*range(0, 70_000, 7), *range(4000, 4200), *range(8000, 8400)]:
            for name in (None, "file"):
                ((found,),) = connection.execute(query, (size, name)).fetchall()
                assert found == row_size(size, in_file=name is not None)
