"""Checks of several users at a time: threads, handles and processes.

`ForkedProcess` and `Channel` also serve the tests of a backend that need a second process.
"""

import os
import select
import signal
import threading
import time
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Self

from cachedeval.engine.backend import Backend
from cachedeval.testing.contract import BackendUnderTest, check, expect, key

__all__ = ["Channel", "ForkedProcess", "run_threads"]

_TIMEOUT = 30.0
"""Seconds after which a silent process counts as hanging."""

_THREADS = 8

_LARGE = b"large" * 40_000


class Channel:
    """One end of a channel between two processes, which carries single bytes both ways.

    Args:
        reads: the file descriptor to read from.
        writes: the file descriptor to write to.
    """

    def __init__(self, reads: int, writes: int) -> None:
        self._reads, self._writes = reads, writes

    def send(self, byte: bytes = b".") -> None:
        """Send a byte to the other process."""
        os.write(self._writes, byte)

    def receive(self) -> bytes:
        """Wait for a byte; return `b""` if the other process ended or a time-out passed."""
        ready, _, _ = select.select([self._reads], [], [], _TIMEOUT)
        return os.read(self._reads, 1) if ready else b""

    def close(self) -> None:
        """Close this end."""
        os.close(self._reads)
        os.close(self._writes)


class ForkedProcess:
    """A forked process that runs a function; the end of its context kills it if it still runs.

    It is forked because a spawned process would have to import the function that opens the
    backend, which may be local to a test.

    Args:
        work: runs in the other process, with its end of the channel; the process ends after it.

    Example:
        >>> with ForkedProcess(lambda channel: channel.send(b"y")) as child:
        ...     child.channel.receive()
        b'y'
    """

    def __init__(self, work: Callable[[Channel], object]) -> None:
        here_reads, there_writes = os.pipe()
        there_reads, here_writes = os.pipe()
        self.channel = Channel(here_reads, here_writes)
        """This process's end."""
        with warnings.catch_warnings():
            # Python warns that the child lacks this process's threads. The child waits for none.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                self.channel.close()
                work(Channel(there_reads, there_writes))
                status = 0
            finally:
                os._exit(status)  # skips the exit handlers of pytest and others
        os.close(there_reads)
        os.close(there_writes)
        self._running = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.kill()
        self.channel.close()

    def kill(self) -> None:
        """End the process with SIGKILL and wait until it has ended."""
        if self._running:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._running = False

    def finish(self) -> None:
        """Wait until the process ends.

        Raises:
            FailedCheckError: it does not end, or its function raised an exception.
        """
        expect(self.channel.receive() == b"", "another process does not end")
        _, status = os.waitpid(self._pid, 0)
        self._running = False
        expect(status == 0, "the backend raised an exception in another process")


def run_threads(work: Callable[[int], None], threads: int) -> None:
    """Run a function in several threads at once; raise the first exception that one raised.

    Args:
        work: runs in each thread with its number, from 1.
        threads: how many.
    """
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001  raised in the caller's thread
            errors.append(error)

    running = [threading.Thread(target=run, args=(number,)) for number in range(1, threads + 1)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]


@check()
def supports_threads(tested: BackendUnderTest) -> None:
    """Threads put, get, touch, scan and delete at once; nothing fails and no value is lost."""
    backend = tested.open()
    backend.put_many({key(0): b"shared"})

    def work(number: int) -> None:
        for step in range(15):
            mine = key(1000 * number + step)
            backend.put_many({mine: b"%d" % step, key(0): b"shared"})
            found = backend.get_many([mine, key(0)])
            expect(found == {mine: b"%d" % step, key(0): b"shared"}, "a thread misses its value")
            backend.touch_many({mine: 1}, time.time())
            if step % 5 == 0:
                expect(mine in {entry.key for entry in backend.scan()}, "scan misses a value")
                expect(backend.delete_many([mine]) == 1, "a thread cannot delete its value")

    run_threads(work, 6)
    keys = [key(1000 * number + step) for number in range(1, 7) for step in range(15)]
    left = len(backend.get_many(keys))
    expect(left == 6 * 12, f"six threads left {left} values instead of {6 * 12}")


@check(persistent=True)
def persists_after_close(tested: BackendUnderTest) -> None:
    """Values, uses and times are the same after the place is closed and opened again."""
    backend = tested.open()
    items = {key(1): b"one", key(2): b"", key(3): _LARGE}
    backend.put_many(items)
    backend.touch_many({key(1): 3}, time.time() + 100)
    backend.delete_many([key(2)])
    del items[key(2)]
    before = sorted(backend.scan())
    backend.close()
    backend = tested.open()
    found = backend.get_many([key(1), key(2), key(3)])
    expect(found == items, "values differ after closing and opening again")
    expect(sorted(backend.scan()) == before, "entries differ after closing and opening again")


@check(persistent=True)
def persists_after_kill(tested: BackendUnderTest) -> None:
    """Values are durable when `put_many` returns, even if the process is killed right then."""

    def work(channel: Channel) -> None:
        backend = tested.open()
        for number in range(10):
            backend.put_many({key(number): b"%d" % number, key(100 + number): _LARGE})
        channel.send()
        channel.receive()

    with ForkedProcess(work) as child:
        expect(child.channel.receive(), "put_many fails in another process")
        child.kill()
    keys = [key(base + number) for base in (0, 100) for number in range(10)]
    found = tested.open().get_many(keys)
    expect(len(found) == len(keys), f"of {len(keys)} values of a killed process, {len(found)} stay")
    expect(found[key(7)] == b"7" and found[key(107)] == _LARGE, "a killed process's values differ")


@check(shared=True)
def shares_values_between_handles(tested: BackendUnderTest) -> None:
    """One handle sees at once what another puts, replaces and deletes."""
    one, other = tested.open(), tested.open()
    expect(other.get_many([key(1)]) == {}, "an empty backend returns a value")
    one.put_many({key(1): b"one", key(2): _LARGE})
    found = other.get_many([key(1), key(2)])
    expect(found == {key(1): b"one", key(2): _LARGE}, "a handle misses another's new values")
    other.put_many({key(1): b"new"})
    expect(one.get_many([key(1)]) == {key(1): b"new"}, "a handle misses another's replaced value")
    expect(one.delete_many([key(2)]) == 1, "a handle cannot delete another's value")
    found = other.get_many([key(1), key(2)])
    expect(found == {key(1): b"new"}, "a handle returns a value that another deleted")
    one.close()
    expect(other.get_many([key(1)]) == {key(1): b"new"}, "closing one handle breaks another")


@check(shared=True, uses=True)
def shares_uses_between_handles(tested: BackendUnderTest) -> None:
    """One handle's scan includes the uses that another recorded."""
    one, other = tested.open(), tested.open()
    one.put_many({key(1): b"one", key(2): b"two"})
    other.touch_many({key(1): 2}, time.time() + 100)
    hits = {entry.key: entry.hits for entry in one.scan()}
    expect(hits == {key(1): 2, key(2): 0}, "a handle misses a use that another recorded")


@check(shared=True)
def shares_values_between_processes(tested: BackendUnderTest) -> None:
    """One process sees at once what another puts, replaces and deletes."""
    here = tested.open()
    here.put_many({key(1): b"one", key(2): b"two"})

    def work(channel: Channel) -> None:
        there = tested.open()
        channel.send(b"y" if there.get_many([key(1)]) == {key(1): b"one"} else b"n")
        there.put_many({key(1): b"new", key(3): _LARGE})
        there.delete_many([key(2)])
        channel.send()
        channel.receive()
        channel.send(b"y" if there.get_many([key(4)]) == {key(4): b"four"} else b"n")

    with ForkedProcess(work) as child:
        expect(child.channel.receive() == b"y", "another process misses a stored value")
        expect(child.channel.receive(), "put_many or delete_many fails in another process")
        found = here.get_many([key(1), key(2), key(3)])
        expect(found == {key(1): b"new", key(3): _LARGE}, "a process misses another's changes")
        here.put_many({key(4): b"four"})
        child.channel.send()
        expect(child.channel.receive() == b"y", "an open handle misses another process's value")
        child.finish()


@check(shared=True)
def supports_processes(tested: BackendUnderTest) -> None:
    """Four processes open an empty place at once and put; nothing fails and no value is lost."""

    def work(number: int) -> Callable[[Channel], None]:
        def put(channel: Channel) -> None:
            channel.receive()
            backend = tested.open()
            for step in range(10):
                backend.put_many({key(100 * number + step): b"%d" % step, key(0): b"shared"})

        return put

    with (
        ForkedProcess(work(1)) as one,
        ForkedProcess(work(2)) as two,
        ForkedProcess(work(3)) as three,
        ForkedProcess(work(4)) as four,
    ):
        children = (one, two, three, four)
        for child in children:
            child.channel.send()
        for child in children:
            child.finish()
    keys = [key(100 * number + step) for number in range(1, 5) for step in range(10)]
    found = tested.open().get_many([*keys, key(0)])
    expect(len(found) == 41, f"of 41 values of four processes, {len(found)} are stored")  # noqa: PLR2004


@check(leases=True)
def lease_excludes_threads(tested: BackendUnderTest) -> None:
    """Of threads that try at once, `lease` grants one the key."""
    backend = tested.open()
    for number in range(5):
        ended = threading.Barrier(_THREADS)

        def attempt(one: bytes = key(number), ended: threading.Barrier = ended) -> set[bytes]:
            try:
                with backend.lease(one) as granted:
                    ended.wait(_TIMEOUT)  # the holder holds on until all have tried
                    return {one} if granted else set()
            except BaseException:
                ended.abort()
                raise

        holders = sum(map(len, _race(attempt)))
        expect(holders == 1, f"of {_THREADS} threads, {holders} hold one lease")


@check(leases=True)
def lease_many_excludes_threads(tested: BackendUnderTest) -> None:
    """Of threads that try at once, `lease_many` grants each key to one."""
    backend = tested.open()
    keys = [key(number) for number in range(500)]
    granted = _race(lambda: backend.lease_many(keys))
    total = sum(map(len, granted))
    expect(total == len(keys), f"{_THREADS} threads hold {total} leases of {len(keys)} keys")
    expect(set().union(*granted) == set(keys), "two threads hold one lease")
    backend.release_many(keys)


@check(shared=True, leases=True)
def leases_exclude_handles(tested: BackendUnderTest) -> None:
    """Handles exclude each other; none releases another's lease, by release or by closing."""
    one, other, third = tested.open(), tested.open(), tested.open()
    with one.lease(key(1)) as first:
        expect(first is True, "a free lease is refused")
        with other.lease(key(1)) as second:
            expect(second is False, "two handles hold one lease")
        one.lease_many([key(2), key(3)])
        granted = other.lease_many([key(2), key(3), key(4)])
        expect(granted == {key(4)}, "lease_many does not grant the 1 key that no handle has leased")
        other.release_many([key(1), key(2)])
        free = third.lease_many([key(1), key(2)])
        expect(free == set(), "a handle releases the lease of another")
        other.put_many({key(9): b"nine"})
        other.close()
        with third.lease(key(1)) as second:
            expect(second is False, "closing a handle releases the lease of another")
        expect(third.lease_many([key(3)]) == set(), "closing a handle releases another's lease")
    one.release_many([key(2), key(3)])
    free = third.lease_many([key(1), key(2), key(3)])
    expect(free == {key(1), key(2), key(3)}, "a released lease is refused to another handle")
    third.release_many(free)


@check(shared=True, leases=True)
def lease_excludes_processes(tested: BackendUnderTest) -> None:
    """Two processes exclude each other by `lease`, both ways."""
    here = tested.open()

    def work(channel: Channel) -> None:
        there = tested.open()
        with there.lease(key(1)) as second, there.lease(key(2)) as granted:
            channel.send(b"y" if granted and not second else b"n")
            channel.receive()
        channel.send()
        channel.receive()

    with here.lease(key(1)) as first, ForkedProcess(work) as child:
        expect(first is True, "a free lease is refused")
        received = child.channel.receive()
        expect(received == b"y", "two processes hold one lease, or a free one is refused")
        with here.lease(key(2)) as second:
            expect(second is False, "two processes hold one lease")
        child.channel.send()
        expect(child.channel.receive(), "lease raised an exception in another process")
        with here.lease(key(2)) as second:
            expect(second is True, "a released lease is refused to another process")
        # Closing a file releases all POSIX locks of the process on it.
        passing = tested.open()
        passing.put_many({key(9): b"nine"})
        passing.close()
        with here.lease(key(3)):
            pass
        lost = _granted_there(tested, [key(1)])
        expect(not lost, "a process loses a lease when it closes another handle")
    free = _granted_there(tested, [key(1)])
    expect(free, "a released lease is refused to another process")


@check(shared=True, leases=True)
def lease_many_excludes_processes(tested: BackendUnderTest) -> None:
    """Processes get the keys that no other has leased; a release in one frees them for others."""
    here = tested.open()
    keys = [key(number) for number in range(10)]

    def work(channel: Channel) -> None:
        there = tested.open()
        granted = there.lease_many(keys)
        channel.send(bytes([len(granted)]) if granted == set(keys[4:]) else b"n")
        channel.receive()
        there.release_many(keys[:7])  # those of the other process too
        channel.send()
        channel.receive()

    here.lease_many(keys[:4])
    with ForkedProcess(work) as child:
        received = child.channel.receive()
        expect(received == b"\x06", "lease_many in another process does not grant the free keys")
        expect(here.lease_many(keys) == set(), "two processes hold one lease of lease_many")
        child.channel.send()
        expect(child.channel.receive(), "release_many raised an exception in another process")
        free = here.lease_many(keys)
        expect(free >= set(keys[4:7]), "release_many does not free its keys for another process")
        expect(free == set(keys[4:7]), "release_many in one process releases the leases of another")
        lost = _granted_there(tested, keys[:4])
        expect(not lost, "release_many in one process releases the leases of another")
        here.release_many(keys[:2])
        free_there = _granted_there(tested, keys)
        expect(free_there == b"\x00\x01", "another process cannot lease the released keys alone")
    here.release_many(keys)


@check(shared=True, leases=True)
def lease_ends_with_its_process(tested: BackendUnderTest) -> None:
    """A killed process holds no lease, and nobody has to clean up."""
    here = tested.open()

    def work(channel: Channel) -> None:
        with tested.open().lease(key(1)) as granted:
            channel.send(b"y" if granted else b"n")
            channel.receive()

    for _ in range(3):
        with ForkedProcess(work) as child:
            expect(child.channel.receive() == b"y", "a killed process still holds its lease")
            with here.lease(key(1)) as second:
                expect(second is False, "two processes hold one lease")
            child.kill()
        _expect_free(here, [key(1)], "a killed process still holds its lease")


@check(shared=True, leases=True)
def lease_many_ends_with_its_process(tested: BackendUnderTest) -> None:
    """A process that ends holds no lease of `lease_many`, killed or not."""
    here = tested.open()
    keys = [key(number) for number in range(10)]

    def work(channel: Channel) -> None:
        granted = tested.open().lease_many(keys)
        channel.send(b"y" if granted == set(keys) else b"n")
        channel.receive()

    for kill in (True, False):
        with ForkedProcess(work) as child:
            expect(child.channel.receive() == b"y", "lease_many refuses a free key")
            expect(here.lease_many(keys) == set(), "two processes hold one lease")
            if kill:
                child.kill()
            else:
                child.channel.send()
                child.finish()
        how = "was killed" if kill else "ended"
        _expect_free(here, keys, f"a process that {how} still holds leases")
        here.release_many(keys)


def _race(attempt: Callable[[], set[bytes]]) -> list[set[bytes]]:
    """Let threads try for leases at once; return the keys that each was granted."""
    start = threading.Barrier(_THREADS)
    granted: list[set[bytes]] = []

    def run(_: int) -> None:
        start.wait(_TIMEOUT)
        granted.append(attempt())

    run_threads(run, _THREADS)
    return granted


def _expect_free(backend: Backend, keys: list[bytes], failure: str) -> None:
    """Lease keys that another process held; the system may need a moment to end it."""
    deadline = time.monotonic() + 1
    left = set(keys)
    while left := left - backend.lease_many(sorted(left)):
        expect(time.monotonic() < deadline, failure)
        time.sleep(0.01)
    backend.release_many(keys)


def _granted_there(tested: BackendUnderTest, keys: list[bytes]) -> bytes:
    """Return the indices of the keys that another process can lease."""

    def work(channel: Channel) -> None:
        there = tested.open()
        granted = there.lease_many(keys)
        there.release_many(granted)
        for index, one in enumerate(keys):
            if one in granted:
                channel.send(bytes([index]))
        channel.send(b"\xff")

    with ForkedProcess(work) as child:
        indices = bytearray()
        while (received := child.channel.receive()) != b"\xff":
            expect(received, "lease_many raised an exception in another process")
            indices += received
        return bytes(indices)
