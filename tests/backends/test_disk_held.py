"""A cache that another program holds and does not let go: nobody waits for it twice."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cachedeval import Engine, node
from cachedeval.testing.processes import Channel, ForkedProcess
from cachedeval_disk import DiskBackend, database, patience
from cachedeval_disk.forks import Guard
from cachedeval_disk.patience import Patience

pytestmark = pytest.mark.slow

ONE, TWO, THREE = b"1" * 16, b"2" * 16, b"3" * 16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    backend = DiskBackend(folder)
    backend.put_many({ONE: b"one"})
    backend.touch_many({ONE: 1}, 2e9)
    backend.close()
    return folder


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_SILENCE", 0.1)


def stopped_in_a_put(folder: Path, channel: Channel) -> None:
    backend = DiskBackend(folder)
    with (
        backend._access._writing(exclusive=False) as writer,
        database.transaction(writer.connection),
    ):
        channel.send()
        channel.receive()


def stopped_in_a_prune(folder: Path, channel: Channel) -> None:
    with DiskBackend(folder)._access.exclusive():
        channel.send()
        channel.receive()


def a_database_browser(folder: Path, channel: Channel) -> None:
    connection = sqlite3.connect(folder / "cache.db", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    connection.execute("UPDATE Settings SET value = value")
    channel.send()
    channel.receive()
    connection.execute("ROLLBACK")
    connection.close()


HOLDERS = [stopped_in_a_put, stopped_in_a_prune, a_database_browser]


@contextlib.contextmanager
def held(holder: Callable[[Path, Channel], None], folder: Path) -> Iterator[ForkedProcess]:
    with ForkedProcess(lambda channel: holder(folder, channel)) as process:
        assert process.channel.receive()
        yield process


def release(process: ForkedProcess) -> None:
    process.channel.send()
    process.finish()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("holder", HOLDERS)
def test_only_the_first_write_waits_and_the_first_that_succeeds_ends_it(
    folder: Path, holder: Callable[[Path, Channel], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = DiskBackend(folder)
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        threading.Event().wait(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    with held(holder, folder) as process:
        with pytest.raises(TimeoutError, match="locked by another program that does not go on"):
            backend.put_many({TWO: b"two"})
        assert pauses
        for _ in range(5):
            pauses.clear()
            with pytest.raises(TimeoutError):
                backend.put_many({TWO: b"two"})
            assert not pauses
        assert backend.get_many([ONE, TWO]) == {ONE: b"one"}
        assert [entry.key for entry in backend.scan()] == [ONE]
        release(process)
    backend.put_many({TWO: b"two"})
    assert backend.get_many([ONE, TWO]) == {ONE: b"one", TWO: b"two"}
    backend.close()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("holder", HOLDERS)
def test_close_does_not_wait_for_it(folder: Path, holder: Callable[[Path, Channel], None]) -> None:
    backend = DiskBackend(folder)
    backend.put_many({TWO: b"two"})
    with held(holder, folder) as process:
        backend.close()
        release(process)
    backend = DiskBackend(folder)
    assert backend.get_many([ONE, TWO]) == {ONE: b"one", TWO: b"two"}
    backend.close()


@pytest.mark.usefixtures("impatient")
def test_uses_that_another_program_holds_are_left_alone(folder: Path) -> None:
    backend = DiskBackend(folder)
    other = sqlite3.connect(folder / "usage.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(TimeoutError):
        backend.touch_many({ONE: 1}, 2e9)
    assert [entry.key for entry in backend.scan()] == [ONE]
    backend.put_many({TWO: b"two"})
    assert backend.delete_many([TWO]) == 1
    other.execute("ROLLBACK")
    other.close()
    backend.touch_many({ONE: 1}, 2e9)
    assert [entry.hits for entry in backend.scan()] == [2]
    backend.close()


@node(version="1", name="next")
def following(x: int) -> int:
    return x + 1


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("holder", HOLDERS)
def test_a_run_goes_on_and_its_results_are_stored_when_it_answers(
    folder: Path, holder: Callable[[Path, Channel], None]
) -> None:
    with Engine(f"disk:{folder}") as engine:
        with held(holder, folder) as process:
            assert engine.run([following(following(following(0))), following(7)]) == [3, 8]
            assert engine.store.counts.errors["put"] > 1
            release(process)
        assert engine.run(following(20)) == 21
    with Engine(f"disk:{folder}", mode="offline") as engine:
        assert engine.run([following(following(following(0))), following(7)]) == [3, 8]
        assert engine.run(following(20)) == 21


def test_others_who_go_on_are_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    path.touch()
    alive = Patience(tmp_path, (path,), Guard)
    attempts: list[int] = []

    def attempt() -> bool:
        attempts.append(0)
        path.write_bytes(bytes(len(attempts)))  # the others have committed
        return len(attempts) == 20

    def fail() -> bool:
        attempts.append(0)
        return False

    alive.wait(attempt, 1e-9)
    assert len(attempts) == 20
    attempts.clear()
    with pytest.raises(TimeoutError):
        alive.wait(fail, 1e-9)
    assert len(attempts) == 1
    with pytest.raises(TimeoutError):
        alive.wait(fail, 1e-9)
    assert len(attempts) == 1  # not even tried again
    path.write_bytes(b"they have committed once more")
    with pytest.raises(TimeoutError):
        alive.wait(fail, 1e-9)
    assert len(attempts) == 2


WRITER = """
import sys
from cachedeval_disk import DiskBackend, patience
patience._SILENCE = 600.0
backend = DiskBackend(sys.argv[1])
wait = patience.Patience.wait
def noted(self, *arguments):
    print("waits", flush=True)
    wait(self, *arguments)
patience.Patience.wait = noted
try:
    backend.put_many({bytes(16): b"zero"})
except KeyboardInterrupt:
    patience.Patience.wait = wait
    backend.close()
    print("interrupted")
"""


@pytest.mark.parametrize("holder", HOLDERS)
def test_ctrl_c_ends_the_wait(folder: Path, holder: Callable[[Path, Channel], None]) -> None:
    with (
        held(holder, folder),
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        assert out.endswith("interrupted\n")


@pytest.mark.parametrize("holder", HOLDERS)
def test_close_and_fork_go_before_a_thread_that_waits(
    folder: Path, holder: Callable[[Path, Channel], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_SILENCE", 600.0)
    backend = DiskBackend(folder)
    with held(holder, folder) as process:
        waiting = threading.Event()
        wait = Patience.wait

        def noted(self: Patience, *arguments: Any) -> None:
            waiting.set()
            wait(self, *arguments)

        monkeypatch.setattr(Patience, "wait", noted)
        writer = threading.Thread(target=backend.put_many, args=({TWO: b"two"},))
        writer.start()
        assert waiting.wait(60)
        if (child := os.fork()) == 0:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        backend.close()
        assert writer.is_alive()
        release(process)
        writer.join(60)
        assert not writer.is_alive()
    assert backend.get_many([TWO]) == {TWO: b"two"}
    backend.close()


ENDLESS = (
    "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT x FROM r WHERE x < 0"
)


def test_a_query_that_does_not_end_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_LONGEST", 0.05)
    reader = Patience(folder, (), Guard)
    with contextlib.closing(database.connect_to_read(folder / "cache.db", reader)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            connection.execute(ENDLESS)
        assert connection.execute("SELECT count(*) FROM Cache").fetchall() == [(1,)]


QUERY = f"""
import sys
from pathlib import Path
from cachedeval_disk import database
from cachedeval_disk.forks import Guard
from cachedeval_disk.patience import Patience
folder = Path(sys.argv[1])
connection = database.connect_to_read(folder / "cache.db", Patience(folder, (), Guard))
database._LONGEST = 600.0
try:
    print("waits", flush=True)
    connection.execute({ENDLESS!r})
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_ends_a_query(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", QUERY, str(folder)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        assert out == "interrupted\n"
