"""One lock file a folder: leases that end with their process, and a lock around writes.

The locks are POSIX byte ranges (`fcntl.lockf`): the system drops them when a process ends, however
it ends, and ten thousand of them need one file and one descriptor. (The `filelock` package needs
a file and a descriptor each.) They have two rules that this module exists to keep:

- They belong to the process, so they do not separate two threads, or two backends on one folder, in
  one process. A table by (device, inode) does that.
- Closing *any* descriptor of the file drops all of the process's locks on it. So there is one
  descriptor a file and process, opened nowhere else, and closed when its last user is gone.

A forked child has none of its parent's locks, and cannot end them.
"""

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from cachedeval_disk.patience import Patience

__all__ = ["Lease", "Leases", "LockFile", "attach"]

_WRITE = 1 << 62
"""The offset of the write lock's byte; the leases' lie below it."""

_TURNSTILE = _WRITE + 1
"""The byte that all take on the way to the write lock. One who wants the lock exclusively keeps it,
so that those who come later do not starve it."""

_PRIME = (1 << 61) - 1
"""Keys are numbers modulo this: all bits of a key count, and near keys are kept apart. Two keys with
one offset exclude each other, which costs a wait and is as likely as any collision of 61 bits."""

_SLICE = 0.05
"""Seconds for which one attempt waits for another thread of this process."""

_TAKEN = (errno.EACCES, errno.EAGAIN)
"""POSIX allows either where another process holds the lock."""


class LockFile:
    """The one descriptor of a lock file in this process.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, fd: int, identity: tuple[int, int]) -> None:
        self.identity = identity
        """Device and inode, by which the file is known whatever becomes of its name."""
        self.users = 0
        """How many need the descriptor to stay open; guarded by the table's lock."""
        self.fds = [fd]
        """The descriptor, and any other that a race opened and that must not be closed before."""
        self.forked = False
        """Whether this is a parent's: its locks are not this process's."""
        self._leased: set[int] = set()
        self._leases = threading.Lock()
        self._write = threading.Lock()
        self._writer = 0
        """The thread that holds the write lock or waits for it."""

    def detach(self, users: int = 1) -> None:
        """Let go of it, for so many users; the last one's descriptor is closed."""
        with _table_lock:
            self.users -= users
            if self.users == 0 and not self.forked:
                _table.pop(self.identity, None)
                for fd in self.fds:
                    os.close(fd)

    def lease_many(self, offsets: Iterable[int]) -> list[int]:
        """Lock the bytes at these offsets, each for one holder in all processes.

        Returns:
            Those that were free.

        Raises:
            OSError: none is locked, as the system has no room for so many.
        """
        granted: list[int] = []
        with self._leases:
            leased = self._leased
            try:
                for offset in offsets:
                    if offset not in leased and self._lock(fcntl.LOCK_EX, offset):
                        leased.add(offset)
                        granted.append(offset)
            except BaseException:
                self._end(granted)
                raise
        return granted

    def end_leases(self, offsets: Iterable[int]) -> None:
        """Unlock these bytes."""
        with self._leases:
            self._end(offsets)

    @contextmanager
    def writing(
        self, patience: Patience, *, exclusive: bool, silence: float | None = None
    ) -> Iterator[None]:
        """Hold the write lock: shared with others who write, or exclusively.

        Args:
            patience: how long to wait for those who hold it.
            exclusive: whether to keep all others out, to create or replace files.
            silence: as for `Patience.wait`.

        Raises:
            TimeoutError: those who hold it show no sign of life.
        """
        if not self._write.acquire(blocking=False):
            patience.wait(lambda: self._write.acquire(timeout=_SLICE), silence)
        self._writer = threading.get_ident()
        try:
            try:
                if exclusive:
                    self._wait(fcntl.LOCK_EX, _TURNSTILE, 1, patience, silence)
                    self._wait(fcntl.LOCK_EX, _WRITE, 1, patience, silence)
                else:
                    self._wait(fcntl.LOCK_SH, _WRITE, 2, patience, silence)
            finally:
                self._unlock(_TURNSTILE)
            try:
                yield
            finally:
                self._unlock(_WRITE)
        finally:
            self._writer = 0
            self._write.release()

    def is_writing(self) -> bool:
        """Say whether this thread holds the write lock or waits for it."""
        return self._writer == threading.get_ident()

    def _wait(
        self, kind: int, offset: int, length: int, patience: Patience, silence: float | None
    ) -> None:
        # Asked again and again, because waiting in the system has no time-out.
        if not self._lock(kind, offset, length):
            patience.wait(lambda: self._lock(kind, offset, length), silence)

    def _end(self, offsets: Iterable[int]) -> None:
        for offset in offsets:
            self._leased.discard(offset)
            self._unlock(offset)

    def _unlock(self, offset: int) -> None:
        if not self.forked:
            fcntl.lockf(self.fds[0], fcntl.LOCK_UN, 1, offset)

    def _lock(self, kind: int, offset: int, length: int = 1) -> bool:
        if self.forked:  # the number may be another file's by now
            raise OSError(errno.EBADF, "the lock file was the parent process's")
        try:
            fcntl.lockf(self.fds[0], kind | fcntl.LOCK_NB, length, offset)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise
        return True


class Leases:
    """The leases that one backend holds.

    Args:
        attach: returns the folder's lock file, attached; it is detached with the leases.

    Thread safety: every method may be called from any thread.

    Example:
        >>> leases = Leases(lambda: attach(Path("cache/lock")))  # doctest: +SKIP
        >>> granted = leases.acquire([b"0123456789abcdef"])  # doctest: +SKIP
        >>> leases.release(granted)  # doctest: +SKIP
    """

    def __init__(self, attach: Callable[[], LockFile]) -> None:
        self._attach = attach
        self._held: dict[bytes, tuple[LockFile, int]] = {}

    def acquire(self, keys: Sequence[bytes]) -> set[bytes]:
        """Try, without waiting, to take the leases of these keys; return those that were granted.

        Raises:
            OSError: the folder cannot be written to, or the system has no room for so many locks.
        """
        wanted = {int.from_bytes(key, "big") % _PRIME: key for key in keys}
        if not wanted:
            return set()
        lock = self._attach()
        granted: list[int] = []
        try:
            # From the last to the first: the system looks through the locks before each one.
            granted = lock.lease_many(sorted(wanted, reverse=True))
        finally:
            lock.detach(1 - len(granted))
        held = {wanted[offset]: (lock, offset) for offset in granted}
        self._held.update(held)
        return set(held)

    def release(self, keys: Iterable[bytes]) -> None:
        """End the leases of these keys; ignore those that are not held."""
        ended: dict[LockFile, list[int]] = {}
        for key in keys:
            if (found := self._held.pop(key, None)) is not None:
                ended.setdefault(found[0], []).append(found[1])
        for lock, offsets in ended.items():
            if not lock.forked:  # a parent's leases are the parent's to end
                lock.end_leases(sorted(offsets))
                lock.detach(len(offsets))


class Lease:
    """A try to become the only one that computes a key; its context says whether it worked.

    It ends with its context or with the process: one that is dropped without an end stays held.

    Args:
        attach: returns the folder's lock file, attached.
        key: the key.
    """

    __slots__ = ("_key", "_leases")

    def __init__(self, attach: Callable[[], LockFile], key: bytes) -> None:
        self._leases = Leases(attach)
        self._key = key

    def __enter__(self) -> bool:
        return bool(self._leases.acquire((self._key,)))

    def __exit__(self, *_: object) -> Literal[False]:
        self._leases.release((self._key,))
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
            # Neither a link is followed nor the other end of a FIFO waited for.
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            fd = os.open(path, flags, 0o600)
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                os.close(fd)
                raise OSError(errno.EINVAL, "the cache's lock is not a regular file", str(path))
            identity = (found.st_dev, found.st_ino)
            lock = _table.get(identity)
            if lock is None:
                lock = _table[identity] = LockFile(fd, identity)
            else:  # the name came to mean a file that is in use here: closing drops its locks
                lock.fds.append(fd)
        lock.users += 1
        return lock


def _forget_parent() -> None:
    """In a forked child: the parent's locks are the parent's."""
    global _table_lock  # noqa: PLW0603  the old one may be held by a thread that is not here
    _table_lock = threading.Lock()
    for lock in _table.values():
        lock.forked = True
        for fd in lock.fds:  # closes the copies; the parent's own stay open and locked
            os.close(fd)
    _table.clear()


os.register_at_fork(after_in_child=_forget_parent)
