"""When values were last used, and how often: a small database beside the large one.

It is kept apart so that reading never competes with those who store results. It is a help for
choosing what to prune, so nothing waits for the disk here, and what is damaged is thrown away.
"""

import contextlib
import os
import sqlite3
import urllib.parse
from collections.abc import Iterator, Mapping

from cachedeval_disk import database

__all__ = ["forget", "note", "read"]

_NAME = "usage.db"


def note(folder: str, hits: Mapping[bytes, int], when: float) -> None:
    """Add hits to each key's, in one transaction.

    Raises:
        sqlite3.Error, OSError: they could not be noted.
    """
    with _open(folder) as connection, _transaction(connection):
        connection.executemany(
            "INSERT INTO usage VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
            "SET used = max(used, excluded.used), hits = hits + excluded.hits",
            [(key, when, count) for key, count in hits.items()],
        )


def read(folder: str) -> dict[bytes, tuple[float, int]]:
    """Return last use (seconds since the epoch) and hits by key; nothing if they are damaged."""
    path = os.path.join(folder, _NAME)
    if not os.path.exists(path):
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


def forget(folder: str) -> None:
    """Forget the use of keys that the cache no longer holds.

    Raises:
        sqlite3.Error, OSError: it could not be done.
    """
    if not os.path.exists(os.path.join(folder, _NAME)):
        return
    cache = urllib.parse.quote(os.fsencode(os.path.join(folder, database.NAME)))
    with _open(folder) as connection:
        connection.execute("ATTACH ? AS held", (f"file:{cache}?mode=ro",))
        with _transaction(connection):
            connection.execute(
                "DELETE FROM main.usage WHERE NOT EXISTS "
                "(SELECT 1 FROM held.Cache WHERE Cache.key = usage.key AND raw = 1)"
            )


@contextlib.contextmanager
def _open(folder: str) -> Iterator[sqlite3.Connection]:
    path = os.path.join(folder, _NAME)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    quoted = urllib.parse.quote(os.fsencode(path))
    with contextlib.closing(
        sqlite3.connect(f"file:{quoted}", uri=True, timeout=60, isolation_level=None)
    ) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA auto_vacuum = FULL")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS usage "
            "(key BLOB PRIMARY KEY, used REAL NOT NULL, hits INTEGER NOT NULL) WITHOUT ROWID"
        )
        yield connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
