"""Backends on both sides of a fork, used directly. Every child is a real one."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from support.forked import Fork, fork_quietly, forked, wait_for

from cachedeval import open_backend
from cachedeval.engine.backend import Backend

pytestmark = pytest.mark.slow

ONE, TWO = b"1" * 16, b"2" * 16


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def items(start: int, stop: int, size: int = 100) -> dict[bytes, bytes]:
    return {key(n): n.to_bytes(8, "big") * (size // 8) for n in range(start, stop)}


def check(folder: Path, *expected: Mapping[bytes, bytes]) -> None:
    """Check in a process of its own that the folder is sound and holds what it must."""

    def work() -> None:
        with closing(open_backend(f"disk:{folder}")) as backend:
            for some in expected:
                found = backend.get_many([*some])
                assert len(found) == len(some), f"{len(found)} of {len(some)} are held"
                assert found == dict(some)
        with closing(sqlite3.connect(folder / "cache.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert not list(folder.glob("*damaged*"))

    with forked(work):
        pass


class Gate:
    """Lets one process wait for another."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def open(self) -> None:
        os.write(self._write, b".")

    def wait(self) -> None:
        assert os.read(self._read, 1) == b"."


@pytest.fixture(params=["disk", "memory"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    url = "memory:" if request.param == "memory" else f"disk:{tmp_path / 'cache'}"
    with closing(open_backend(url)) as opened:
        yield opened


@pytest.mark.parametrize("closes", [False, True], ids=["exits", "closes"])
@pytest.mark.parametrize("size", [100, 200_000], ids=["rows", "files"])
def test_what_a_child_stores_outlives_the_parents_close(
    tmp_path: Path, size: int, *, closes: bool
) -> None:
    backend = open_backend(f"disk:{tmp_path}")
    backend.put_many(items(0, 20, size))
    assert len(backend.get_many([key(n) for n in range(20)])) == 20
    stored, closed = Gate(), Gate()

    def work() -> None:
        backend.put_many(items(100, 110, size))
        stored.open()
        closed.wait()
        for n in range(1000, 1020, 5):
            backend.put_many(items(n, n + 5, size))
            assert len(backend.get_many([key(0), key(n)])) == 2
        if closes:
            backend.close()

    with forked(work):
        stored.wait()
        assert len(backend.get_many([*items(100, 110)])) == 10
        backend.close()
        closed.open()
    expected = items(0, 20, size) | items(100, 110, size) | items(1000, 1020, size)
    check(tmp_path, expected)
    assert backend.get_many([*expected]) == expected
    backend.close()


WRITER = """
import sys
from cachedeval import open_backend
backend = open_backend(sys.argv[1])
for k in range(60):
    backend.put_many({(5000 + k * 5 + j).to_bytes(16, "big"): b"third" * 4000 for j in range(5)})
backend.close()
"""


def test_a_child_its_parent_and_a_third_process_write_at_once(tmp_path: Path) -> None:
    for trial in range(3):
        folder = tmp_path / str(trial)
        backend = open_backend(f"disk:{folder}")
        backend.put_many(items(0, 50, 20_000))
        stored, closed = Gate(), Gate()

        def work(backend: Backend = backend, stored: Gate = stored, closed: Gate = closed) -> None:
            backend.put_many(items(100, 150, 20_000))
            stored.open()
            closed.wait()
            for n in range(1000, 1200, 5):
                backend.put_many(items(n, n + 5, 20_000))

        with forked(work):
            stored.wait()
            backend.close()
            closed.open()
            third = subprocess.Popen([sys.executable, "-c", WRITER, f"disk:{folder}"])
            for n in range(2000, 2100, 5):
                backend.put_many(items(n, n + 5, 20_000))
                backend.close()
            assert third.wait(60) == 0
        check(
            folder,
            items(0, 50, 20_000),
            items(100, 150, 20_000),
            items(1000, 1200, 20_000),
            items(2000, 2100, 20_000),
            {key(5000 + n): b"third" * 4000 for n in range(300)},
        )


def test_many_children_and_their_children(tmp_path: Path) -> None:
    backend = open_backend(f"disk:{tmp_path}")
    backend.put_many(items(0, 10))

    def work(number: int, depth: int) -> None:
        assert len(backend.get_many([*items(0, 10)])) == 10
        backend.put_many(items(number * 10, number * 10 + 10))
        if depth:
            with forked(lambda: work(number + 100, depth - 1)):
                backend.put_many(items(number * 10 + 5000, number * 10 + 5010))

    children = []
    for number in range(1, 9):
        children.append(Fork(lambda number=number: work(number, 2)))  # type: ignore[misc]
        backend.put_many(items(number * 10 + 9000, number * 10 + 9010))
    for child in children:
        child.join()
    backend.close()
    for number in range(1, 9):
        for depth in range(3):
            start = number * 10 + depth * 1000
            check(tmp_path, items(start, start + 10))
        check(tmp_path, items(number * 10 + 9000, number * 10 + 9010))
        check(tmp_path, items(number * 10 + 6000, number * 10 + 6010))


def test_a_fork_while_other_threads_read_and_write(backend: Backend) -> None:
    stop = threading.Event()
    errors: list[BaseException] = []

    def busy(start: int) -> None:
        try:
            number = start
            while not stop.is_set():
                backend.put_many(items(number, number + 3, 1000))
                assert backend.get_many([key(number)])
                backend.touch_many({key(number): 1}, time.time())
                with backend.lease(key(number)) as mine:
                    assert mine
                backend.delete_many([key(number + 1)])
                list(backend.scan())
                number += 3 if number < start + 300 else -300
        except BaseException as error:  # noqa: BLE001  raised below
            errors.append(error)

    threads = [threading.Thread(target=busy, args=(n * 10_000,)) for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(20):

            def work(number: int = number) -> None:
                for n in range(100_000 + number * 10, 100_000 + number * 10 + 5):
                    backend.put_many({key(n): b"child"})
                    assert backend.get_many([key(n)]) == {key(n): b"child"}
                    with backend.lease(key(n)) as mine:
                        assert mine
                    backend.touch_many({key(n): 1}, time.time())
                    backend.delete_many([key(n)])
                list(backend.scan())

            with forked(work):
                pass
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not errors, errors
    assert not any(thread.is_alive() for thread in threads)


class Slow(dict[bytes, bytes]):
    """A mapping whose own code is in no hurry."""

    def __init__(self, values: Mapping[bytes, bytes], reached: Any, goes_on: Any) -> None:
        super().__init__(values)
        self._reached, self._goes_on = reached, goes_on

    def _wait(self) -> None:
        self._reached.set()
        assert self._goes_on.wait(60)

    def keys(self) -> Any:
        self._wait()
        return super().keys()

    def items(self) -> Any:
        self._wait()
        return super().items()

    def __iter__(self) -> Iterator[bytes]:
        self._wait()
        return super().__iter__()


def test_a_fork_while_a_put_waits_for_its_items(backend: Backend) -> None:
    backend.put_many(items(0, 10))
    reached, goes_on = threading.Event(), threading.Event()
    slow = Slow({ONE: b"one"}, reached, goes_on)
    thread = threading.Thread(target=lambda: backend.put_many(slow))
    thread.start()
    reached.wait(60)

    def work() -> None:
        for n in range(100, 105):
            backend.put_many({key(n): b"child"})
        assert len(backend.get_many([key(n) for n in range(100, 105)])) == 5

    with forked(work):
        goes_on.set()
    thread.join(60)
    backend.put_many({TWO: b"two"})
    assert backend.get_many([ONE, TWO]) == {ONE: b"one", TWO: b"two"}


def test_a_signal_handler_may_fork_in_the_middle_of_an_operation(backend: Backend) -> None:
    """Whatever the handler cuts in two works out on both sides, or is repeated."""
    seed = random.Random(7)
    parent, children, forking = os.getpid(), list[int](), list[bool]()

    def handle(_: int, __: FrameType | None) -> None:
        # Not within itself: the hooks of Python's own modules do not allow that.
        signal.setitimer(signal.ITIMER_REAL, 0)
        if os.getpid() == parent and len(children) < 25 and not forking:
            forking.append(True)
            children.append(fork_quietly())
            forking.clear()

    def use() -> None:
        some = {(key := os.urandom(16)): key * 2 for _ in range(20)}
        backend.put_many(some)
        assert backend.get_many([*some]) == some
        backend.touch_many(dict.fromkeys(some, 1), 1e9)
        backend.delete_many([b"not there"])
        assert some.keys() <= {entry.key for entry in backend.scan()}

    before = signal.signal(signal.SIGALRM, handle)
    status = 1
    try:
        deadline = time.monotonic() + 60
        while os.getpid() == parent and len(children) < 25:
            assert time.monotonic() < deadline
            signal.setitimer(signal.ITIMER_REAL, seed.uniform(0.0001, 0.01))
            use()
        if os.getpid() != parent:
            for _ in range(3):
                use()
        status = 0
    finally:
        if os.getpid() != parent:
            os._exit(status)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    use()
    assert [wait_for(pid) for pid in children] == [0] * 25


def test_a_lease_stays_its_processs_over_a_fork(tmp_path: Path) -> None:
    backend = open_backend(f"disk:{tmp_path}")
    lease = backend.lease(ONE)
    assert lease.__enter__()

    def leave() -> None:
        lease.__exit__(None, None, None)  # not this process's to end
        with backend.lease(ONE) as mine, backend.lease(TWO) as other:
            assert (mine, other) == (False, True)
        backend.close()

    for _ in range(3):
        with forked(leave):
            pass
        with forked(backend.close):
            pass
    with backend.lease(ONE) as mine:
        assert not mine

    def ask() -> None:
        with open_backend(f"disk:{tmp_path}").lease(ONE) as mine:
            assert not mine

    with forked(ask):
        pass
    lease.__exit__(None, None, None)
    with forked(lambda: _take(backend)):
        pass
    backend.close()


def _take(backend: Backend) -> None:
    with backend.lease(ONE) as mine:
        assert mine


def test_a_lease_ends_with_its_process_though_a_child_lives_on(tmp_path: Path) -> None:
    backend = open_backend(f"disk:{tmp_path}")
    alive, end = Gate(), Gate()

    def middle() -> None:
        with backend.lease(ONE) as mine:
            assert mine

            def inner() -> None:
                alive.open()
                end.wait()

            Fork(inner)
            time.sleep(60)

    child = Fork(middle)
    alive.wait()
    with backend.lease(ONE) as mine:
        assert not mine
    child.kill()
    try:
        with backend.lease(ONE) as mine:
            assert mine
    finally:
        end.open()
    backend.close()


def test_a_lease_that_a_child_takes_ends_with_the_child(tmp_path: Path) -> None:
    backend = open_backend(f"disk:{tmp_path}")
    taken = Gate()

    def work() -> None:
        assert backend.lease(ONE).__enter__()
        taken.open()
        time.sleep(60)

    child = Fork(work)
    taken.wait()
    with backend.lease(ONE) as mine:
        assert not mine
    child.kill()
    with backend.lease(ONE) as mine:
        assert mine
    backend.close()


def test_in_memory_a_child_goes_on_with_a_copy() -> None:
    backend = open_backend("memory:")
    backend.put_many({ONE: b"one"})
    taken, end = threading.Event(), threading.Event()

    def hold() -> None:
        with backend.lease(TWO) as mine:
            assert mine
            taken.set()
            assert end.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait(60)

    def work() -> None:
        with backend.lease(ONE) as lease_of_this_thread, backend.lease(TWO) as of_another:
            assert (lease_of_this_thread, of_another) == (True, True)
        backend.put_many({ONE: b"new"})
        backend.close()

    with backend.lease(ONE) as mine:
        assert mine
        with forked(work):
            pass
        with backend.lease(ONE) as second, backend.lease(TWO) as third:
            assert (second, third) == (False, False)
    end.set()
    thread.join(60)
    assert backend.get_many([ONE]) == {ONE: b"one"}


def test_no_descriptor_of_a_database_reaches_a_child(tmp_path: Path) -> None:
    backend = open_backend(f"disk:{tmp_path}")
    backend.put_many({ONE: b"one"})
    backend.get_many([ONE])
    lease = backend.lease(ONE)
    assert lease.__enter__()

    def work() -> None:
        links = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        assert not [link for link in links if link.is_relative_to(tmp_path)]

    if Path("/proc/self/fd").exists():
        with forked(work):
            pass
    lease.__exit__(None, None, None)
    backend.close()


def test_one_thread_forks_while_another_opens_backends(tmp_path: Path) -> None:
    stop = threading.Event()
    errors: list[BaseException] = []

    def busy() -> None:
        try:
            number = 0
            while not stop.is_set():
                with closing(open_backend(f"disk:{tmp_path / str(number % 3)}")) as backend:
                    backend.put_many({ONE: b"one"})
                    assert backend.get_many([ONE]) == {ONE: b"one"}
                number += 1
        except BaseException as error:  # noqa: BLE001  raised below
            errors.append(error)

    def work() -> None:
        for number in range(3):
            with closing(open_backend(f"disk:{tmp_path / str(number)}")) as backend:
                backend.put_many({TWO: b"two"})
                assert backend.get_many([TWO]) == {TWO: b"two"}

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        with forked(work):
            pass
    stop.set()
    for thread in threads:
        thread.join(60)
    assert not errors, errors


def test_two_threads_fork_at_once(tmp_path: Path) -> None:
    backend = open_backend(f"disk:{tmp_path}")
    errors: list[BaseException] = []

    def forks(start: int) -> None:
        try:
            for n in range(start, start + 10):
                with forked(lambda n=n: backend.put_many({key(n): b"child"})):  # type: ignore[misc]
                    backend.put_many({key(n + 1000): b"parent"})
        except BaseException as error:  # noqa: BLE001  raised below
            errors.append(error)

    threads = [threading.Thread(target=forks, args=(n * 100,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert not errors, errors
    for start in (0, 100, 200):
        check(tmp_path, {key(n): b"child" for n in range(start, start + 10)})
        check(tmp_path, {key(n + 1000): b"parent" for n in range(start, start + 10)})
    backend.close()
