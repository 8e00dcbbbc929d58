"""A damaged database is set aside, and what can be read of it is carried over into a new one.

Whoever does this is alone inside the gate, so that nobody is writing, and nobody is opening the
database to write. Others may have it open. They go on reading the old file, which they know by
its descriptor, and find at their next operation that the name means another file. When they close
it, SQLite sees that too, and leaves alone the files that are the new database's now.
"""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cachedeval_disk import damage, database

__all__ = ["ASIDE", "carry_over", "set_aside"]

ASIDE = f"{database.NAME}.damaged-"
"""How the names of databases that were set aside begin."""

_PATIENCE = 30.0
"""Seconds after which no more is carried over: others wait at the gate, for a minute at most."""

_COLUMNS = "key, raw, store_time, access_time, access_count, size, mode, filename, value"


def set_aside(folder: Path) -> Path:
    """Give the database, and what belongs to it, another name; return that.

    Raises:
        OSError: it cannot be renamed.
    """
    path = folder / database.NAME
    aside = folder / f"{ASIDE}{time.time_ns()}"
    # The database last: a journal without its database would be taken for the next one's.
    for rest in ("-wal", "-shm", "-journal", ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + rest).rename(aside.with_name(aside.name + rest))
    return aside


def carry_over(aside: Path, connection: sqlite3.Connection) -> int:
    """Copy the values that can be read into the new database; return how many.

    Nothing in them is believed: whoever reads a value later verifies it.

    Args:
        aside: the damaged database.
        connection: to the new one, made and empty.

    Raises:
        sqlite3.Error: the new database cannot be written.
    """
    kept = 0
    deadline = time.monotonic() + _PATIENCE
    for rows in _readable(aside):
        with connection:  # commits, or rolls back
            connection.execute("BEGIN IMMEDIATE")
            kept += connection.executemany(
                f"INSERT OR IGNORE INTO Cache ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)",  # noqa: S608
                rows,
            ).rowcount
        if time.monotonic() > deadline:
            break
    return kept


def _readable(aside: Path) -> Iterator[list[Any]]:
    select = f"SELECT {_COLUMNS} FROM Cache WHERE raw = 1 AND mode IN (1, 2)"  # noqa: S608
    # Whatever fails in a damaged file, the new one stands, and what was read before stays.
    with (
        contextlib.suppress(sqlite3.DatabaseError),
        contextlib.closing(database.connect_to_read(aside)) as damaged,
    ):
        damaged.text_factory = _latin  # which fails for no bytes
        yield from damage.select_in_parts(damaged, select)


def _latin(text: bytes) -> str:
    return text.decode("latin-1")
