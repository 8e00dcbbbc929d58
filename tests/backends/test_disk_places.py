"""Folders that are read-only, full, or gone."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.places import read_only, small_disk

from cachedeval.testing.processes import Channel, ForkedProcess
from cachedeval_disk import DiskBackend

ONE, TWO = b"1" * 16, b"2" * 16
LARGE = b"large" * 20_000
FULL = r"disk is full|No space left|disk I/O error"


def test_a_read_only_folder_is_read(tmp_path: Path) -> None:
    backend = DiskBackend(tmp_path)
    backend.put_many({ONE: b"one", TWO: LARGE})
    backend.touch_many({ONE: 3}, 2e9)
    backend.close()
    with read_only(tmp_path):
        backend = DiskBackend(tmp_path)
        assert backend.get_many([ONE, TWO]) == {ONE: b"one", TWO: LARGE}
        assert sorted(entry.hits for entry in backend.scan()) == [0, 3]
        for use in (
            lambda: backend.put_many({TWO: b"two"}),
            lambda: backend.delete_many([ONE]),
            lambda: backend.touch_many({ONE: 1}, 2e9),
            lambda: backend.lease(ONE).__enter__(),
        ):
            with pytest.raises(OSError, match=r"Read-only|Permission") as raised:
                use()
            assert raised.value.errno in (errno.EROFS, errno.EACCES)
        assert backend.get_many([ONE, TWO]) == {ONE: b"one", TWO: LARGE}
        backend.close()
    backend.put_many({TWO: b"two"})
    assert backend.get_many([TWO]) == {TWO: b"two"}
    backend.close()


def test_a_read_only_folder_in_use_is_read(tmp_path: Path) -> None:
    real, view = tmp_path / "real", tmp_path / "view"
    view.mkdir()
    writer = DiskBackend(real)
    writer.put_many({ONE: b"one"})
    with read_only(view):  # skips where mounting is not permitted
        pass
    if os.geteuid() != 0:
        pytest.skip("a read-only view of a folder in use needs a mount")
    subprocess.run(["mount", "--bind", str(real), str(view)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(view)], check=True)
        reader = DiskBackend(view)
        assert reader.get_many([ONE, TWO]) == {ONE: b"one"}
        writer.put_many({TWO: LARGE})
        assert reader.get_many([ONE, TWO]) == {ONE: b"one", TWO: LARGE}
        reader.close()
    finally:
        subprocess.run(["umount", "-l", str(view)], check=True)
    writer.close()


def test_another_users_folder_is_an_error_and_no_more(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs two users")
    folder = tmp_path / "cache"
    backend = DiskBackend(folder)
    backend.put_many({ONE: b"one"})
    backend.close()
    script = (
        "import os, sys\n"
        "from cachedeval_disk import DiskBackend\n"
        "os.chdir(sys.argv[1]); os.setgid(65534); os.setuid(65534)\n"
        "backend = DiskBackend('cache')\n"
        "for use in (lambda: backend.get_many([b'1' * 16]), lambda: backend.put_many({b'': b''}),\n"
        "            lambda: list(backend.scan()), lambda: backend.lease(b'1' * 16).__enter__()):\n"
        "    try:\n"
        "        use()\n"
        "    except PermissionError:\n"
        "        print('no')\n"
        "backend.close()\n"
    )
    for path in (tmp_path, *tmp_path.parents[:2]):
        if path.stat().st_uid == os.geteuid() and path.name.startswith(("pytest", "test")):
            path.chmod(0o711)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "no\n" * 4


def test_a_full_disk_is_an_error_and_keeps_what_it_had(tmp_path: Path) -> None:
    with small_disk(tmp_path, "1m"):
        filler = tmp_path / "filler"
        filler.write_bytes(b"x" * 200_000)
        backend = DiskBackend(tmp_path / "cache")
        kept: dict[bytes, bytes] = {}
        with pytest.raises((OSError, sqlite3.OperationalError), match=FULL):
            _fill(backend, kept)
        assert len(kept) > 10
        assert backend.get_many(list(kept)) == kept
        for value in (LARGE * 10, b"x" * 60_000):  # in a file, and in a row
            with pytest.raises((OSError, sqlite3.OperationalError), match=FULL):
                backend.put_many({ONE: b"one", TWO: value})
        assert backend.get_many([ONE, TWO]) == {}
        assert not list((tmp_path / "cache").glob("*/*/*"))  # nothing half written is left
        assert backend.get_many(list(kept)) == kept
        with backend.lease(ONE) as mine:
            assert mine
        backend.close()
        backend = DiskBackend(tmp_path / "cache")
        assert backend.get_many([*kept, ONE]) == kept

        filler.unlink()
        backend.put_many({ONE: b"one"})
        gone = list(kept)[: len(kept) // 2]
        assert backend.delete_many(gone) == len(gone)
        left = {key: value for key, value in kept.items() if key not in gone}
        assert backend.get_many([*kept, ONE]) == {**left, ONE: b"one"}
        backend.close()
        backend = DiskBackend(tmp_path / "cache")
        assert backend.get_many([*kept, ONE]) == {**left, ONE: b"one"}
        backend.close()


def _fill(backend: DiskBackend, kept: dict[bytes, bytes]) -> None:
    for number in range(2000):
        item = {number.to_bytes(16, "big"): b"%d" % number * 300}
        backend.put_many(item)
        kept.update(item)


def test_a_disk_that_is_full_at_once_is_an_error(tmp_path: Path) -> None:
    with small_disk(tmp_path, "64k"):
        (tmp_path / "filler").write_bytes(b"x" * 40_000)
        backend = DiskBackend(tmp_path / "cache")
        for _ in range(2):
            with pytest.raises((OSError, sqlite3.OperationalError), match=FULL):
                backend.put_many({ONE: b"one"})
            assert backend.get_many([ONE]) == {}
            assert list(backend.scan()) == []
        backend.close()


def test_a_removed_folder_is_made_again_whole(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    backend = DiskBackend(folder)
    for number in range(3):
        with backend.lease(ONE) as mine:
            assert mine
            backend.put_many({ONE: b"one", TWO: LARGE})
            backend.touch_many({ONE: 1}, 2e9)
            assert len(backend.get_many([ONE, TWO])) == 2
            shutil.rmtree(folder)
            time.sleep(0.02)  # so long, what is read need not be looked for anew
            assert backend.get_many([ONE, TWO]) == {}
            assert list(backend.scan()) == []
            assert backend.delete_many([ONE]) == 0
            backend.touch_many({ONE: 1}, 2e9)
            assert not folder.exists()
        if number == 1:
            backend.close()
        backend.put_many({TWO: b"two"})
        assert backend.get_many([ONE, TWO]) == {TWO: b"two"}
        other = DiskBackend(folder)
        assert other.get_many([ONE, TWO]) == {TWO: b"two"}
        with backend.lease(ONE) as mine, other.lease(ONE) as second:
            assert (mine, second) == (True, False)
        other.put_many({ONE: LARGE})
        assert backend.get_many([ONE, TWO]) == {ONE: LARGE, TWO: b"two"}
        other.close()
    backend.close()


def test_a_folder_that_is_moved_away_and_back_is_still_the_cache(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    backend = DiskBackend(folder)
    backend.put_many({ONE: b"one"})
    folder.rename(tmp_path / "away")
    assert backend.get_many([ONE]) == {}
    backend.put_many({TWO: b"two"})
    shutil.rmtree(folder)
    (tmp_path / "away").rename(folder)
    assert backend.get_many([ONE, TWO]) == {ONE: b"one"}
    backend.put_many({TWO: b"two"})
    assert backend.get_many([ONE, TWO]) == {ONE: b"one", TWO: b"two"}
    backend.close()


def test_a_folder_removed_repeatedly_causes_no_hang_or_crash(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    until = time.monotonic() + 2

    def work(channel: Channel) -> None:
        backend = DiskBackend(folder)
        number = 0
        while time.monotonic() < until:
            number += 1
            key = number.to_bytes(16, "big")
            try:
                with backend.lease(key):
                    backend.put_many({key: b"x", ONE: LARGE})
                    assert backend.get_many([key]) in ({}, {key: b"x"})
                    backend.touch_many({key: 1}, 2e9)
            except (OSError, sqlite3.Error) as error:
                # What it was doing failed with the folder. Nothing is damaged by it.
                assert "malformed" not in str(error)  # noqa: PT017
        channel.send()

    with ForkedProcess(work) as one, ForkedProcess(work) as two:
        removing = threading.Event()
        while time.monotonic() < until:
            shutil.rmtree(folder, ignore_errors=True)
            removing.wait(0.01)
        for child in (one, two):
            assert child.channel.receive()
            child.finish()
    shutil.rmtree(folder, ignore_errors=True)
    backend = DiskBackend(folder)
    backend.put_many({ONE: LARGE})
    assert backend.get_many([ONE]) == {ONE: LARGE}
    backend.close()


def test_no_value_is_written_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / "ab").symlink_to(elsewhere)
    (folder / "cd").mkdir()
    (folder / "cd" / "00").symlink_to(elsewhere)
    names = iter([b"\xab" * 16, b"\xcd\x00" * 8, b"\x12" * 16])
    with monkeypatch.context() as patch:
        patch.setattr("cachedeval_disk.files.os.urandom", lambda _: next(names))
        backend = DiskBackend(folder)
        backend.put_many({ONE: LARGE})
    assert backend.get_many([ONE]) == {ONE: LARGE}
    assert not list(elsewhere.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr("cachedeval_disk.files.os.urandom", lambda _: b"\xab" * 16)
        with pytest.raises(OSError, match="are links"):
            backend.put_many({TWO: LARGE})
    assert backend.get_many([ONE, TWO]) == {ONE: LARGE}
    assert not list(elsewhere.iterdir())
    backend.close()
