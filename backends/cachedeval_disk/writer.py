"""Writing values: diskcache, hardened, on a connection of ours.

Imported at the first write, because diskcache is not needed to read. What is hardened:

- Nothing is evicted: diskcache's default throws values away in silence beyond 1 GB.
- Nothing is pickled or unpickled: keys and values are bytes, and a row that says otherwise is
  refused (CVE-2025-69872: whoever can write the file can write the column that says "pickle").
- A row's file name is believed only if diskcache could have given it; otherwise overwriting a row
  would remove any file that a stranger named in it.
- A replaced value's file is removed after the transaction that replaces it, not within.
- diskcache's settings are read from the database into attributes and PRAGMAs. Opened by us, they
  are set by us.
"""

import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import diskcache

from cachedeval_disk import blobs, database

__all__ = ["Writer"]

_MIN_FILE_SIZE = 128 * 1024
"""Values from this size on get a file of their own."""

_PRAGMAS = {
    "auto_vacuum": 1,  # FULL: deleted values give their room back
    "journal_mode": "wal",
    "synchronous": 1,  # NORMAL: a commit outlives the process, at the price of no disk flush
    "cache_size": 2**13,
    "mmap_size": 0,  # a mapped file that somebody truncates kills the process
}

_SETTINGS: dict[str, Any] = {
    "statistics": 0,
    "tag_index": 0,
    "eviction_policy": "none",
    "size_limit": 2**62,
    "cull_limit": 0,
    "disk_min_file_size": _MIN_FILE_SIZE,
    "disk_pickle_protocol": 0,
    **{f"sqlite_{name}": value for name, value in _PRAGMAS.items()},
}

_COUNTED = ("count", "size", "hits", "misses")

_CHUNK = 500


class _Disk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """Bytes under bytes, in rows or in files inside the folder."""

    folder = ""
    """The cache's folder; set once diskcache has made this object."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.written: list[str] = []
        """Files of values not committed yet."""
        self.replaced: list[str] = []
        """Files of values to be removed after the commit."""

    def put(self, key: Any) -> tuple[memoryview, bool]:
        if type(key) is not bytes:
            raise TypeError(f"a key is bytes, not {type(key).__name__}")
        return memoryview(key), True

    def get(self, key: Any, raw: Any) -> bytes:
        if not raw or type(key) is not bytes:
            raise ValueError("a key that is not plain bytes is not read")
        return key

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

    def fetch(self, mode: Any, filename: Any, value: Any, read: Any) -> bytes:
        if mode == diskcache.core.MODE_RAW and not read and type(value) is bytes:
            return value
        raise ValueError(f"a value of mode {mode!r} is not read here")

    def remove(self, file_path: Any) -> None:
        self.replaced.append(file_path)


class _Cache(diskcache.Cache):  # type: ignore[misc]  # diskcache has no types
    """diskcache on a given connection, where it opens one of its own for each thread."""

    def __init__(self, connection: sqlite3.Connection, folder: str) -> None:
        self._given = connection
        # diskcache expands `~` and `$NAME` in the folder that it is given, and makes it.
        super().__init__(os.sep, disk=_Disk, **_SETTINGS)
        self.disk.folder = folder

    @property
    def _con(self) -> sqlite3.Connection:
        return self._given

    def close(self) -> None:
        """Leave the connection open: it is the writer's."""


class Writer:
    """Writes to the database in a folder; creates it if there is none.

    The caller stays alone inside the gate while it makes or closes one, and inside the gate while
    it uses one. Not safe for several threads at once.

    Args:
        folder: the cache's folder, without symbolic links in it; it exists.

    Raises:
        BackendError: the database is another program's, or a newer version's.
        sqlite3.Error, OSError: it cannot be opened for writing.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        path = os.path.join(folder, database.NAME)
        if not os.path.exists(path):
            # What is left of a database that somebody removed would be replayed into the new one.
            for rest in ("-wal", "-shm", "-journal"):
                if os.path.lexists(path + rest):
                    os.unlink(path + rest)
            # SQLite gives its other files the mode of this one.
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.fchmod(fd, 0o600)
            os.close(fd)
        database.check_format(path)
        self._connection = sqlite3.connect(
            path, timeout=60, isolation_level=None, check_same_thread=False
        )
        try:
            self._cache = self._open()
        except BaseException:
            self._connection.close()
            raise
        self.identity = database.identity(path)
        """Which file this writes to."""

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
        except BaseException as error:
            disk.replaced.clear()
            for name in disk.written:
                blobs.remove(self._folder, name)
            # diskcache hides what went wrong behind a time-out or a failed roll-back.
            cause = error.__context__
            if isinstance(error, (diskcache.Timeout, sqlite3.Error)) and cause is not None:
                raise cause from None
            raise
        finally:
            disk.written.clear()
        self._remove_replaced()

    def delete_many(self, keys: Sequence[bytes]) -> int:
        """Forget the keys; return how many were held.

        Raises:
            sqlite3.Error: some are still held.
        """
        deleted = 0
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            where = f"raw = 1 AND key IN ({','.join('?' * len(chunk))})"
            with self._cache.transact():
                names = self._connection.execute(
                    f"SELECT filename FROM Cache WHERE {where}",  # noqa: S608  question marks
                    chunk,
                ).fetchall()
                self._connection.execute(f"DELETE FROM Cache WHERE {where}", chunk)  # noqa: S608
            deleted += len(names)
            self._cache.disk.replaced += [name for (name,) in names if name is not None]
            self._remove_replaced()
        return deleted

    def close(self) -> None:
        """Close the connection; the last one of all processes tidies the database up."""
        self._connection.close()

    def _open(self) -> _Cache:
        execute = self._connection.execute
        execute("PRAGMA trusted_schema = OFF")
        for name, value in _PRAGMAS.items():
            if name == "journal_mode":  # from here on the header is not written at once
                self._stamp()
            execute(f"PRAGMA {name} = {value}")
        # In one transaction: diskcache's dozens of small ones take longer than all else in a run.
        execute("BEGIN IMMEDIATE")
        try:
            known = (*_SETTINGS, *_COUNTED)
            if execute("SELECT 1 FROM sqlite_master WHERE name = 'Settings'").fetchone():
                execute(
                    f"DELETE FROM Settings WHERE key NOT IN ({','.join('?' * len(known))})",  # noqa: S608
                    known,
                )
            cache = _Cache(self._connection, self._folder)
        except BaseException:
            execute("ROLLBACK")
            raise
        execute("COMMIT")
        return cache

    def _stamp(self) -> None:
        execute = self._connection.execute
        ((application,),) = execute("PRAGMA application_id").fetchall()
        if application == 0:
            execute("BEGIN IMMEDIATE")
            execute(f"PRAGMA application_id = {database.APPLICATION}")
            execute(f"PRAGMA user_version = {database.STAMP}")
            execute("COMMIT")

    def _remove_replaced(self) -> None:
        names, self._cache.disk.replaced = self._cache.disk.replaced, []
        for name in names:
            blobs.remove(self._folder, name)


def _names(rows: Iterable[tuple[Any]]) -> set[str]:
    return {name for (name,) in rows if blobs.is_name(name)}
