"""When values were last used, and how often: a small database beside the large one.

It is kept apart so that who reads never competes with those who store results. It only helps to
choose what to prune, so nothing waits for the disk here, and a damaged one is thrown away.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cachedeval_disk import database

__all__ = ["discard", "forget", "note", "read"]

_NAME = "usage.db"


def note(folder: Path, hits: Mapping[bytes, int], when: float) -> None:
    """Add hits to each key's that is held, in one transaction.

    Raises:
        sqlite3.Error, OSError: they could not be noted.
    """
    with _open(folder) as connection, _transaction(connection):
        connection.executemany(
            "INSERT INTO main.usage SELECT key, ?, ? FROM held.Cache WHERE key = ? AND raw = 1 "
            "ON CONFLICT (key) DO UPDATE "
            "SET used = max(used, excluded.used), hits = hits + excluded.hits",
            [(float(when), count, key) for key, count in hits.items()],
        )


def read(folder: Path) -> dict[bytes, tuple[float, int]]:
    """Return last use (seconds since the epoch) and hits by key; nothing if it cannot be read."""
    path = folder / _NAME
    if not path.is_file():
        return {}
    try:
        with contextlib.closing(database.connect_to_read(path)) as connection:
            rows = connection.execute("SELECT key, used, hits FROM usage").fetchall()
    except sqlite3.Error:
        return {}
    return {
        key: (used, hits)
        for key, used, hits in rows
        if type(key) is bytes and type(used) is float and type(hits) is int
    }


def forget(folder: Path, keys: Sequence[bytes]) -> None:
    """Forget the use of these keys.

    Raises:
        sqlite3.Error, OSError: it could not be done.
    """
    if (folder / _NAME).is_file():
        with _open(folder) as connection, _transaction(connection):
            connection.executemany("DELETE FROM main.usage WHERE key = ?", zip(keys, strict=True))


def discard(folder: Path) -> None:
    """Remove it. The caller is alone inside the gate, so that nobody has it open to write."""
    for rest in ("-journal", ""):
        (folder / (_NAME + rest)).unlink(missing_ok=True)


@contextlib.contextmanager
def _open(folder: Path) -> Iterator[sqlite3.Connection]:
    path = folder / _NAME
    with contextlib.closing(
        database.connect_to_write(path, like=folder / database.NAME)
    ) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA auto_vacuum = FULL")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS usage "
            "(key BLOB PRIMARY KEY, used REAL NOT NULL, hits INTEGER NOT NULL) WITHOUT ROWID"
        )
        connection.execute("ATTACH ? AS held", (database.uri_to_read(folder / database.NAME),))
        yield connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # some failures end it themselves
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
