"""The digest cache: the digest of a file, valid as long as the file's stat is the same.

An entry's key holds the machine, the device, the inode, the size, the mtime and the ctime. A
program can restore size and mtime after a change, but not the ctime: the kernel sets it.

The young-file rule: two changes within one tick of the file system's clock leave the same ctime. So
the digest of a file that changed less than `GRAIN_NS` before it was read is not stored, and the
cache is not used for a file that young (git's index has the same rule). Two seconds are the tick of
FAT, the coarsest in use; ext3 and HFS+ have one second, and Linux updates the others every few
milliseconds. A time in the future (the clock was set back) counts as young.

A stat does not show two kinds of change: the second of two changes within one tick of a file server
whose clock is more than `GRAIN_NS` behind, and writes through a shared memory map after the kernel
updated the times for the first of them.

Digests are stored in memory (`ProcessDigestCache`) or as records of a store (`StoreDigestCache`). Any object with
`get_many` and `put_many` works.
"""

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import xxhash

from cachedeval.engine.hashing import stamp
from cachedeval.engine.keys import RecipeHead, key_of
from cachedeval.engine.record import Record
from cachedeval.engine.store import Store

__all__ = [
    "GRAIN_NS",
    "DigestCache",
    "ProcessDigestCache",
    "StoreDigestCache",
    "entry",
    "is_young",
    "recalled",
]

GRAIN_NS = 2_000_000_000
"""Nanoseconds for which a changed file counts as young."""

_MACHINE_ID_FILES = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))

_HEAD = RecipeHead("(file)", "1", ("stat",))
"""The start of the recipes under which a store holds digests."""


class DigestCache(Protocol):
    """A digest cache. Both methods may be called from any thread."""

    def get_many(self, keys: Sequence[bytes], /) -> Mapping[bytes, bytes]:
        """Return the values of those keys (16 bytes each) that are stored."""
        ...

    def put_many(self, items: Mapping[bytes, bytes], /) -> None:
        """Store the values. It may lose them: then the files are read again."""
        ...


class ProcessDigestCache:
    """A digest cache in memory, which ends with the process.

    Thread safety: every method may be called from any thread.

    Example:
        >>> known_digests = ProcessDigestCache()
        >>> known_digests.put_many({b"key": b"value"})
        >>> known_digests.get_many([b"key", b"other"])
        {b'key': b'value'}
    """

    def __init__(self) -> None:
        self._held: dict[bytes, bytes] = {}

    def get_many(self, keys: Sequence[bytes], /) -> dict[bytes, bytes]:
        """Return the values of those keys that are stored."""
        held = self._held
        return {key: held[key] for key in keys if key in held}

    def put_many(self, items: Mapping[bytes, bytes], /) -> None:
        """Store the items."""
        self._held.update(items)


class StoreDigestCache:
    """A digest cache in a store: an unchanged file is read once for all processes.

    Thread safety: every method may be called from any thread.

    Args:
        store: where the digests are stored, one record each.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def get_many(self, keys: Sequence[bytes], /) -> dict[bytes, bytes]:
        """Return the values of those keys that are stored."""
        recipes = {key: _HEAD.recipe({"stat": key}) for key in keys}
        asked = {key_of(recipe): recipe for recipe in recipes.values()}
        records = self._store.get_many(asked)
        return {
            key: record.payload
            for key, recipe in recipes.items()
            if (record := records.get(key_of(recipe))) is not None and record.recipe == recipe
        }

    def put_many(self, items: Mapping[bytes, bytes], /) -> None:
        """Store the items."""
        records = {}
        for key, value in items.items():
            recipe = _HEAD.recipe({"stat": key})
            records[key_of(recipe)] = Record(recipe, value, "", 0.0, 0.0)
        self._store.put_many(records)


def is_young(status: os.stat_result, now_ns: int) -> bool:
    """Return whether the file may change again while its stat stays the same.

    Args:
        status: the file's stat.
        now_ns: the time at which the file is read; nanoseconds since the epoch.
    """
    return now_ns - max(status.st_mtime_ns, status.st_ctime_ns) < GRAIN_NS


def entry(kind: str, status: os.stat_result, digest: str = "") -> tuple[bytes, bytes]:
    """Return the key and the value under which a file's digest is stored.

    Args:
        kind: which digest of the file; a file can have several.
        status: the file's stat.
        digest: the digest to store.
    """
    known = _known(kind, status)
    return xxhash.xxh3_128_digest(known), known + digest.encode()


def recalled(kind: str, status: os.stat_result, value: bytes | None) -> str | None:
    """Return the digest that a stored value holds, or None if the value is of another file."""
    known = _known(kind, status)
    if value is None or not value.startswith(known):
        return None
    return value.removeprefix(known).decode("ascii", "replace")


def _known(kind: str, status: os.stat_result) -> bytes:
    """Return everything that the digest depends on; stored in the value to detect collisions."""
    numbers = ":".join(map(str, stamp(status)))
    return f"file/1 {_machine()} {kind} {numbers} ".encode()


@functools.cache
def _machine() -> str:
    """Return 32 hexadecimal digits that differ between machines that share a cache.

    Containers of one image can share a machine id, and virtual machines a host name. So the digits
    depend on both.
    """
    names = [os.uname().nodename.encode("utf-8", "surrogateescape")]
    for path in _MACHINE_ID_FILES:
        try:
            names.append(path.read_bytes().strip())
        except OSError:
            continue
    return xxhash.xxh3_128_hexdigest(b"\0".join(names))
