"""The store: reads and writes records through a backend, and verifies each record that it reads.

It isolates the engine from failures of a disk or a server. A corrupt record is a miss, counted and
reported. A failure of the backend causes one warning, and the run continues uncached.
"""

import errno
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from cachedeval.engine import process
from cachedeval.engine.backend import Backend, Entry, completed
from cachedeval.engine.breaker import Breaker, Kind
from cachedeval.engine.errors import BackendError
from cachedeval.engine.labels import label_of
from cachedeval.engine.log import logger
from cachedeval.engine.record import CorruptRecord, Pieces, Record, pack, pack_pieces, unpack

__all__ = ["Store", "StoreCounts"]

_TOUCH_AT = 50_000
"""How many keys of hits are collected in memory before they are written to the backend."""

_KINDS: dict[str, Kind] = {
    "get": "read",
    "put": "write",
    "delete": "write",
    "touch": "write",
    "close": "write",
    "lease": "lease",
}
"""The operations that are skipped together."""

_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
"""What a system says of a place that may be read and not written."""

_READ_AT_ONCE = 500
"""How many records a scan reads with one query."""


_GIVE_UP = 3
"""How many single records fail in a row before the rest of their group is given up."""


class StoreCounts:
    """The faults that a store has met since it was opened.

    Attributes:
        corrupt: corrupt and foreign records.
        unreadable: valid records whose values their nodes cannot read.
        collisions: keys under which the record of another recipe is stored.
        errors: failed backend operations by name: get, put, delete, lease, touch, close.
    """

    def __init__(self) -> None:
        self.corrupt = 0
        self.unreadable = 0
        self.collisions = 0
        self.errors: dict[str, int] = {}


class Store:
    """Reads and writes records through a backend.

    Args:
        backend: where the bytes are stored; closed with the store.

    Attributes:
        counts: the faults met so far.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = completed(backend)
        self.counts = StoreCounts()
        self._touched: dict[bytes, int] = {}
        self._noticed: set[bytes] = set()
        """The keys of faults that are counted already, until they are written again."""
        self._lock = threading.Lock()
        self._warned: set[str] = set()
        self._closed = False
        self._breaker = Breaker()
        self._unreleased: set[bytes] = set()
        """Leases whose release failed; it is tried again."""

    def get_many(self, recipes: Mapping[bytes, bytes]) -> dict[bytes, Record]:
        """Return the verified records of those recipes that have one; each counts as a hit.

        Args:
            recipes: the recipe of each key.
        """
        records = self.peek_many(recipes)
        if records:
            self._touch(records)
        return records

    def peek_many(self, recipes: Mapping[bytes, bytes]) -> dict[bytes, Record]:
        """Return the same as `get_many`, without counting hits."""
        if self._breaker.skips("read"):
            return {}
        start = time.monotonic()
        try:
            values = self.backend.get_many([*recipes])
        except Exception as error:  # noqa: BLE001  a backend may raise anything
            self._failed("get", error, start)
            return {}
        found: dict[bytes, Record] = {}
        for key, data in values.items():
            record = self._verify(key, data, recipes.get(key))
            if record is not None:
                found[key] = record
        return found

    def get(self, key: bytes, recipe: bytes) -> Record | None:
        """Return the verified record of one recipe, or None; a record counts as a hit."""
        if not self._breaker.closed and self._breaker.skips("read"):
            return None
        start = time.monotonic()
        try:
            data = self.backend.get_many((key,)).get(key)
        except Exception as error:  # noqa: BLE001  a backend may raise anything
            self._failed("get", error, start)
            return None
        if data is None:
            return None
        record = self._verify(key, data, recipe)
        if record is not None:
            self._touch((key,))
        return record

    def put_many(self, records: Mapping[bytes, Record]) -> set[bytes]:
        """Store the records; return the keys of those that are durable now.

        A backend stores a group whole or not at all. A group that fails is tried again by halves,
        so that a disk with little room left stores as many records as it has room for.
        """
        stored: set[bytes] = set()
        groups = [[*records]] if records else []
        failed = 0
        while groups and failed < _GIVE_UP:
            if self._breaker.skips("write"):
                self._breaker.keep({key: records[key] for group in groups for key in group})
                break
            group = groups.pop()
            start = time.monotonic()
            try:
                labels = {key: label for key in group if (label := label_of(records[key]))}
                packed = {key: self._packed(records[key]) for key in group}
                self.backend.put_labelled(packed, labels)
            except Exception as error:  # noqa: BLE001  a backend may raise anything
                if self._failed("put", error, start):
                    groups.append(group)
                    self._breaker.keep({key: records[key] for group in groups for key in group})
                    break
                if len(group) == 1:
                    failed += 1
                else:
                    half = len(group) // 2
                    groups += group[half:], group[:half]
            else:
                failed = 0
                stored.update(group)
        if stored:
            with self._lock:
                self._noticed.difference_update(stored)
            if waiting := self._breaker.take():  # the cache answers again
                self.put_many(waiting)
        return stored

    def _packed(self, record: Record) -> Any:
        if self.backend.accepts_pieces and isinstance(record.payload, Pieces):
            return pack_pieces(record, record.payload)
        return pack(record)

    def delete_many(self, keys: Sequence[bytes]) -> int:
        """Delete the records of these keys; return how many there were."""
        if not keys:
            return 0
        try:
            return self.backend.delete_many(keys)
        except Exception as error:  # noqa: BLE001
            self._failed("delete", error)
            return 0

    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:
        """Try to lease keys, without waiting; return those whose lease was granted.

        If the backend fails, all are granted: two processes may then compute the same call, which
        costs time and does no harm.
        """
        if self._breaker.skips("lease"):
            return set(keys)
        if self._unreleased:  # else this process would wait for itself
            self.release_many(())
        start = time.monotonic()
        try:
            return self.backend.lease_many(keys)
        except Exception as error:  # noqa: BLE001  a backend may raise anything
            self._failed("lease", error, start)
            return set(keys)

    def release_many(self, keys: Collection[bytes]) -> None:
        """Release leases that were granted."""
        if self._unreleased:
            with self._lock:
                keys, self._unreleased = {*self._unreleased, *keys}, set()
        if not keys:
            return
        start = time.monotonic()
        try:
            if not self._breaker.skips("lease"):
                self.backend.release_many(keys)
                return
        except Exception as error:  # noqa: BLE001
            self._failed("lease", error, start)
        with self._lock:
            self._unreleased.update(keys)

    def records(
        self, entries: Iterable[Entry] | None = None
    ) -> Iterator[tuple[Entry, Record | CorruptRecord]]:
        """Yield every record, verified, with its entry; counts no hits.

        Args:
            entries: read only the records of these entries.

        Raises:
            BackendError: the backend cannot be read.
        """
        batch: list[Entry] = []
        try:
            for entry in self.backend.scan() if entries is None else entries:
                batch.append(entry)
                if len(batch) >= _READ_AT_ONCE:
                    yield from self._verified(batch)
                    batch = []
            if batch:
                yield from self._verified(batch)
        except Exception as error:
            raise BackendError(f"the cache cannot be read: {error}") from error

    def flush(self) -> None:
        """Write to the backend what waits in memory: the hits, and records that failed before."""
        with self._lock:
            touched, self._touched = self._touched, {}
        if self._breaker.skips("write"):
            return
        if waiting := self._breaker.take():
            self.put_many(waiting)
        if touched and not self._breaker.skips("write"):
            start = time.monotonic()
            try:
                self.backend.touch_many(touched, time.time())
            except Exception as error:  # noqa: BLE001
                if not self.backend.fails_fast:
                    self._breaker.failed("write", time.monotonic() - start, error)
                # Only the order in which a prune deletes records depends on it.
                self.counts.errors["touch"] = self.counts.errors.get("touch", 0) + 1
                logger().debug("the last use of %d records was not stored: %s", len(touched), error)

    def forget_parent(self) -> None:
        """Replace the lock in a forked child and drop the parent's hits, which the parent writes."""
        self._lock = threading.Lock()
        self._touched = {}
        self._unreleased = set()
        self._breaker.forget_parent()

    def close(self) -> None:
        """Write the hits and close the backend; closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self.flush()
        try:
            self.backend.close()
        except Exception as error:  # noqa: BLE001
            self._failed("close", error)

    def _verified(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, Record | CorruptRecord]]:
        values = self.backend.get_many([entry.key for entry in entries])
        for entry in entries:
            data = values.get(entry.key)
            if data is None:
                yield entry, CorruptRecord("it cannot be read")
                continue
            try:
                yield entry, unpack(data)
            except CorruptRecord as corruption:
                yield entry, corruption

    def _touch(self, keys: Iterable[bytes]) -> None:
        with self._lock:
            touched = self._touched
            for key in keys:
                touched[key] = touched.get(key, 0) + 1
        if len(touched) > _TOUCH_AT:
            self.flush()

    def _verify(self, key: bytes, data: bytes, recipe: bytes | None) -> Record | None:
        try:
            record = unpack(data)
        except CorruptRecord as corruption:
            self._found_corrupt(key, corruption)
            return None
        if record.recipe == recipe:
            return record
        if self._is_new(key):
            self.counts.collisions += 1
        return None

    def _found_corrupt(self, key: bytes, corruption: CorruptRecord) -> None:
        if self._is_new(key):
            self.counts.corrupt += 1
        self._warn_once(
            "corrupt",
            "the cache holds a corrupt record (%s: %s); it and any others are computed again",
            key.hex(),
            corruption,
        )

    def found_unreadable(self, key: bytes, node: str, why: str) -> None:
        """Count a record whose value cannot be read: a miss instead of a hit.

        Args:
            key: the key of the record.
            node: the name of the node that cannot read it.
            why: the error.
        """
        if self._is_new(key):
            self.counts.unreadable += 1
        with self._lock:
            self._touched.pop(key, None)
        self._warn_once(
            "unreadable",
            "the cache holds a result of %s that cannot be used (%s); it and any others are "
            "computed again",
            node,
            why,
        )

    def _is_new(self, key: bytes) -> bool:
        """Return whether a key is noticed for the first time, as a miss is looked up twice."""
        with self._lock:
            known = key in self._noticed
            self._noticed.add(key)
            return not known

    def _failed(self, operation: str, error: Exception, start: float | None = None) -> bool:
        """Count and report a failed operation; return whether it timed out."""
        self.counts.errors[operation] = self.counts.errors.get(operation, 0) + 1
        if process.interrupted():  # it gave up because of Ctrl-C
            self._breaker.rest(_KINDS[operation])
            return False
        # One warning in all: later failures usually have the same cause.
        read_only = _KINDS[operation] != "read" and getattr(error, "errno", None) in _READ_ONLY
        self._warn_once(
            "failed",
            "the cache can be read and not written (%s: %s: %s); new results are not stored"
            if read_only
            else "the cache cannot be used (%s: %s: %s); going on without it",
            operation,
            type(error).__name__,
            error,
        )
        if start is None:
            return False
        seconds = 0.0 if self.backend.fails_fast else time.monotonic() - start
        return self._breaker.failed(_KINDS[operation], seconds, error)

    def _warn_once(self, kind: str, message: str, *args: Any) -> None:
        with self._lock:
            if kind in self._warned:
                return
            self._warned.add(kind)
        logger().warning(message, *args)
