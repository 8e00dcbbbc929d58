"""Reading values: batched selects on a connection of our own, without diskcache.

A run that finds all it needs thereby imports no diskcache, takes no write lock, pays for no
bookkeeping of use, and works in a folder that it may not write to.
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache, partial
from operator import itemgetter
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


_PAGE = 5000
"""Rows that are listed with one select."""

_READABLE = "(raw = 1 AND mode IN (1, 2) AND typeof(key) = 'blob')"
_LENGTH = "CASE mode WHEN 2 THEN size ELSE coalesce(length(value), size) END"
_SELECT_ROW = (
    "SELECT rowid, CAST(coalesce(key, '') AS BLOB), store_time, "  # noqa: S608  ours
    f"{_LENGTH}, filename IS NOT NULL, tag, access_time, {_READABLE}, "
    # One that is not readable is not listed beside one that is, under the same key.
    f"CASE WHEN {_READABLE} THEN 0 ELSE EXISTS (SELECT 1 FROM Cache AS same WHERE same.raw = 1 "
    "AND same.key = CAST(coalesce(Cache.key, '') AS BLOB) AND same.mode IN (1, 2)) END FROM Cache"
)

_SIZE = """CASE WHEN filename IS NOT NULL THEN (v + 4095) / 4096 * 4096 + 150
    WHEN v + 50 <= 4061 THEN 4096 / (4088 / (v + 50)) + 60
    WHEN 489 + (v - 439) % 4092 <= 4061
        THEN (v - 439 - (v - 439) % 4092 + 4091) / 4092 * 4096 + 489 + (v - 439) % 4092 + 469
    ELSE (v - 439 + 4091) / 4092 * 4096 + 489 + 469 END"""
"""`row_size` in SQL, of a value of `v` bytes."""

_SIZES = (
    f"SELECT tag, filename, min(max(CAST({_LENGTH} AS INTEGER), 0), 1 << 40) AS v "  # noqa: S608
    "FROM Cache WHERE"
)
_COUNT = f"SELECT tag, count(*), sum({_SIZE}) FROM ({_SIZES} {_READABLE}) GROUP BY tag"  # noqa: S608
_COUNT_ODD = f"SELECT count(*), sum({_SIZE}) FROM ({_SIZES} NOT coalesce({_READABLE}, 0))"  # noqa: S608
_COUNT_ONLY = "SELECT tag, count(*), 0 FROM Cache GROUP BY tag"

_LONGEST_LABEL = 10_000
"""Bytes of a label; what is longer was not written by us."""


class Row(NamedTuple):
    """What the database holds of a value beside its bytes."""

    number: int
    key: bytes
    created: float
    size: int
    in_file: bool
    label: str | None
    seconds: float


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

    def uses(self) -> usage.Uses:
        """Return the uses of all keys; none if they are unreadable."""
        with self.guard:  # no fork while the other database is open
            return usage.read(self._folder, self.patience_for_uses)

    def rows(self, label: str | None = None) -> Iterator[Row]:
        """Yield what is known of every value, of a corrupt database what can be read.

        Also of those that `get_many` never returns, because their rows say that they are
        something else than bytes: they take room, and a check for corruption is to find them.
        One whose column of another type hides its key, size or time has a key made of what stands
        there, no size, and is as old as can be.

        Args:
            label: only the values with this label; all if None.

        Raises:
            BackendError: the database is not ours to read.
            sqlite3.Error: nothing can be read.
        """
        where, tag = ("tag = ?", (_tag(label),)) if label is not None else ("1", ())
        select = f"{_SELECT_ROW} WHERE {where}"
        page = f"{select} AND rowid > ? AND rowid <= ? ORDER BY rowid LIMIT {_PAGE}"
        found = self._ask("SELECT max(rowid) FROM Cache", (), lost=[(2**63 - 1,)])
        last, end = -(2**63), (found[0][0] if found else None) or 0
        odd: set[bytes] = set()
        while True:
            lost: list[Any] = []
            rows = self._ask(page, (*tag, last, end), lost=lost)
            corrupt = rows is lost
            if corrupt:
                rows = [row for row in self._rest(select, tag) if row[0] > last]
            for values in rows:
                number = values[0]
                if number <= last:  # one page of the file in several places of its tree
                    raise database.corruption("its rows are out of order")
                last = number
                row, readable, hidden = _row(values)
                if readable:
                    yield row
                elif not hidden and row.key not in odd:
                    odd.add(row.key)
                    yield row
            if corrupt or len(rows) < _PAGE:
                return

    def newest(self, label: str, number: int) -> list[Row]:
        """Return what is known of the last values that were stored with a label.

        Raises:
            BackendError, sqlite3.Error: as for `rows`.
        """
        newest = f"{_SELECT_ROW} WHERE tag = ? AND {_READABLE} ORDER BY rowid DESC LIMIT ?"
        lost: list[Any] = []
        rows = self._ask(newest, (_tag(label), number), lost=lost)
        if rows is lost:
            return list(self.rows(label))[-number:]
        return [_row(values)[0] for values in rows]

    def rows_of(self, keys: Sequence[bytes]) -> Iterator[Row]:
        """Yield what is known of the values of these keys.

        Raises:
            BackendError, sqlite3.Error: as for `rows`.
        """
        for start in range(0, len(keys), _CHUNK):
            some = keys[start : start + _CHUNK]
            query = _statement(f"{_SELECT_ROW} WHERE {_READABLE} AND key IN", len(some))
            for values in self._ask(query, some, lost=[]):
                yield _row(values)[0]

    def counts(self, *, sizes: bool) -> list[tuple[str | None, int, int]]:
        """Return of each label how many values have it, and the bytes of disk that they take.

        Args:
            sizes: whether the bytes are needed; without them, only an index is read.

        Raises:
            BackendError, sqlite3.Error: as for `rows`.
        """
        found: dict[str | None, tuple[int, int]] = {}
        odd = self._ask(_COUNT_ODD, ())
        by_tag = self._ask(_COUNT if sizes or odd != [(0, None)] else _COUNT_ONLY, ())
        for tag, values, size in (*by_tag, *((None, *sums) for sums in odd)):
            label = _label(tag)
            before = found.get(label, (0, 0))
            if values:
                found[label] = before[0] + values, before[1] + size
        return [(label, *sums) for label, sums in found.items()]

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

    def _ask(
        self, query: str, parameters: Sequence[Any], *, lost: list[Any] | None = None
    ) -> list[Any]:
        """Return all rows of a query; `lost`, if it is given, where the database is corrupt."""

        def ask() -> list[Any]:
            with self.guard:
                connection = self._connect()
                try:
                    return [] if connection is None else _fetch(connection, query, parameters)
                except sqlite3.DatabaseError as error:
                    if recovery.is_uninitialised(error):
                        return []
                    self._note_corruption(error)
                    if lost is None:
                        raise
                    return lost

        return forks.repeat_if_forked(ask)

    def _rest(self, select: str, parameters: tuple[Any, ...]) -> list[Any]:
        """Return the rows that can be read of a corrupt database."""
        recovery.warn("%s is corrupt: not all of its values can be read", self._path)

        def read() -> list[Any]:
            with self.guard:
                connection = self._connect()
                if connection is None:
                    return []
                parts = recovery.select_in_parts(connection, select, parameters)
                return sorted((row for rows in parts for row in rows), key=itemgetter(0))

        return forks.repeat_if_forked(read)

    def _note_corruption(self, error: sqlite3.DatabaseError) -> None:
        if not recovery.is_corruption(error):
            raise error
        self.corrupt = self._identity

    def _read_file(self, mode: Any, filename: Any, size: Any) -> bytes | None:
        if mode != _IN_FILE or type(filename) is not bytearray or type(size) is not int:
            return b""
        return files.read(self._folder, filename.decode("latin-1"), size)


def _fetch(connection: sqlite3.Connection, query: str, parameters: Sequence[Any]) -> list[Any]:
    try:
        return connection.execute(query, parameters).fetchall()
    except sqlite3.OperationalError as error:
        if isinstance(connection, database.Connection):
            connection.raise_interrupt(error)
        raise


def _row(values: Sequence[Any]) -> tuple[Row, bool, bool]:
    number, key, created, size, in_file, tag, seconds, readable, hidden = values
    label = _label(tag) if readable else None
    row = Row(
        number,
        key,
        created if type(created) is float and abs(created) < _FOREVER else 0.0,
        max(size, 0) if type(size) is int else 0,
        bool(in_file),
        label,
        seconds
        if label is not None and type(seconds) is float and 0 <= seconds < _FOREVER
        else 0.0,
    )
    return row, bool(readable), bool(hidden)


@lru_cache(1024)
def _label(tag: Any) -> str | None:
    if type(tag) is not bytes or len(tag) > _LONGEST_LABEL:
        return None
    return tag.decode("utf-8", "surrogateescape")


def _tag(label: str) -> bytes:
    return label.encode("utf-8", "surrogateescape")


def _select(connection: sqlite3.Connection, query: str, keys: Sequence[bytes]) -> list[Any]:
    return connection.execute(_statement(query, len(keys)), keys).fetchall()


@cache
def _statement(query: str, keys: int) -> str:
    return f"{query} ({','.join('?' * keys)})"
