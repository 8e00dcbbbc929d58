"""The store: verified records over a backend.

It is the edge between the engine and what may go wrong with a disk or a server. Damaged records
are misses, counted and reported. A backend that fails is a warning, and the work goes on uncached.
"""

import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from cachedeval.engine.backend import Backend, Entry, completed
from cachedeval.engine.errors import BackendError
from cachedeval.engine.log import logger
from cachedeval.engine.record import Damaged, Record, seal, unseal

__all__ = ["Store", "StoreCounts"]

_TOUCH_AT = 50_000
"""Hits noted in memory before they are written down, so that a long run does not hoard them."""


class StoreCounts:
    """What a store noticed since it was opened."""

    def __init__(self) -> None:
        self.damaged = 0
        """Records that were found damaged or foreign, and not served."""
        self.unreadable = 0
        """Records that are whole, but whose values are not what their nodes return now."""
        self.collisions = 0
        """Keys under which another recipe's record was found."""
        self.errors: dict[str, int] = {}
        """Failed backend operations by name: get, put, delete, lease, touch, close."""


class Store:
    """Reads and writes records through a backend.

    Args:
        backend: where the bytes are kept; closed with the store.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = completed(backend)
        self.counts = StoreCounts()
        self._touched: dict[bytes, int] = {}
        self._noticed: set[bytes] = set()
        """Keys of what was counted as damaged or as a collision, until they are written anew."""
        self._lock = threading.Lock()
        self._warned: set[str] = set()
        self._closed = False

    def get_many(self, recipes: Mapping[bytes, bytes]) -> dict[bytes, Record]:
        """Return the verified records of those recipes that have one; a hit each.

        Args:
            recipes: the recipe of each key.
        """
        records = self.peek_many(recipes)
        if records:
            self._touch(records)
        return records

    def peek_many(self, recipes: Mapping[bytes, bytes]) -> dict[bytes, Record]:
        """Return the same as `get_many`, but count no hits."""
        try:
            values = self.backend.get_many([*recipes])
        except Exception as error:  # noqa: BLE001  whatever a backend raises, the work goes on
            self._failed("get", error)
            return {}
        found: dict[bytes, Record] = {}
        for key, data in values.items():
            record = self._verify(key, data, recipes.get(key))
            if record is not None:
                found[key] = record
        return found

    def get(self, key: bytes, recipe: bytes) -> Record | None:
        """Return the verified record of one recipe, if it has one; a hit."""
        try:
            data = self.backend.get_many((key,)).get(key)
        except Exception as error:  # noqa: BLE001  whatever a backend raises, the work goes on
            self._failed("get", error)
            return None
        if data is None:
            return None
        record = self._verify(key, data, recipe)
        if record is not None:
            self._touch((key,))
        return record

    def put_many(self, records: Mapping[bytes, Record]) -> bool:
        """Keep the records; when it returns True they outlive the process."""
        try:
            self.backend.put_many({key: seal(record) for key, record in records.items()})
        except Exception as error:  # noqa: BLE001  whatever a backend raises, the work goes on
            self._failed("put", error)
            return False
        with self._lock:
            self._noticed.difference_update(records)
        return True

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
        """Try to become the only one that computes these keys; return those that were granted.

        A backend that cannot tell grants them all: then two may compute the same, which costs time
        and harms nothing.
        """
        try:
            return self.backend.lease_many(keys)
        except Exception as error:  # noqa: BLE001  whatever a backend raises, the work goes on
            self._failed("lease", error)
            return set(keys)

    def release_many(self, keys: Collection[bytes]) -> None:
        """Release leases that were granted."""
        if not keys:
            return
        try:
            self.backend.release_many(keys)
        except Exception as error:  # noqa: BLE001
            self._failed("lease", error)

    def records(self) -> Iterator[tuple[Entry, Record | Damaged]]:
        """Yield every record with its entry, verified; counts no hits.

        Raises:
            BackendError: the backend cannot be read.
        """
        batch: list[Entry] = []
        try:
            for entry in self.backend.scan():
                batch.append(entry)
                if len(batch) >= 500:  # noqa: PLR2004  enough to spread a query's cost
                    yield from self._verified(batch)
                    batch = []
            if batch:
                yield from self._verified(batch)
        except Exception as error:
            raise BackendError(f"the cache cannot be read: {error}") from error

    def flush(self) -> None:
        """Write down which records were used, and when."""
        with self._lock:
            touched, self._touched = self._touched, {}
        if touched:
            try:
                self.backend.touch_many(touched, time.time())
            except Exception as error:  # noqa: BLE001
                # Nothing is lost but the order in which a prune would take the records.
                self.counts.errors["touch"] = self.counts.errors.get("touch", 0) + 1
                logger().debug("the last use of %d records was not noted: %s", len(touched), error)

    def forget_parent(self) -> None:
        """In a forked child: another thread may have held the lock, and the parent's hits are its own."""
        self._lock = threading.Lock()
        self._touched = {}

    def close(self) -> None:
        """Write down what was used and close the backend; closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self.flush()
        try:
            self.backend.close()
        except Exception as error:  # noqa: BLE001
            self._failed("close", error)

    def _verified(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, Record | Damaged]]:
        values = self.backend.get_many([entry.key for entry in entries])
        for entry in entries:
            data = values.get(entry.key)
            if data is None:
                yield entry, Damaged("it cannot be read")
                continue
            try:
                yield entry, unseal(data)
            except Damaged as damage:
                yield entry, damage

    def _touch(self, keys: Iterable[bytes]) -> None:
        with self._lock:
            touched = self._touched
            for key in keys:
                touched[key] = touched.get(key, 0) + 1
        if len(touched) > _TOUCH_AT:
            self.flush()

    def _verify(self, key: bytes, data: bytes, recipe: bytes | None) -> Record | None:
        try:
            record = unseal(data)
        except Damaged as damage:
            self._found_damaged(key, damage)
            return None
        if record.recipe == recipe:
            return record
        if self._is_new(key):
            self.counts.collisions += 1
        return None

    def _found_damaged(self, key: bytes, damage: Damaged) -> None:
        if self._is_new(key):
            self.counts.damaged += 1
        self._warn_once(
            "damaged",
            "the cache holds a damaged record (%s: %s); it and any others are computed again",
            key.hex(),
            damage,
        )

    def found_unreadable(self, key: bytes, node: str, why: str) -> None:
        """Count a record whose value cannot be read: a miss, and no use of the record.

        Args:
            key: the record's.
            node: the name of the node that cannot read it.
            why: what reading it raised.
        """
        if self._is_new(key):
            self.counts.unreadable += 1
        with self._lock:
            self._touched.pop(key, None)
        self._warn_once(
            "unreadable",
            "the cache holds a result of %s that cannot be read (%s); it and any others are "
            "computed again",
            node,
            why,
        )

    def _is_new(self, key: bytes) -> bool:
        """Say whether a key is noticed for the first time; a miss is looked up twice."""
        with self._lock:
            known = key in self._noticed
            self._noticed.add(key)
            return not known

    def _failed(self, operation: str, error: Exception) -> None:
        self.counts.errors[operation] = self.counts.errors.get(operation, 0) + 1
        # One warning, whatever else the same cause breaks later.
        self._warn_once(
            "failed",
            "the cache cannot be used (%s: %s: %s); going on without it",
            operation,
            type(error).__name__,
            error,
        )

    def _warn_once(self, kind: str, message: str, *args: Any) -> None:
        with self._lock:
            if kind in self._warned:
                return
            self._warned.add(kind)
        logger().warning(message, *args)
