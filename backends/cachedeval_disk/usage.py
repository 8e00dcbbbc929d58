"""When values were last used, and how often: a small database beside the large one.

It is a database of its own, so that reading never competes with storing results. It only helps to
choose what to prune, so nothing waits for the disk here, and one that is corrupt, or that is not
ours, is thrown away.

A run notes all that it used as one row of `notes`, which costs a thousandth of a row a key; the next
run that uses the same only raises that row's count. Once the notes take much room, and at each
delete, they are added up by key into `usage`.
"""

import contextlib
import math
import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import xxhash

from cachedeval.backend import BackendError
from cachedeval_disk import database, schema
from cachedeval_disk.patience import Patience

__all__ = ["Use", "Uses", "discard", "forget", "must_be_discarded", "note", "paths", "read"]

_NAME = "usage.db"

_SHARE = 8
"""The notes may take one part in so many of what the values take, and `_LEAST` bytes anyway."""
_LEAST = 64 * 1024

_MOST = 2**53
"""Hits that are counted of one key: a stranger may have written any number."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[bytes, int]).decode


class Use(NamedTuple):
    """The use of a key."""

    used: float
    """Seconds since the epoch."""
    hits: int


class Uses:
    """The uses of all keys, as the database held them."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, Use] = {}
        self._noted: dict[bytes, list[tuple[int, Use]]] = {}
        """What was noted of a key, with the highest number that a row had by then."""

    def __bool__(self) -> bool:
        return bool(self._by_key or self._noted)

    def keys(self) -> list[bytes]:
        """Return the keys that may have been used."""
        return list(self._by_key.keys() | self._noted.keys())

    def of(self, key: bytes, number: int) -> Use | None:
        """Return the use of a key, or None.

        Args:
            key: the key.
            number: that of its row. What was noted before the row was put is not its use.
        """
        use = self._by_key.get(key)
        for upto, noted in self._noted.get(key, ()):
            if number <= upto:
                use = noted if use is None else _sum(use, noted)
        return use

    def take(self, connection: sqlite3.Connection) -> None:
        """Add what the database holds; leave out what makes no sense.

        Raises:
            sqlite3.Error: it cannot be read.
        """
        for key, used, hits in connection.execute(
            "SELECT key, used, hits FROM main.usage"
        ).fetchall():  # at once, as others wait meanwhile
            if type(key) is bytes and _is_time(used) and type(hits) is int and hits > 0:
                self._by_key[key] = Use(used, min(hits, _MOST))
        self.take_notes(connection)

    def take_notes(self, connection: sqlite3.Connection) -> None:
        """Add what was noted and is not added up yet."""
        for upto, used, times, packed in connection.execute(
            "SELECT upto, used, times, hits FROM main.notes"
        ).fetchall():
            if not _is_time(used) or type(upto) is not int or type(times) is not int or times < 1:
                continue
            try:
                hits = _decode(packed)
            except (msgspec.MsgspecError, TypeError):
                continue
            for key, count in hits.items():
                if count > 0:
                    use = Use(used, min(count * times, _MOST))
                    self._noted.setdefault(key, []).append((upto, use))


def paths(folder: Path) -> tuple[Path, ...]:
    """Return the files that change while others note uses."""
    return (folder / _NAME, folder / f"{_NAME}-journal")


def note(folder: Path, hits: Mapping[bytes, int], when: float, patience: Patience) -> None:
    """Add hits to each key's that is held, in one transaction.

    Raises:
        sqlite3.Error, OSError: they could not be noted.
    """
    packed = _encode(hits)
    with _open(folder, patience) as connection, database.transaction(connection):
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


def read(folder: Path, patience: Patience) -> Uses:
    """Return the uses of all keys; none if they are unreadable."""
    uses = Uses()
    path = folder / _NAME
    if _is_file(path):
        with (
            contextlib.suppress(sqlite3.Error, TimeoutError, BackendError),
            contextlib.closing(database.connect_to_read(path, patience)) as connection,
        ):
            schema.check(connection, schema.USAGE)
            uses.take(connection)
    return uses


def forget(folder: Path, keys: Sequence[bytes], patience: Patience) -> None:
    """Forget the use of these keys, which are no longer held.

    Raises:
        sqlite3.Error, OSError: it could not be done.
    """
    if _is_file(folder / _NAME):
        with _open(folder, patience) as connection, database.transaction(connection):
            _add_up(connection)
            connection.executemany("DELETE FROM main.usage WHERE key = ?", zip(keys, strict=True))


def discard(folder: Path) -> None:
    """Remove it. The caller holds the write lock exclusively, so nobody has it open to write."""
    for rest in ("-journal", "-wal", "-shm", ""):
        (folder / (_NAME + rest)).unlink(missing_ok=True)


def must_be_discarded(folder: Path) -> bool:
    """Return whether something else than a regular file is in its place, such as a link.

    Nothing may be written through a link to somebody's database.
    """
    return any(
        os.path.lexists(path) and not _is_file(path)
        for path in (folder / (_NAME + rest) for rest in ("", "-journal", "-wal", "-shm"))
    )


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _is_time(used: Any) -> bool:
    return type(used) is float and math.isfinite(used)


def _sum(one: Use, other: Use) -> Use:
    return Use(max(one.used, other.used), min(one.hits + other.hits, _MOST))


def _add_up(connection: sqlite3.Connection) -> None:
    """Move what was noted into the table of keys."""
    uses = Uses()
    uses.take_notes(connection)
    numbers = connection.execute(
        "SELECT key, rowid FROM held.Cache WHERE raw = 1 AND typeof(key) = 'blob'"
    )
    found = {key: use for key, number in numbers if (use := uses.of(key, number)) is not None}
    connection.executemany(
        "INSERT INTO main.usage VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
        "SET used = max(used, excluded.used), hits = min(hits + excluded.hits, ?)",
        [(key, *found[key], _MOST) for key in sorted(found)],
    )
    connection.execute("DELETE FROM main.notes")


@contextlib.contextmanager
def _open(folder: Path, patience: Patience) -> Iterator[sqlite3.Connection]:
    path = folder / _NAME
    with contextlib.closing(
        database.connect_to_write(path, folder / database.NAME, patience)
    ) as connection:
        schema.check(connection, schema.USAGE)
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA auto_vacuum = FULL")
        for statement in schema.USAGE.values():
            connection.execute(statement.replace("TABLE", "TABLE IF NOT EXISTS", 1))
        connection.execute("ATTACH ? AS held", (database.uri_to_read(folder / database.NAME),))
        yield connection
