"""Corrupt databases: recognise one, read what can be read of it, and put a new one in its place.

SQLite fails a whole select for one bad page. Asked for less and less at a time, it gives all the
rows that lie on good ones.

A corrupt database is set aside, and what can be read of it is copied into a new one. Whoever does
this holds the write lock exclusively, so nobody writes or opens the database to write. Others may
have it open. They go on reading the old file, which they know by its descriptor, and find at their
next operation that the name means another file. When they close it, SQLite sees that too, and
leaves alone the files that are the new database's now.
"""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cachedeval_disk import database, schema
from cachedeval_disk.patience import Patience

__all__ = [
    "carry_over",
    "is_corruption",
    "is_uninitialised",
    "read_around",
    "remove_old",
    "select_in_parts",
    "set_aside",
    "warn",
]

_Item = TypeVar("_Item")

_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG)
"""SQLite's answers for broken content. A value that is too big for a row was not written by us."""

_STEP = 256
"""Row numbers to ask for at a time."""

_LIMIT = 10_000_000
"""Row numbers to look at, where corruption hides the last one or has made it absurd."""

_GIVE_UP = 20
"""Steps without a row that can be read, after which the rest is read from its other end."""

_PREFIXES = 2**16
"""Ranges of keys, by their first two bytes."""

_ASIDE = f"{database.NAME}.corrupt-"
"""How the names of databases that were set aside begin."""

_KEPT = 30 * 24 * 3600
"""Seconds for which a corrupt database stays where somebody can look at it."""

_PATIENCE = 30.0
"""Seconds after which no more is carried over: others wait for the lock, for a minute at most."""

_COLUMNS = (
    "rowid, key, raw, store_time, access_time, access_count, tag, size, mode, filename, value"
)


def warn(message: str, *args: object) -> None:
    """Log a warning; `logging` is slow to import, and hardly ever needed."""
    import logging  # noqa: PLC0415

    logging.getLogger("cachedeval").warning(message, *args)


def is_corruption(error: BaseException) -> bool:
    """Whether SQLite says that a file's content is broken, rather than out of reach."""
    code = getattr(error, "sqlite_errorcode", None)
    # An extended code says more in its higher bytes.
    if code == sqlite3.SQLITE_ERROR:  # for one number of the header it has no code of its own
        return "unsupported file format" in str(error)
    return code is not None and code & 0xFF in _CORRUPT


def is_uninitialised(error: BaseException) -> bool:
    """Whether SQLite says that the database has no tables yet, so that it holds nothing.

    It is being created, or its creator was killed before the first transaction was committed.
    """
    code = getattr(error, "sqlite_errorcode", None)
    return code == sqlite3.SQLITE_READONLY_ROLLBACK or "no such table" in str(error)


def read_around(
    items: Sequence[_Item], read: Callable[[Sequence[_Item]], list[Any]]
) -> tuple[list[Any], int]:
    """Return what `read` returns of the items, and the number of items that it failed for.

    Raises:
        sqlite3.Error: reading failed for another reason than corruption.
    """
    try:
        return read(items), 0
    except sqlite3.DatabaseError as error:
        if not is_corruption(error):
            raise
    if len(items) == 1:
        return [], 1
    middle = len(items) // 2
    left, left_lost = read_around(items[:middle], read)
    right, right_lost = read_around(items[middle:], read)
    return left + right, left_lost + right_lost


def select_in_parts(
    connection: sqlite3.Connection, select: str, parameters: tuple[Any, ...] = ()
) -> Iterator[list[Any]]:
    """Yield the rows of a select over `Cache` that can be read, some at a time.

    Args:
        connection: open for reading.
        select: `SELECT … FROM Cache WHERE …`, to which a range of row numbers can be added.
        parameters: those of the select.

    Raises:
        sqlite3.Error: nothing can be read.
    """

    def read(numbers: Sequence[int]) -> list[Any]:
        if len(numbers) == 1:  # a range of one would look at the next row too
            one = (*parameters, numbers[0])
            return connection.execute(f"{select} AND rowid = ?", one).fetchall()
        between = (*parameters, numbers[0], numbers[-1])
        return connection.execute(f"{select} AND rowid BETWEEN ? AND ?", between).fetchall()

    numbers = range(1, _last_number(connection) + 1)
    steps = range(0, len(numbers), _STEP)
    fruitless = done = 0
    for start in steps:
        some = numbers[start : start + _STEP]
        rows, lost = read_around(some, read)
        yield rows
        done += 1
        fruitless = fruitless + 1 if lost == len(some) else 0
        if fruitless == _GIVE_UP:
            break
    # Behind one bad page, which may stand for thousands of rows, lie the newest.
    fruitless = 0
    for start in reversed(steps[done:]):
        some = numbers[start : start + _STEP]
        rows, lost = read_around(some, read)
        yield rows
        fruitless = fruitless + 1 if lost == len(some) else 0
        if fruitless == _GIVE_UP:
            return


def _last_number(connection: sqlite3.Connection) -> int:
    try:
        ((last,),) = connection.execute("SELECT max(rowid) FROM Cache").fetchall()
    except sqlite3.DatabaseError as error:
        if not is_corruption(error):
            raise
        return _LIMIT  # the page with the last row is a bad one
    return min(last or 0, _LIMIT)


def set_aside(folder: Path) -> Path:
    """Give the database, and what belongs to it, another name; return that.

    Raises:
        OSError: it cannot be renamed.
    """
    path = folder / database.NAME
    aside = folder / f"{_ASIDE}{time.time_ns()}"
    # The database last: a journal without its database would be taken for the next one's.
    for rest in ("-wal", "-shm", "-journal", ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + rest).rename(aside.with_name(aside.name + rest))
    return aside


def carry_over(aside: Path, connection: sqlite3.Connection, patience: Patience) -> int:
    """Copy the values that can be read into the new database; return how many.

    Nothing in them is believed: each value is verified when it is read.

    Args:
        aside: the corrupt database.
        connection: to the new one, made and empty.
        patience: how long to wait for others who hold the corrupt one.

    Raises:
        sqlite3.Error: the new database cannot be written.
    """
    marks = ",".join("?" * len(_COLUMNS.split(",")))
    insert = f"INSERT OR IGNORE INTO Cache ({_COLUMNS}) VALUES ({marks})"  # noqa: S608
    kept = 0
    deadline = time.monotonic() + _PATIENCE
    for rows in _readable(aside, connection, patience):
        with connection:  # commits, or rolls back
            connection.execute("BEGIN IMMEDIATE")
            # What readers found by the index comes later, and is preferred.
            later = [(key,) for number, key, *_ in rows if number is None]
            kept -= max(
                connection.executemany(
                    "DELETE FROM Cache WHERE raw = 1 AND key = ?", later
                ).rowcount,
                0,
            )
            kept += max(connection.executemany(insert, rows).rowcount, 0)
        if time.monotonic() > deadline:
            break
    return kept


def _readable(aside: Path, new: sqlite3.Connection, patience: Patience) -> Iterator[list[Any]]:
    select = f"SELECT {_COLUMNS} FROM Cache WHERE raw = 1 AND mode IN (1, 2)"  # noqa: S608
    # Whatever fails in a corrupt file, the new one stands, and what was read before stays.
    with (
        contextlib.suppress(sqlite3.DatabaseError),
        contextlib.closing(database.connect_to_read(aside, patience)) as corrupt,
    ):
        schema.check(corrupt, schema.CACHE, table="Cache")
        corrupt.text_factory = _latin  # which fails for no bytes
        with contextlib.suppress(sqlite3.DatabaseError):
            yield from select_in_parts(corrupt, select)
        yield from _by_index(corrupt, new, select)


def _by_index(
    corrupt: sqlite3.Connection, new: sqlite3.Connection, select: str
) -> Iterator[list[Any]]:
    """Yield the rows that the index of keys leads to, and the table itself does not.

    A reader finds values by that index, and a writer replaces them by it. So a run may just have
    used or stored one of them, although another row has its key, or its own row has lost it.
    """

    def entries(prefixes: Sequence[int]) -> list[Any]:
        first, end = prefixes[0].to_bytes(2), (prefixes[-1] + 1).to_bytes(3)[1:]
        where = "key >= ?" if prefixes[-1] + 1 == _PREFIXES else "key >= ? AND key < ?"
        bounds = (first, end)[: where.count("?")]
        query = f"SELECT key, rowid FROM Cache WHERE raw = 1 AND {where}"  # noqa: S608
        return corrupt.execute(query, bounds).fetchall()

    def carried(entry: Any) -> bool:
        same = "SELECT 1 FROM Cache WHERE raw = 1 AND key = ? AND rowid = ?"
        return bool(new.execute(same, entry).fetchall())

    def rows(wanted: Sequence[Any]) -> list[Any]:
        found = []
        for key, _ in wanted:
            for row in corrupt.execute(f"{select} AND key = ?", (key,)).fetchall():
                found.append((None, key, *row[2:]))  # noqa: PERF401  the nesting is clearer
        return found

    for start in range(0, _PREFIXES, _STEP):
        held, _ = read_around(range(start, start + _STEP), entries)
        missing = [entry for entry in held if not carried(entry)]
        if missing:
            yield read_around(missing, rows)[0]


def _latin(text: bytes) -> str:
    return text.decode("latin-1")


def remove_old(folder: Path) -> None:
    """Remove the databases that were set aside long ago."""
    for path in folder.glob(f"{_ASIDE}*"):
        with contextlib.suppress(OSError):
            if path.stat().st_ctime < time.time() - _KEPT:
                path.unlink()
