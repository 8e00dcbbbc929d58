"""Backends with one fault each, in what they store or scan."""

import itertools
import os
import pickle
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from cachedeval.engine.backend import Backend, Count, Entry
from cachedeval_disk import DiskBackend


class Wrapped(Backend):
    """A correct backend; each subclass adds one fault."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.sound = DiskBackend(place / "cache")

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return self.sound.get_many(keys)

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self.sound.put_many(items)

    def delete_many(self, keys: Iterable[bytes]) -> int:
        return self.sound.delete_many(keys)

    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        self.sound.touch_many(hits, when)

    def scan(self) -> Iterator[Entry]:
        return self.sound.scan()

    def lease(self, key: bytes) -> AbstractContextManager[bool]:
        return self.sound.lease(key)

    def close(self) -> None:
        self.sound.close()


class LosesAValue(Wrapped):
    puts = 0

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self.puts += 1
        if self.puts != 7:
            self.sound.put_many(items)


class CountsTooFew(Wrapped):
    def count(self, *, sizes: bool = True) -> Iterator[Count]:
        return itertools.islice(super().count(sizes=sizes), 1, None)


class StoresInPart(Wrapped):
    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self.sound.put_many(dict(list(items.items())[:999]))


class StoresLate(Wrapped):
    waiting: Mapping[bytes, bytes] | None = None

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self.close()
        self.waiting = dict(items)

    def close(self) -> None:
        if self.waiting:
            self.sound.put_many(self.waiting)
            self.waiting = None
        self.sound.close()


class CutsKeys(Wrapped):
    """Stores values under the first 15 bytes of their keys."""

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found = self.sound.get_many([key[:15] for key in keys])
        return {key: found[key[:15]] for key in keys if key[:15] in found}

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self.sound.put_many({key[:15]: value for key, value in items.items()})


class ReturnsAllKeys(Wrapped):
    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found = self.sound.get_many(keys)
        return self.sound.get_many([e.key for e in self.sound.scan()]) if found else found


class RaisesForMissingKeys(Wrapped):
    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found = self.sound.get_many(keys)
        return {key: found[key] for key in keys}


class DropsEmptyValues(Wrapped):
    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return {key: value for key, value in self.sound.get_many(keys).items() if value}


class ReturnsAnotherType(Wrapped):
    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return {key: bytearray(value) for key, value in self.sound.get_many(keys).items()}  # type: ignore[misc]


class CutsLongValues(Wrapped):
    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self.sound.put_many({key: value[: 2**17] for key, value in items.items()})


class NeverReplaces(Wrapped):
    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        held = self.sound.get_many(list(items))
        self.sound.put_many({key: value for key, value in items.items() if key not in held})


class ForgetsAfterClose(Wrapped):
    def close(self) -> None:
        self.sound.delete_many([entry.key for entry in self.sound.scan()])
        self.sound.close()


class CachesInMemory(Wrapped):
    """Other handles see its changes only when they are opened again."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        entries = [entry.key for entry in self.sound.scan()]
        self.seen = self.sound.get_many(entries)

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return {key: self.seen[key] for key in keys if key in self.seen}

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self.sound.put_many(items)
        self.seen.update(items)

    def delete_many(self, keys: Iterable[bytes]) -> int:
        keys = list(keys)
        for key in keys:
            self.seen.pop(key, None)
        return self.sound.delete_many(keys)


class NeverDeletes(Wrapped):
    def delete_many(self, keys: Iterable[bytes]) -> int:
        return len(self.sound.get_many(list(keys)))


class DeleteMiscounts(Wrapped):
    def delete_many(self, keys: Iterable[bytes]) -> int:
        keys = list(keys)
        self.sound.delete_many(keys)
        return len(keys)


class ScanSkipsAKey(Wrapped):
    def scan(self) -> Iterator[Entry]:
        yield from list(self.sound.scan())[1:]


class ScansDeletedKeys(Wrapped):
    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.shown: dict[bytes, Entry] = {}

    def scan(self) -> Iterator[Entry]:
        self.shown.update((entry.key, entry) for entry in self.sound.scan())
        yield from self.shown.values()


class ReportsWrongSizes(Wrapped):
    def scan(self) -> Iterator[Entry]:
        return (entry._replace(size=100) for entry in self.sound.scan())


class ReportsWrongTimes(Wrapped):
    def scan(self) -> Iterator[Entry]:
        return (entry._replace(created=1e6, used=1e6) for entry in self.sound.scan())


class IgnoresTouches(Wrapped):
    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        pass


class StoresTouchedKeys(Wrapped):
    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        held = self.sound.get_many(list(hits))
        self.sound.put_many({key: b"" for key in hits if key not in held})
        self.sound.touch_many(hits, when)


class ClosesOnce(Wrapped):
    closed = False

    def close(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True
        self.sound.close()


class RecordsUsesInMemory(Wrapped):
    """Other handles never see the uses."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.hits: dict[bytes, int] = {}

    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        del when
        self.hits.update(hits)

    def scan(self) -> Iterator[Entry]:
        for entry in self.sound.scan():
            yield entry._replace(hits=self.hits.get(entry.key, 0))


class RaisesForNoKeys(Wrapped):
    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        next(iter(items))
        self.sound.put_many(items)


class StoresText(Wrapped):
    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        texts = {key: value.decode("utf-8", "replace").encode() for key, value in items.items()}
        self.sound.put_many(texts)


class CountsRepeatedKeys(Wrapped):
    def delete_many(self, keys: Iterable[bytes]) -> int:
        keys = list(keys)
        stored = self.sound.get_many(keys)
        self.sound.delete_many(keys)
        return sum(key in stored for key in keys)


class StoresTheMapping(Wrapped):
    mapping: Mapping[bytes, bytes] = {}

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return {key: self.mapping[key] for key in keys if key in self.mapping}

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self.mapping = items


class ScansByOffset(Wrapped):
    """Reads the next entries by their number, which changes when others are deleted."""

    def scan(self) -> Iterator[Entry]:
        number = 0
        while entries := sorted(self.sound.scan())[number : number + 100]:
            yield from entries
            number += 100


class RecordsUsesForEver(Wrapped):
    """A deleted value's hits count for the next value of its key."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.hits: Counter[bytes] = Counter()

    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        del when
        self.hits.update(hits)

    def scan(self) -> Iterator[Entry]:
        for entry in self.sound.scan():
            yield entry._replace(hits=self.hits[entry.key])


class SharesAResult(Wrapped):
    """Each call stores its result in the object, where another thread replaces it."""

    found: dict[bytes, bytes]

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        self.found = self.sound.get_many(keys)
        time.sleep(0.001)
        return self.found


class WritesOneFile(Wrapped):
    """Reads all values from one file and writes them back with the new ones."""

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        path = self.place / "values"
        stored = pickle.loads(path.read_bytes()) if path.exists() else {}  # noqa: S301  our own
        return {key: stored[key] for key in keys or stored if key in stored}

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        stored = {**self.get_many([]), **items}
        time.sleep(0.002)
        new = self.place / f"values.{os.getpid()}"
        new.write_bytes(pickle.dumps(stored))
        new.replace(self.place / "values")


FAULTS: list[tuple[type[Wrapped], str]] = [
    (LosesAValue, "returns_stored_values"),
    (CountsTooFew, "counts_and_selects_as_it_scans"),
    (StoresInPart, "stores_many_keys_at_once"),
    (StoresLate, "persists_after_kill"),
    (CutsKeys, "distinguishes_keys"),
    (ReturnsAllKeys, "returns_only_requested_keys"),
    (RaisesForMissingKeys, "omits_missing_keys"),
    (DropsEmptyValues, "stores_empty_values"),
    (ReturnsAnotherType, "returns_stored_values"),
    (CutsLongValues, "stores_values_of_any_size"),
    (NeverReplaces, "replaces_existing_values"),
    (ForgetsAfterClose, "persists_after_close"),
    (CachesInMemory, "shares_values_between_handles"),
    (CachesInMemory, "shares_values_between_processes"),
    (NeverDeletes, "deletes_and_counts"),
    (DeleteMiscounts, "deletes_and_counts"),
    (ScanSkipsAKey, "scans_every_key_once"),
    (ScansDeletedKeys, "behaves_like_a_dictionary"),
    (ReportsWrongSizes, "reports_sizes"),
    (ReportsWrongTimes, "reports_creation_times"),
    (IgnoresTouches, "records_uses"),
    (StoresTouchedKeys, "ignores_touches_of_missing_keys"),
    (ClosesOnce, "closes_twice"),
    (RecordsUsesInMemory, "shares_uses_between_handles"),
    (RaisesForNoKeys, "accepts_empty_calls"),
    (StoresText, "stores_any_bytes"),
    (CountsRepeatedKeys, "accepts_repeated_keys"),
    (StoresTheMapping, "copies_mappings"),
    (ScansByOffset, "scans_while_keys_change"),
    (RecordsUsesForEver, "deletes_uses_with_values"),
    (SharesAResult, "supports_threads"),
    (WritesOneFile, "supports_processes"),
]
"""Each backend with a fault, and the check that it fails."""
