"""Reading values: batched selects on a connection of our own, without diskcache.

A run that finds all it needs thereby imports no diskcache, takes no write lock, pays for no
bookkeeping of use, and works in a folder that it may not write to.
"""

import sqlite3
import time
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from cachedeval_disk import database, files, forks, recovery, schema, usage
from cachedeval_disk.patience import Patience

__all__ = ["Reader", "Row"]

_CHUNK = 500
"""Keys a select: measured as fast as any number from 100 on, and below every build's limit."""

# diskcache's modes for bytes are 1, in the row, and 2, in a file; it has others, for text and
# pickles, and they are not read.
_IN_ROWS = (
    "SELECT key, CASE WHEN mode = 1 AND typeof(value) = 'blob' THEN value END "
    "FROM Cache WHERE raw = 1 AND key IN"
)
_IN_FILES = "SELECT key, mode, filename, size FROM Cache WHERE raw = 1 AND key IN"
_IN_FILE = 2

_LONGEST_ROW = 2**24
"""Bytes of a row: far more than ours have, and little enough for a broken one that is longer."""

_TRUSTED_S = 0.01
"""Seconds for which the database that is open is taken for the one that its name means: to ask
takes a sixth as long as to read a value. What it holds is right even if it no longer is."""

_FOREVER = 1e12
"""Seconds since the epoch that no clock tells."""


class Row(NamedTuple):
    """What the database tells of a value without its bytes."""

    number: int
    key: bytes
    created: float
    size: int
    in_file: bool


class Reader:
    """Reads the database in a folder, whatever file that is at the moment.

    Args:
        folder: the cache's folder, without symbolic links in it.

    Thread safety: every method may be called from any thread; they take turns.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / database.NAME
        self.guard = forks.Guard()
        """Held during each operation."""
        self._patience = Patience(folder, database.signs(folder), lambda: self.guard)
        self.patience_for_uses = Patience(folder, usage.paths(folder), lambda: self.guard)
        self._connection: database.Connection | None = None
        self._identity: database.Identity | None = None
        self._trusted_until = 0.0
        self.corrupt: database.Identity | None = None
        """The database that was found corrupt, for the next write to replace."""
        forks.register(self)

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that are held.

        One that is there and cannot be read, because it says that it is no bytes or its file is not
        whole, is returned as no bytes at all, so that the check of its checksum fails and is counted.

        Raises:
            BackendError: the database is not ours to read.
            sqlite3.Error: it cannot be read, or nothing that was asked for can.
        """
        return forks.repeat_if_forked(self._get_many, keys)

    def _get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        with self.guard:
            connection: sqlite3.Connection | None = self._connection
            if time.monotonic() > self._trusted_until or self._identity == self.corrupt:
                connection = self._connect()
            if connection is None:
                return {}
            values = dict(self._select(connection, _IN_ROWS, keys))
            if None not in values.values():
                return values
            beside = [key for key, value in values.items() if value is None]
            rows = self._select(connection, _IN_FILES, beside)
        for key in beside:  # by now another may have deleted it
            del values[key]
        for key, *place in rows:
            data = self._read_file(*place)
            if data is not None:
                values[key] = data
        return values

    def rows(self) -> list[Row]:
        """Return what is known of every value, of a corrupt database what can be read.

        Also of those that `get_many` never returns, because their rows say that they are
        something else than bytes: they take room, and a check for corruption is to find them.
        One whose column of another type hides its key, size or time has a key made of what stands
        there, no size, and is as old as can be.

        Raises:
            BackendError: the database is not ours to read.
            sqlite3.Error: nothing can be read.
        """

        def read() -> list[Any]:
            with self.guard:
                connection = self._connect()
                return [] if connection is None else self._select_all(connection)

        rows = forks.repeat_if_forked(read)
        found: dict[bytes, Row] = {}
        for number, key, created, size, in_file, readable in rows:
            if readable or key not in found:
                found[key] = Row(
                    number,
                    key,
                    created if type(created) is float and abs(created) < _FOREVER else 0.0,
                    max(size, 0) if type(size) is int else 0,
                    bool(in_file),
                )
        return list(found.values())

    def open(self) -> None:
        """Open the database, if there is one.

        Raises:
            BackendError: it is not ours to read.
            sqlite3.Error: it cannot be read.
        """
        with self.guard:
            self._connect()

    def close(self) -> None:
        """Close the connection; the next read opens another."""
        with self.guard:
            self._close()

    def close_before_fork(self) -> None:
        """Close the connection; the next read opens another."""
        self._close()

    def forget_parent(self) -> None:
        """In a forked child: forget the parent's connection."""
        self._connection = self._identity = None
        self._trusted_until = 0.0

    def _connect(self) -> sqlite3.Connection | None:
        if self._connection is not None and self._connection.immutable:
            self._close()  # it is for one use: there may be writers now
        found = database.find(self._path)
        while self._connection is None or found != self._identity:
            self._close()
            if found is None:
                return None
            try:
                self._connection = database.connect_to_read(self._path, self._patience)
                self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_ROW)
                database.check_format(self._connection, self._path)
                schema.check(self._connection, schema.CACHE, table="Cache")
            except BaseException as error:
                self._close()
                if recovery.is_uninitialised(error):
                    return None
                if recovery.is_corruption(error):
                    self.corrupt = found
                raise
            # Opening has found the files that belong to it by their names. If meanwhile another
            # database took the name, they are that one's.
            self._identity, found = found, database.find(self._path)
        if not self._connection.immutable:
            self._trusted_until = time.monotonic() + _TRUSTED_S
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._identity = None
        self._trusted_until = 0.0

    def _select(
        self, connection: sqlite3.Connection, query: str, keys: Sequence[bytes]
    ) -> list[tuple[Any, ...]]:
        rows: list[Any] = []
        lost = 0
        many = len(keys) > _CHUNK
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK] if many else keys
            try:
                rows += _select(connection, query, chunk)
            except sqlite3.DatabaseError as error:
                if recovery.is_uninitialised(error):
                    return []
                self._note_corruption(error)
                select = partial(_select, connection, query)
                found, unread = recovery.read_around(chunk, select)
                rows += found
                lost += unread
                if lost == start + len(chunk):  # nothing read so far: this is not one bad page
                    raise
        if lost:
            recovery.warn("%s is corrupt: %d of %d values are lost", self._path, lost, len(keys))
        return rows

    def _select_all(self, connection: sqlite3.Connection) -> list[Any]:
        select = (
            "SELECT rowid, CAST(coalesce(key, '') AS BLOB), store_time, "
            "CASE mode WHEN 2 THEN size ELSE coalesce(length(value), size) END, "
            "filename IS NOT NULL, raw = 1 AND mode IN (1, 2) FROM Cache WHERE 1"
        )
        try:
            return connection.execute(select).fetchall()
        except sqlite3.DatabaseError as error:
            if recovery.is_uninitialised(error):
                return []
            self._note_corruption(error)
        recovery.warn("%s is corrupt: not all of its values can be read", self._path)
        return [row for rows in recovery.select_in_parts(connection, select) for row in rows]

    def _note_corruption(self, error: sqlite3.DatabaseError) -> None:
        if not recovery.is_corruption(error):
            raise error
        self.corrupt = self._identity

    def _read_file(self, mode: Any, filename: Any, size: Any) -> bytes | None:
        if mode != _IN_FILE or type(filename) is not bytearray or type(size) is not int:
            return b""
        return files.read(self._folder, filename.decode("latin-1"), size)


def _select(connection: sqlite3.Connection, query: str, keys: Sequence[bytes]) -> list[Any]:
    return connection.execute(_statement(query, len(keys)), keys).fetchall()


@cache
def _statement(query: str, keys: int) -> str:
    return f"{query} ({','.join('?' * keys)})"
