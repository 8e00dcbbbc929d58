"""Remembers the digest of a file for as long as its stat is the same.

A digest is kept under the machine, the device, the inode, the size, the mtime and the ctime. Size
and mtime can be restored after a change; the ctime cannot: the kernel sets it.

The young-file rule. Two changes within one tick of the file system's clock leave the same ctime.
So a file that was changed less than `GRAIN_NS` before it was read is not remembered, and what is
remembered is not asked for while the file is that young (git's index has the same rule). Two
seconds are FAT's tick, the coarsest in use; ext3's and HFS+'s is one second, and Linux stamps
others every few milliseconds. A time in the future, after the clock was set back, counts as
young. What a stat cannot show: the second of two changes within one tick of a server whose clock
is behind ours by more than the grain, and what a program writes through a shared memory map after
the kernel stamped its first write.

Where digests are kept is the caller's business: anything with `get_many` and `put_many` will do.
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

__all__ = ["GRAIN_NS", "Memo", "ProcessMemo", "StoreMemo", "entry", "is_young", "recalled"]


GRAIN_NS = 2_000_000_000
"""Nanoseconds for which a changed file counts as young."""

_MACHINE_ID_FILES = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


class Memo(Protocol):
    """Where digests are kept. Both methods may be called from any thread."""

    def get_many(self, keys: Sequence[bytes], /) -> Mapping[bytes, bytes]:
        """Return the values of those keys (16 bytes each) that are held."""
        ...

    def put_many(self, items: Mapping[bytes, bytes], /) -> None:
        """Keep the values, or lose them: a digest that is lost is read again."""
        ...


class ProcessMemo:
    """A memo that lives as long as the process. Safe to use from several threads at once."""

    def __init__(self) -> None:
        self._held: dict[bytes, bytes] = {}

    def get_many(self, keys: Sequence[bytes], /) -> dict[bytes, bytes]:
        """Return what is held of the keys."""
        held = self._held
        return {key: held[key] for key in keys if key in held}

    def put_many(self, items: Mapping[bytes, bytes], /) -> None:
        """Keep the items."""
        self._held.update(items)


def is_young(status: os.stat_result, now_ns: int) -> bool:
    """Tell whether the file may change again without its stat showing it.

    Args:
        status: the file's stat.
        now_ns: when the file was read, or is to be; nanoseconds since the epoch.
    """
    return now_ns - max(status.st_mtime_ns, status.st_ctime_ns) < GRAIN_NS


def entry(kind: str, status: os.stat_result, digest: str = "") -> tuple[bytes, bytes]:
    """Return the key and the value under which the digest of such a file is kept.

    Args:
        kind: which digest of the file, as a file can have several.
        status: the file's stat.
        digest: what is to be kept.
    """
    known = _known(kind, status)
    return xxhash.xxh3_128_digest(known), known + digest.encode()


def recalled(kind: str, status: os.stat_result, value: bytes | None) -> str | None:
    """Return the digest that such a value keeps, or None if it speaks of another file."""
    known = _known(kind, status)
    if value is None or not value.startswith(known):
        return None
    return value.removeprefix(known).decode("ascii", "replace")


def _known(kind: str, status: os.stat_result) -> bytes:
    """Return everything that the digest depends on; the value holds it, so a collision shows."""
    numbers = ":".join(map(str, stamp(status)))
    return f"file/1 {_machine()} {kind} {numbers} ".encode()


@functools.cache
def _machine() -> str:
    """Return 32 hexadecimal digits that differ between machines that share a cache.

    Containers of one image can share a machine id and virtual machines a host name: both count.
    """
    names = [os.uname().nodename.encode("utf-8", "surrogateescape")]
    for path in _MACHINE_ID_FILES:
        try:
            names.append(path.read_bytes().strip())
        except OSError:
            continue
    return xxhash.xxh3_128_hexdigest(b"\0".join(names))


# A memo of file digests that is kept in a store, so that an unchanged file is read once.


_HEAD = RecipeHead("(file)", "1", ("stat",))


class StoreMemo:
    """Keeps digests as records of their own. Safe to use from several threads at once."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get_many(self, keys: Sequence[bytes], /) -> dict[bytes, bytes]:
        """Return what is held of the keys."""
        recipes = {key: _HEAD.recipe({"stat": key}) for key in keys}
        asked = {key_of(recipe): recipe for recipe in recipes.values()}
        records = self._store.get_many(asked)
        return {
            key: record.payload
            for key, recipe in recipes.items()
            if (record := records.get(key_of(recipe))) is not None and record.recipe == recipe
        }

    def put_many(self, items: Mapping[bytes, bytes], /) -> None:
        """Keep the items."""
        records = {}
        for key, value in items.items():
            recipe = _HEAD.recipe({"stat": key})
            records[key_of(recipe)] = Record(recipe, value, "", 0.0, 0.0)
        self._store.put_many(records)
