"""One lock file a folder: leases that death frees, and a gate for those who write.

The locks are POSIX byte ranges (`fcntl.lockf`): the system drops them when a process ends, however
it ends, and ten thousand of them need one file and one descriptor. (The `filelock` package needs
a file and a descriptor each.) They have two rules that this module exists to keep:

- They belong to the process, so they do not part two threads, or two backends on one folder, in
  one process. A table by (device, inode) does that.
- Closing *any* descriptor of the file drops all of the process's locks on it. So there is one
  descriptor a file and process, opened nowhere else, and closed when its last user is gone.
"""

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

__all__ = ["Lease", "LockFile", "attach"]

_GATE = 1 << 62
"""The offset of the gate's byte; the leases' lie below it."""

_PRIME = (1 << 61) - 1
"""Keys are numbers modulo this: all bits of a key count, and near keys are kept apart."""

_TURNSTILE = _GATE + 1
"""The byte that all pass on the way to the gate, and where who wants to be alone stops the rest."""

_PATIENCE = 60.0
"""Seconds to wait at the gate. Who is inside needs milliseconds, unless it was stopped there."""


class LockFile:
    """The one descriptor of a lock file in this process.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, fd: int, identity: tuple[int, int]) -> None:
        self.identity = identity
        """Device and inode, by which the file is known whatever becomes of its name."""
        self.users = 0
        """Who would be harmed if the descriptor were closed; guarded by the table's lock."""
        self.fds = [fd]
        """The descriptor, and any other that a race opened and that must not be closed before."""
        self.forked = False
        """Whether this is a parent's: its locks are not this process's."""
        self._leased: set[int] = set()
        self._leases = threading.Lock()
        self._gate = threading.Lock()
        self._inside = 0
        """The thread that is at the gate or inside it."""

    def detach(self) -> None:
        """Give it back; the last user's descriptor is closed."""
        with _table_lock:
            self.users -= 1
            if self.users == 0 and not self.forked:
                _table.pop(self.identity, None)
                for fd in self.fds:
                    os.close(fd)

    def try_lease(self, offset: int) -> bool:
        """Try to take the byte at `offset` for one holder in this process and in all others."""
        with self._leases:
            if offset in self._leased or not self._lock(fcntl.LOCK_EX, offset):
                return False
            self._leased.add(offset)
            return True

    def end_lease(self, offset: int) -> None:
        """Give the byte back."""
        with self._leases:
            self._leased.discard(offset)
            self._unlock(offset)

    @contextmanager
    def gate(self, *, alone: bool, patience: float | None = None) -> Iterator[None]:
        """Stay inside the gate: with others who write, or alone to create or replace files.

        Args:
            alone: whether to keep all others out.
            patience: seconds to wait for those who are inside; a minute by default.

        Raises:
            TimeoutError: somebody stayed inside for longer.
        """
        patience = _PATIENCE if patience is None else patience
        deadline = time.monotonic() + patience
        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        if not self._gate.acquire(timeout=patience):
            raise TimeoutError(errno.ETIMEDOUT, "the cache is held by another thread")
        self._inside = threading.get_ident()
        try:
            try:
                self._wait(kind, _TURNSTILE, deadline)
                self._wait(kind, _GATE, deadline)
            finally:
                self._unlock(_TURNSTILE)
            try:
                yield
            finally:
                self._unlock(_GATE)
        finally:
            self._inside = 0
            self._gate.release()

    def is_inside(self) -> bool:
        """Say whether this thread is at the gate or inside it."""
        return self._inside == threading.get_ident()

    def _wait(self, kind: int, offset: int, deadline: float) -> None:
        # Asked again and again, because waiting in the system has no time-out.
        while not self._lock(kind, offset):
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, "the cache is held by another process")
            time.sleep(0.002)

    def _unlock(self, offset: int) -> None:
        if not self.forked:
            fcntl.lockf(self.fds[0], fcntl.LOCK_UN, 1, offset)

    def _lock(self, kind: int, offset: int) -> bool:
        if self.forked:  # the number may be another file's by now
            raise OSError(errno.EBADF, "the lock file was the parent process's")
        try:
            fcntl.lockf(self.fds[0], kind | fcntl.LOCK_NB, 1, offset)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):  # POSIX allows either: it is taken
                return False
            raise
        return True


class Lease:
    """A try to be the only one that computes a key; its context says whether it worked.

    Args:
        attach: gives the folder's lock file, which the lease detaches at its end.
        key: chooses the byte to lock, one of 2**61 - 1. Two keys that choose the same exclude each
            other, which costs a wait and is as likely as any collision of 61 bits.
    """

    __slots__ = ("_attach", "_lock", "_offset")

    def __init__(self, attach: Callable[[], LockFile], key: bytes) -> None:
        self._attach = attach
        self._offset = int.from_bytes(key, "big") % _PRIME
        self._lock: LockFile | None = None

    def __enter__(self) -> bool:
        lock = self._attach()
        try:
            mine = lock.try_lease(self._offset)
        except BaseException:
            lock.detach()
            raise
        if mine:
            self._lock = lock
        else:
            lock.detach()
        return mine

    def __exit__(self, *_: object) -> Literal[False]:
        lock, self._lock = self._lock, None
        if lock is not None and not lock.forked:
            lock.end_lease(self._offset)
            lock.detach()
        return False


_table: dict[tuple[int, int], LockFile] = {}
_table_lock = threading.Lock()


def attach(path: Path) -> LockFile:
    """Return this process's lock file at `path`, created if there is none; `detach` it once.

    Raises:
        OSError: it cannot be opened for writing.
    """
    with _table_lock:
        try:
            found = path.stat()
        except FileNotFoundError:
            lock = None
        else:
            lock = _table.get((found.st_dev, found.st_ino))
        if lock is None:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            found = os.fstat(fd)
            identity = (found.st_dev, found.st_ino)
            lock = _table.get(identity)
            if lock is None:
                lock = _table[identity] = LockFile(fd, identity)
            else:  # the name came to mean a file that is in use here: closing drops its locks
                lock.fds.append(fd)
        lock.users += 1
        return lock


def _forget_parent() -> None:
    """After a fork: the parent's locks are the parent's."""
    global _table_lock  # noqa: PLW0603  the old one may be held by a thread that is not here
    _table_lock = threading.Lock()
    for lock in _table.values():
        lock.forked = True
        for fd in lock.fds:  # closes the copies; the parent's own stay open and locked
            os.close(fd)
    _table.clear()


os.register_at_fork(after_in_child=_forget_parent)
