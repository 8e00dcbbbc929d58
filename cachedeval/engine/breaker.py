"""A circuit breaker for a cache that does not answer, and the records that wait for it.

A dead server or a stuck disk costs each operation its time-out. So after the first one, operations of
the same kind are skipped for ten times as long as it took; then the next one tries again. Records that
could not be stored meanwhile are stored as soon as a write succeeds.
"""

import threading
import time
from collections.abc import Mapping
from typing import Literal

from cachedeval.engine.record import Record

__all__ = ["Breaker", "Kind"]

Kind = Literal["read", "write", "lease"]

_SLOW = 1.0
"""Seconds from which on a failure costs so much that the next operations are skipped."""

_REST = 10
"""How many times as long as the failed operation took others are skipped."""

_BACKLOG = 64 * 2**20
"""Bytes of records that wait to be stored, at most."""


class Breaker:
    """Which operations are skipped now, by their kind.

    Attributes:
        closed: whether none is skipped.

    Thread safety: every method may be called from any thread.

    Example:
        >>> breaker = Breaker()
        >>> breaker.failed("read", 60.0, OSError("no answer"))
        True
        >>> breaker.skips("read"), breaker.skips("lease")
        (True, False)
    """

    def __init__(self) -> None:
        self.closed = True
        self._until: dict[Kind, float] = {}
        self._lock = threading.Lock()
        self._waiting: dict[bytes, Record] = {}
        self._size = 0

    def skips(self, kind: Kind) -> bool:
        """Return whether to skip an operation; when a pause ends, the next operation is a trial."""
        if self.closed:
            return False
        with self._lock:
            until = self._until.get(kind)
            if until is None:
                return False
            if time.monotonic() < until:
                return True
            del self._until[kind]
            self.closed = not self._until
            return False

    def failed(self, kind: Kind, seconds: float, error: Exception) -> bool:
        """Note a failed operation.

        Args:
            kind: what was tried.
            seconds: how long it took.
            error: what it raised.

        Returns:
            Whether it timed out.
        """
        if seconds >= _SLOW:
            self.rest(kind, _REST * seconds)
        return seconds >= _SLOW or isinstance(error, TimeoutError)

    def rest(self, kind: Kind, seconds: float = 60.0) -> None:
        """Skip operations for some seconds."""
        with self._lock:
            self._until[kind] = time.monotonic() + seconds
            self.closed = False

    def keep(self, records: Mapping[bytes, Record]) -> None:
        """Keep records until a write succeeds, as far as there is room."""
        with self._lock:
            for key, record in records.items():
                size = len(record.payload) + len(record.recipe)
                if key not in self._waiting and self._size + size <= _BACKLOG:
                    self._waiting[key] = record
                    self._size += size

    def take(self) -> dict[bytes, Record]:
        """Return the records that wait, which then do not wait any more."""
        with self._lock:
            waiting, self._waiting, self._size = self._waiting, {}, 0
            return waiting

    def forget_parent(self) -> None:
        """Replace the lock in a forked child, and leave the records to the parent."""
        self._lock = threading.Lock()
        self._waiting, self._size = {}, 0
