"""`kill -9` at any moment, and many processes at once: what a put returned from is there."""

import contextlib
import os
import random
import sqlite3
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cachedeval.testing.processes import Channel, ForkedProcess
from cachedeval_disk import DiskBackend

pytestmark = pytest.mark.slow

SIZES = (10, 1_000, 70_000)


def _value(number: int) -> bytes:
    return struct.pack("<q", number) * (SIZES[number % len(SIZES)] // 8)


def _key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def _put_for_ever(folder: Path, log: Path, first: int) -> Callable[[Channel], None]:
    """Put values, and write down after each put what it acknowledged."""

    def work(channel: Channel) -> None:
        acknowledged = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        backend = DiskBackend(folder)
        channel.send()
        number = first
        while True:
            some = range(number, number + 1 + number % 3)
            backend.put_many({_key(one): _value(one) for one in some})
            os.write(acknowledged, b"".join(struct.pack("<q", one) for one in some))
            number += len(some)
            if number % 7 == 0:
                backend.touch_many({_key(number - 1): 1}, 2e9)
            if number % 50 == 0:
                backend.close()

    return work


def _acknowledged(log: Path) -> list[int]:
    data = log.read_bytes() if log.exists() else b""
    return [number for (number,) in struct.iter_unpack("<q", data[: len(data) // 8 * 8])]


def test_killed_writers_lose_nothing_that_they_acknowledged(tmp_path: Path) -> None:
    folder, log, chance = tmp_path / "cache", tmp_path / "log", random.Random(3)
    held: set[int] = set()
    for kill in range(12):
        work = _put_for_ever(folder, log, 1_000_000 * kill)
        with ForkedProcess(work) as child:
            assert child.channel.receive()
            time.sleep(chance.uniform(0, 0.15))
            child.kill()
        held.update(_acknowledged(log))
        backend = DiskBackend(folder)
        found = backend.get_many([_key(number) for number in held])
        assert found == {_key(number): _value(number) for number in held}
        for entry in backend.scan():  # what was not acknowledged is there whole, or not at all
            number = int.from_bytes(entry.key, "big")
            assert backend.get_many([entry.key]) == {entry.key: _value(number)}
        backend.close()
    assert len(held) > 50
    # Orphans are only files: the rows are right, and the next prune removes them.
    backend = DiskBackend(folder)
    backend.delete_many([_key(number) for number in held if number % 2])
    files = {path.relative_to(folder).as_posix() for path in folder.glob("*/*/*.val")}
    connection = sqlite3.connect(folder / "cache.db")
    rows = connection.execute("SELECT filename FROM Cache WHERE filename IS NOT NULL")
    assert files == {name for (name,) in rows}
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    backend.close()


def test_a_killed_writer_disturbs_no_other(tmp_path: Path) -> None:
    folder, logs = tmp_path / "cache", [tmp_path / "one", tmp_path / "other"]
    with (
        ForkedProcess(_put_for_ever(folder, logs[0], 0)) as one,
        ForkedProcess(_put_for_ever(folder, logs[1], 1_000_000)) as other,
    ):
        assert one.channel.receive()
        assert other.channel.receive()
        reader = DiskBackend(folder)
        for _ in range(10):
            time.sleep(0.03)
            numbers = _acknowledged(logs[0]) + _acknowledged(logs[1])
            found = reader.get_many([_key(number) for number in numbers])
            assert found == {_key(number): _value(number) for number in numbers}
            one.kill()
        before = len(_acknowledged(logs[1]))
        time.sleep(0.1)
        other.kill()
    assert len(_acknowledged(logs[1])) > before
    numbers = _acknowledged(logs[0]) + _acknowledged(logs[1])
    assert len(reader.get_many([_key(number) for number in numbers])) == len(numbers)
    reader.close()


def test_an_orphan_is_swept_and_a_value_of_a_writer_at_work_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    backend = DiskBackend(folder)
    backend.put_many({_key(number): _value(number) for number in range(9)})
    orphan = folder / "ab" / "cd" / f"{'0' * 28}.val"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"orphan")
    stranger = folder / "ab" / "cd" / "README.md"
    stranger.touch()
    log = tmp_path / "log"
    with ForkedProcess(_put_for_ever(folder, log, 100)) as child:
        assert child.channel.receive()
        for number in range(9):
            time.sleep(0.02)
            assert backend.delete_many([_key(number)] * 3 + [_key(50 + number)]) == 1
        child.kill()
    numbers = _acknowledged(log)
    assert len(numbers) > 5
    found = backend.get_many([_key(number) for number in numbers])
    assert found == {_key(number): _value(number) for number in numbers}
    backend.delete_many([_key(number) for number in numbers])
    assert not orphan.exists()
    assert stranger.exists()
    backend.close()


def test_four_processes_create_it_at_once(tmp_path: Path) -> None:
    for attempt in range(5):
        folder = tmp_path / str(attempt)

        def work(channel: Channel, number: int, folder: Path = folder) -> None:
            backend = DiskBackend(folder)
            channel.receive()
            for step in range(3):
                backend.put_many({_key(10 * number + step): _value(number)})
                assert backend.get_many([_key(10 * number)]) == {_key(10 * number): _value(number)}
            backend.touch_many({_key(10 * number): 1}, 2e9)
            with backend.lease(_key(number)) as mine:
                assert mine
            backend.close()

        children = [ForkedProcess(lambda channel, n=n: work(channel, n)) for n in range(4)]  # type: ignore[misc]
        for child in children:
            child.channel.send()
        for child in children:
            with child:
                child.finish()
        backend = DiskBackend(folder)
        keys = [_key(10 * number + step) for number in range(4) for step in range(3)]
        assert len(backend.get_many(keys)) == 12
        assert sum(entry.hits for entry in backend.scan()) == 4
        backend.close()


def test_killed_while_it_is_created_it_is_created_by_the_next(tmp_path: Path) -> None:
    chance = random.Random(4)
    for attempt in range(15):
        folder = tmp_path / str(attempt)
        with ForkedProcess(_put_for_ever(folder, tmp_path / "log", 0)) as child:
            assert child.channel.receive()
            time.sleep(chance.uniform(0, 0.03))
            child.kill()
        backend = DiskBackend(folder)
        list(backend.scan())
        backend.put_many({_key(10**6): b"mine"})
        assert backend.get_many([_key(10**6)]) == {_key(10**6): b"mine"}
        backend.close()


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_threads_share_one_connection_and_leave_none_behind(tmp_path: Path) -> None:
    others = _count()
    backend = DiskBackend(tmp_path)
    backend.put_many({_key(0): b""})
    before = _count()
    for number in range(30):
        thread = threading.Thread(target=backend.put_many, args=({_key(number): b"x"},))
        thread.start()
        thread.join()
    assert _count() == before
    backend.close()
    assert _count() == others


def _count() -> int:
    """How many descriptors of the database this process has."""
    found = 0
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists the folder is gone
            found += "cache.db" in str(path.readlink())
    return found
