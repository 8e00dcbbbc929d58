"""When values were last used, and how often: a small database beside the large one.

It is a database of its own, so that reading never competes with storing results. It only helps to
choose what to prune, so nothing waits for the disk here, and a corrupt one is thrown away.

A run notes all that it used as one row of `notes`, which costs a thousandth of a row a key; the next
run that uses the same only raises that row's count. Once the notes take much room, and at each
delete, they are added up by key into `usage`.
"""

import contextlib
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import xxhash

from cachedeval_disk import database

__all__ = ["Use", "discard", "forget", "note", "read"]

_NAME = "usage.db"

_SHARE = 8
"""The notes may take one part in so many of what the values take, and `_LEAST` bytes anyway."""
_LEAST = 64 * 1024

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[bytes, int]).decode


class Use(NamedTuple):
    """The use of a key."""

    used: float
    """Seconds since the epoch."""
    hits: int


def note(folder: Path, hits: Mapping[bytes, int], when: float) -> None:
    """Add hits to each key's that is held, in one transaction.

    Raises:
        sqlite3.Error, OSError: they could not be noted.
    """
    packed = _encode(hits)
    with _open(folder) as connection, database.transaction(connection):
        # Rows that are put later have higher numbers: a key that is not held has no use yet.
        ((upto,),) = connection.execute("SELECT max(rowid) FROM held.Cache").fetchall()
        connection.execute(
            "INSERT INTO main.notes VALUES (?, ?, ?, 1, ?) ON CONFLICT (digest, upto) "
            "DO UPDATE SET used = max(used, excluded.used), times = times + 1",
            (xxhash.xxh3_128_digest(packed), upto or 0, float(when), packed),
        )
        ((noted,),) = connection.execute("SELECT sum(length(hits)) FROM main.notes").fetchall()
        ((pages,),) = connection.execute("PRAGMA held.page_count").fetchall()
        ((page,),) = connection.execute("PRAGMA held.page_size").fetchall()
        if noted > max(_LEAST, pages * page // _SHARE):
            _add_up(connection)


def read(folder: Path, numbers: Mapping[bytes, int]) -> dict[bytes, Use]:
    """Return the use of each key that was used; nothing if it is unreadable.

    Args:
        folder: the cache's folder.
        numbers: the number of the row of each key that is held.
    """
    path = folder / _NAME
    if not path.is_file():
        return {}
    try:
        with contextlib.closing(database.connect_to_read(path)) as connection:
            rows = connection.execute("SELECT key, used, hits FROM usage").fetchall()
            found = {
                key: Use(used, hits)
                for key, used, hits in rows
                if type(key) is bytes and _is_time(used) and type(hits) is int
            }
            _take_notes(connection, numbers, found)
    except sqlite3.Error:
        return {}
    return found


def forget(folder: Path, keys: Sequence[bytes]) -> None:
    """Forget the use of these keys, which are no longer held.

    Raises:
        sqlite3.Error, OSError: it could not be done.
    """
    if (folder / _NAME).is_file():
        with _open(folder) as connection, database.transaction(connection):
            _add_up(connection)
            connection.executemany("DELETE FROM main.usage WHERE key = ?", zip(keys, strict=True))


def discard(folder: Path) -> None:
    """Remove it. The caller holds the write lock exclusively, so nobody has it open to write."""
    for rest in ("-journal", ""):
        (folder / (_NAME + rest)).unlink(missing_ok=True)


def _take_notes(
    connection: sqlite3.Connection, numbers: Mapping[bytes, int], found: dict[bytes, Use]
) -> None:
    """Add what was noted of the rows that were there by then to the use of each key."""
    for upto, used, times, packed in connection.execute(
        "SELECT upto, used, times, hits FROM notes"
    ):
        if not _is_time(used) or type(upto) is not int or type(times) is not int:
            continue
        try:
            hits = _decode(packed)
        except (msgspec.MsgspecError, TypeError):
            continue
        for key, count in hits.items():
            if numbers.get(key, upto + 1) <= upto:
                before = found.get(key)
                found[key] = (
                    Use(used, count * times)
                    if before is None
                    else Use(max(before.used, used), before.hits + count * times)
                )


def _is_time(used: Any) -> bool:
    return type(used) is float and math.isfinite(used)


def _add_up(connection: sqlite3.Connection) -> None:
    """Move what was noted into the table of keys."""
    numbers = dict(
        connection.execute(
            "SELECT key, rowid FROM held.Cache WHERE raw = 1 AND typeof(key) = 'blob'"
        )
    )
    found: dict[bytes, Use] = {}
    _take_notes(connection, numbers, found)
    connection.executemany(
        "INSERT INTO main.usage VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
        "SET used = max(used, excluded.used), hits = hits + excluded.hits",
        [(key, *found[key]) for key in sorted(found)],
    )
    connection.execute("DELETE FROM main.notes")


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
        connection.execute(
            "CREATE TABLE IF NOT EXISTS notes (digest BLOB NOT NULL, upto INTEGER NOT NULL, "
            "used REAL NOT NULL, times INTEGER NOT NULL, hits BLOB NOT NULL, "
            "UNIQUE (digest, upto))"
        )
        connection.execute("ATTACH ? AS held", (database.uri_to_read(folder / database.NAME),))
        yield connection
