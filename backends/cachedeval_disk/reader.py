"""Reading values: batched selects on a connection of our own, without diskcache.

A run that finds all it needs thereby imports no diskcache, takes no write lock, pays for no
bookkeeping of use, and works in a folder that it may not write to.
"""

import logging
import os
import sqlite3
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from cachedeval_disk import blobs, damage, database

__all__ = ["Reader", "Row"]

_log = logging.getLogger("cachedeval")

_CHUNK = 500
"""Keys a select: measured as fast as any number from 100 on, and below every build's limit."""

_RAW, _FILE = 1, 2
"""diskcache's modes for bytes in the row and in a file; it has others, and they are not read."""


class Row(NamedTuple):
    """What the database tells of a value without its bytes; of types that a row can have."""

    key: Any
    created: Any
    size: Any
    filename: Any


class Reader:
    """Reads the database in a folder, whatever file that is at the moment.

    Args:
        folder: the cache's folder, without symbolic links in it.

    Thread safety: every method may be called from any thread; they take turns.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._path = os.path.join(folder, database.NAME)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._identity: database.Identity | None = None
        self.damaged: database.Identity | None = None
        """The database that was found damaged, for whoever writes next to replace."""

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that are held and can be read.

        Raises:
            BackendError: the database is not ours to read.
            sqlite3.Error: it cannot be read at all.
        """
        wanted = list(dict.fromkeys(keys))
        with self._lock:
            connection = self._connect()
            if connection is None or not wanted:
                return {}

            rows = self._select(connection, wanted)
        values = {}
        for key, mode, value, filename, size in rows:
            data = value if mode == _RAW else self._read_file(mode, filename, size)
            if type(data) is bytes and type(key) is bytes:
                values[key] = data
        return values

    def rows(self) -> list[Row]:
        """Return what is known of every value that may be held.

        Raises:
            BackendError: the database is not ours to read.
            sqlite3.Error: it cannot be read.
        """
        with self._lock:
            connection = self._connect()
            if connection is None:
                return []
            rows, whole = damage.select_all(
                connection,
                "SELECT key, store_time, CASE mode WHEN 1 THEN length(value) ELSE size END, "
                "filename FROM Cache WHERE raw = 1 AND mode IN (1, 2)",
            )
            if not whole:
                self._found_damaged()
        return [Row(*row) for row in rows if type(row[0]) is bytes]

    def close(self) -> None:
        """Close the connection; the next read opens another."""
        with self._lock:
            self._close()

    def _connect(self) -> sqlite3.Connection | None:
        found = database.identity(self._path)
        while found != self._identity or self._connection is None:
            self._close()
            if found is None:
                return None
            database.check_format(self._path)
            self._connection = database.connect_to_read(self._path)
            # The first read has bound the database's other files to it by name: if another
            # database took the name meanwhile, they are that one's.
            self._identity, found = found, database.identity(self._path)
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._identity = None

    def _select(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> list[Any]:
        def select(chunk: Sequence[bytes]) -> list[Any]:
            marks = ",".join("?" * len(chunk))
            return connection.execute(
                "SELECT key, mode, value, filename, size FROM Cache "
                f"WHERE raw = 1 AND key IN ({marks})",  # noqa: S608  question marks alone
                chunk,
            ).fetchall()

        rows: list[Any] = []
        lost = 0
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            try:
                rows += select(chunk)
            except sqlite3.DatabaseError as error:
                if database.is_empty(error):
                    return []
                if not damage.is_damage(error):
                    raise
                self._found_damaged()
                found, unread = damage.read_around(chunk, select)
                rows += found
                lost += unread
                if lost == start + len(chunk):  # not a bad row, but a database that is lost
                    raise
        if lost:
            _log.warning(
                "the cache database %s is damaged: %d of %d values asked for cannot be read",
                self._path,
                lost,
                len(keys),
            )
        return rows

    def _read_file(self, mode: Any, filename: Any, size: Any) -> bytes | None:
        if mode != _FILE or type(filename) is not bytearray or type(size) is not int:
            return None
        return blobs.read(self._folder, filename.decode("latin-1"), size)

    def _found_damaged(self) -> None:
        self.damaged = self._identity
