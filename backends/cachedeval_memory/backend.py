"""Values in a dictionary under a lock."""

import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cachedeval.backend import Backend, Entry, InputError, Label

__all__ = ["MemoryBackend", "open_url"]


class MemoryBackend(Backend):
    """Stores values in this process's memory; each instance is a store of its own.

    A forked child goes on with a copy: it has the values that were stored, and no lease is taken.

    Thread safety: every method may be called from any thread.

    Example:
        >>> backend = MemoryBackend()
        >>> backend.put_many({b"0123456789abcdef": b"value"})
        >>> backend.get_many([b"0123456789abcdef"])
        {b'0123456789abcdef': b'value'}
    """

    def __init__(self) -> None:
        # Reentrant, because a signal handler may fork in the middle of an operation.
        self._lock = threading.RLock()
        self._values: dict[bytes, bytes] = {}
        self._entries: dict[bytes, Entry] = {}
        self._leased: set[bytes] = set()
        _backends[id(self)] = weakref.ref(self)
        weakref.finalize(self, _backends.pop, id(self)).atexit = False

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that are stored."""
        keys = list(keys)
        with self._lock:
            values = self._values
            return {key: values[key] for key in keys if key in values}

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        """Store the items for as long as this object lives."""
        now = time.time()
        items = dict(items)  # the mapping's own code may wait for a thread that waits for the lock
        with self._lock:
            for key, value in items.items():
                before = self._entries.get(key)
                hits = before.hits if before else 0
                self._values[key] = value
                self._entries[key] = Entry(key, len(key) + len(value), now, now, hits)

    def put_labelled(self, items: Mapping[bytes, bytes], labels: Mapping[bytes, Label]) -> None:
        """Store the items with their labels."""
        labels = dict(labels)
        self.put_many(items)
        with self._lock:
            for key, (text, seconds) in labels.items():
                entry = self._entries.get(key)
                if entry is not None:
                    self._entries[key] = entry._replace(label=text, seconds=seconds)

    def delete_many(self, keys: Iterable[bytes]) -> int:
        """Delete the keys; return how many were stored."""
        keys = set(keys)
        with self._lock:
            held = [key for key in keys if key in self._values]
            for key in held:
                del self._values[key], self._entries[key]
            return len(held)

    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        """Record the use of those keys that are stored."""
        hits = dict(hits)
        with self._lock:
            for key, count in hits.items():
                entry = self._entries.get(key)
                if entry is not None:
                    self._entries[key] = entry._replace(used=when, hits=entry.hits + count)

    def scan(self) -> Iterator[Entry]:
        """Yield an entry for each key stored now."""
        with self._lock:
            entries = list(self._entries.values())
        return iter(entries)

    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:
        """Lease the keys that nobody else who shares this object has leased."""
        wanted = set(keys)
        with self._lock:
            granted = wanted - self._leased
            self._leased |= granted
            return granted

    def release_many(self, keys: Iterable[bytes]) -> None:
        """Release the leases of the keys."""
        keys = list(keys)
        with self._lock:
            self._leased.difference_update(keys)

    def close(self) -> None:
        """Do nothing: the values live as long as this object."""

    def _forget_parent(self) -> None:
        """In a forked child: the threads that held the lock and the leases are not here."""
        self._lock = threading.RLock()
        self._leased = set()


_backends: "dict[int, weakref.ref[MemoryBackend]]" = {}
"""All that are alive. A plain dictionary, as its values can be listed at once, without a lock."""

_held: "list[list[Any]]" = []
"""The locks that each fork under way holds, so that no child inherits half an operation."""


def _before_fork() -> None:
    held = []
    for reference in list(_backends.values()):
        backend = reference()
        if backend is not None:
            backend._lock.acquire()  # noqa: SLF001  its own module
            held.append(backend._lock)  # noqa: SLF001
    _held.append(held)


def _after_fork_in_parent() -> None:
    for lock in _held.pop() if _held else ():
        lock.release()


def _after_fork_in_child() -> None:
    _held.clear()
    for reference in list(_backends.values()):
        backend = reference()
        if backend is not None:
            backend._forget_parent()  # noqa: SLF001


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)


def open_url(rest: str) -> MemoryBackend:
    """Open a new, empty store: the URL `memory:`.

    Args:
        rest: what follows the colon of the URL; must be empty.

    Raises:
        InputError: something follows the colon.
    """
    if rest:
        raise InputError(f"cache 'memory:{rest}': nothing may follow the colon; give 'memory:'")
    return MemoryBackend()
