"""Writing values: diskcache, hardened, on a connection of ours.

Imported at the first write, because diskcache is not needed to read. What is hardened:

- Nothing is evicted: diskcache's default throws values away in silence beyond 1 GB.
- Nothing is pickled or unpickled: keys and values are bytes, and a row that says otherwise is
  refused (CVE-2025-69872: whoever can write the file can write the column that says "pickle").
- A row's file name is believed only if diskcache could have given it; otherwise overwriting a row
  would remove any file that a stranger named in it.
- A replaced value's file is removed after the transaction that replaces it, not within.
- diskcache takes its settings from the database, as attributes and as PRAGMAs. Ours are constants.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diskcache

from cachedeval_disk import blobs, database, upkeep

__all__ = ["Writer"]

_PRAGMAS = {
    "auto_vacuum": 1,  # FULL: what is deleted gives its room back
    "journal_mode": "wal",
    "synchronous": 1,  # NORMAL: a commit outlives the process, without waiting for the disk
    "cache_size": 2**13,
    "mmap_size": 0,  # a mapped file that somebody truncates kills the process
}

_SETTINGS: dict[str, Any] = {
    "statistics": 0,
    "tag_index": 0,
    "eviction_policy": "none",
    "size_limit": 2**62,
    "cull_limit": 0,
    # Values from this size on have a file each: measured as fast here, slower below, faster above.
    "disk_min_file_size": 64 * 1024,
    "disk_pickle_protocol": 0,
    **{f"sqlite_{name}": value for name, value in _PRAGMAS.items()},
}

_COUNTED = ("count", "size", "hits", "misses")
"""The rest of diskcache's settings: numbers that its triggers keep."""

_CHUNK = 500
"""Keys a statement."""

_MANY = 100
"""Deleted at once, as many are a prune, after which the folder is to be smaller."""


class _Disk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """Bytes under bytes, in rows or in files inside the folder."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.folder = Path()
        """The cache's folder; set once diskcache has made this object."""
        self.written: list[str] = []
        """Files of values that are not committed yet."""
        self.replaced: list[object] = []
        """Files of values that are no longer held, once it is committed."""

    def put(self, key: Any) -> tuple[memoryview, bool]:
        if type(key) is not bytes:
            raise TypeError(f"a key is bytes, not {type(key).__name__}")
        return memoryview(key), True

    def store(
        self, value: Any, read: Any, key: Any = None
    ) -> tuple[int, int, str | None, memoryview | None]:
        if read or type(value) is not bytes:
            raise TypeError(f"a value is bytes, not {type(value).__name__}")
        if len(value) < self.min_file_size:
            return 0, diskcache.core.MODE_RAW, None, memoryview(value)
        name, _ = self.filename(key, value)
        blobs.write(self.folder, name, value)
        self.written.append(name)
        return len(value), diskcache.core.MODE_BINARY, name, None

    def get(self, *_: Any) -> Any:
        raise ValueError("keys are read by the reader: diskcache unpickles some")

    def fetch(self, *_: Any) -> Any:
        raise ValueError("values are read by the reader: diskcache unpickles some")

    def remove(self, file_path: Any) -> None:
        self.replaced.append(file_path)


class _Cache(diskcache.Cache):  # type: ignore[misc]  # diskcache has no types
    """diskcache on a given connection; by itself it opens one for each thread."""

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self._given = connection
        # diskcache makes the folder that it is given, and expands `~` and `$NAME` in its name. So
        # it is given one that exists, and the true one is told to the disk below it.
        super().__init__(folder.anchor, disk=_Disk, **_SETTINGS)
        self.disk.folder = folder

    @property
    def _con(self) -> sqlite3.Connection:
        return self._given

    def close(self) -> None:
        """Leave the connection open: it is the writer's."""


class Writer:
    """Writes to the database in a folder; creates it if there is none.

    Whoever makes or closes one is alone inside the gate, and whoever uses one is inside the gate.
    Not safe for several threads at once.

    Args:
        folder: the cache's folder, without symbolic links in it; it exists.
        like: a file whose permissions the new files get.

    Raises:
        BackendError: the database is another program's, or a newer version's.
        sqlite3.Error, OSError: it cannot be opened for writing.
    """

    def __init__(self, folder: Path, like: Path) -> None:
        self._folder = folder
        path = folder / database.NAME
        if not path.exists():
            # What is left of a database that somebody removed would be taken for the new one's.
            for rest in ("-wal", "-shm", "-journal"):
                path.with_name(path.name + rest).unlink(missing_ok=True)
        self.connection = database.connect_to_write(path, like)
        try:
            database.check_format(self.connection, path)
            self._cache = self._open()
        except BaseException:
            self.connection.close()
            raise
        self.identity = database.find(path)
        """Which file this writes to."""
        self._gone = 0
        """How many were deleted since the folder was last put in order."""

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        """Keep all the items, or none.

        Raises:
            sqlite3.Error, OSError: none is kept.
        """
        disk = self._cache.disk
        try:
            with self._cache.transact():
                for key, value in items.items():
                    self._cache.set(key, value)
        except BaseException as error:  # noqa: BLE001  raised again, as what it truly is
            disk.replaced.clear()
            for name in disk.written:
                blobs.remove(self._folder, name)
            raise _cause(error) from None
        finally:
            disk.written.clear()
        self._remove_replaced()

    def delete_many(self, keys: Sequence[bytes]) -> int:
        """Forget the keys; return how many were held.

        Raises:
            sqlite3.Error, OSError: some are still held.
        """
        deleted = 0
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            marks = ",".join("?" * len(chunk))
            try:
                with self._cache.transact():
                    names = self._delete(f"key IN ({marks})", chunk)
                    if len(names) < len(chunk):
                        # Gone by now, or listed with a key made of one of another type.
                        other = "(key IS NULL OR key < x'')"  # in the index, all before the blobs
                        key = "CAST(coalesce(key, '') AS BLOB)"
                        names += self._delete(f"{other} AND {key} IN ({marks})", chunk)
            except diskcache.Timeout as error:
                raise _cause(error) from None
            deleted += len(names)
            self._cache.disk.replaced += [name for name in names if name is not None]
            self._remove_replaced()
        return deleted

    def _delete(self, where: str, keys: Sequence[bytes]) -> list[object]:
        """Delete rows; return the names of their files, None of those that have none."""
        execute = self.connection.execute
        query = f"SELECT filename FROM Cache WHERE {where}"  # noqa: S608  the callers' own words
        names = [name for (name,) in execute(query, keys).fetchall()]
        execute(f"DELETE FROM Cache WHERE {where}", keys)  # noqa: S608
        return names

    def give_room_back(self, deleted: int) -> None:
        """After so many were deleted, make the folder smaller, as far as others allow.

        The caller is alone inside the gate.

        Raises:
            sqlite3.Error: the database is damaged.
        """
        ((held,),) = self.connection.execute("SELECT count(*) FROM Cache").fetchall()
        if deleted < _MANY and deleted * 20 < held:
            return  # too little to be worth the wait; the room is used for new values
        self._gone += deleted
        if self._gone * 10 >= held:
            self._gone = 0
            upkeep.sweep(self._folder, self.connection)
            upkeep.pack(self.connection)
        upkeep.checkpoint(self.connection)

    def close(self) -> None:
        """Close the connection; the last one of all processes tidies up after the database."""
        self.connection.close()

    def _open(self) -> _Cache:
        execute = self.connection.execute
        for name, value in _PRAGMAS.items():
            if name == "journal_mode":  # until here it is written straight into the file
                self._stamp()
            execute(f"PRAGMA {name} = {value}")
        # One transaction, where diskcache makes dozens: faster by 10 ms, and made whole or not.
        execute("BEGIN IMMEDIATE")
        try:
            if execute("SELECT 1 FROM sqlite_master WHERE name = 'Settings'").fetchall():
                known = (*_SETTINGS, *_COUNTED)
                marks = ",".join("?" * len(known))
                execute(f"DELETE FROM Settings WHERE key NOT IN ({marks})", known)  # noqa: S608
            cache = _Cache(self.connection, self._folder)
        except BaseException:
            if self.connection.in_transaction:
                execute("ROLLBACK")
            raise
        execute("COMMIT")
        return cache

    def _stamp(self) -> None:
        execute = self.connection.execute
        if execute("PRAGMA application_id").fetchall() == [(0,)]:
            execute("BEGIN IMMEDIATE")
            execute(f"PRAGMA application_id = {database.APPLICATION}")
            execute(f"PRAGMA user_version = {database.STAMP}")
            execute("COMMIT")

    def _remove_replaced(self) -> None:
        disk = self._cache.disk
        names, disk.replaced = disk.replaced, []
        for name in names:
            blobs.remove(self._folder, name)


def _cause(error: BaseException) -> BaseException:
    # diskcache puts a time-out, or a roll-back that failed, in the place of what went wrong.
    hidden = error.__context__
    if isinstance(error, (diskcache.Timeout, sqlite3.Error)) and isinstance(hidden, sqlite3.Error):
        return hidden
    return error
