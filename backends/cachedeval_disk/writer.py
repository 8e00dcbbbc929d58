"""Writing values into diskcache's table, on a connection of our own.

diskcache creates the tables, and opens them again so that its settings are what they must be. The
rows are written here, because what diskcache does a row (a look-up, an insert, statements for
eviction) takes longer than the write itself. What is hardened in comparison:

- Nothing is evicted: diskcache's default silently deletes values beyond 1 GB.
- Nothing is pickled or unpickled: keys and values are bytes, and a row that says otherwise is
  refused (CVE-2025-69872: whoever can write the file can write the column that says "pickle").
- A row's file name is believed only if it has the form of one of ours; otherwise overwriting a row
  would remove any file that a stranger named in it.
- A replaced value's file is removed after the transaction that replaces it, not within.
- diskcache takes its settings from the database, as attributes and as PRAGMAs. Ours are constants.
"""

import contextlib
import sqlite3
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from cachedeval.backend import Label
from cachedeval_disk import database, files, recovery, schema
from cachedeval_disk.patience import Patience

__all__ = ["Writer", "row_size"]

_PRAGMAS = {
    "auto_vacuum": 1,  # FULL: the space of deleted rows goes back to the file system
    "journal_mode": "wal",
    "synchronous": 1,  # NORMAL: a commit outlives the process, without waiting for the disk
    "cache_size": 2**13,
    "mmap_size": 0,  # a mapped file that somebody truncates kills the process
}

_FILE_SIZE = 64 * 1024
"""Values from this size on have a file each: measured as fast here, slower below, faster above."""

_SETTINGS: dict[str, Any] = {
    "statistics": 0,
    "tag_index": 1,
    "eviction_policy": "none",
    "size_limit": 2**62,
    "cull_limit": 0,
    "disk_min_file_size": _FILE_SIZE,
    "disk_pickle_protocol": 0,
    **{f"sqlite_{name}": value for name, value in _PRAGMAS.items()},
}

_COUNTED = ("count", "size", "hits", "misses")
"""The rest of diskcache's settings: numbers that its triggers keep."""

_IN_ROW, _IN_FILE = 1, 2
"""diskcache's modes for bytes."""

_PUT = (
    "INSERT INTO Cache (key, raw, store_time, access_time, tag, size, mode, filename, value) "
    "VALUES (?, 1, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key, raw) DO UPDATE SET "
    "store_time = excluded.store_time, expire_time = NULL, access_time = excluded.access_time, "
    "access_count = 0, tag = excluded.tag, size = excluded.size, mode = excluded.mode, "
    "filename = excluded.filename, value = excluded.value"
)

_CHUNK = 500
"""Keys a statement."""

_MANY = 100
"""Deleted at once, as many are a prune, after which the folder is to be smaller."""

_PAGE = 4096
"""Bytes of a database's page, and by which files grow on nearly every file system."""

_LOOSE = 1.25
"""How many times what its rows need a database may take before it is written anew."""

_CHECKPOINT_S = 2.0
"""Seconds for which a checkpoint waits for others to end what they read."""

_VACUUM_AT_MOST = 512 * 1024 * 1024
"""Bytes of a database that is written anew: seconds in which nobody else can write."""


class Writer:
    """Writes to the database in a folder; creates it if there is none.

    The caller holds the folder's write lock: exclusively to create one, shared to use or close it.
    Not safe for several threads at once.

    Args:
        folder: the cache's folder, without symbolic links in it; it exists.
        like: a file whose permissions the new files get.
        patience: how long to wait for others who write.

    Raises:
        BackendError: the database is another program's, or a newer version's.
        sqlite3.Error, OSError: it cannot be opened for writing.
    """

    def __init__(self, folder: Path, like: Path, patience: Patience) -> None:
        self._folder = folder
        path = folder / database.NAME
        if not path.exists():
            # What is left of a database that somebody removed would be taken for the new one's.
            for rest in ("-wal", "-shm", "-journal"):
                path.with_name(path.name + rest).unlink(missing_ok=True)
        self.connection = database.connect_to_write(path, like, patience)
        try:
            database.check_format(self.connection, path)
            schema.check(self.connection, schema.CACHE)
            self._open()
            self.connection.text_factory = _text
        except BaseException:
            self.connection.close()
            raise
        self.identity = database.find(path)
        """Which file this writes to."""
        self._deleted = 0
        """How many were deleted since the folder was last put in order."""

    def put_many(self, items: Mapping[bytes, bytes], labels: Mapping[bytes, Label]) -> None:
        """Store all the items, or none; with the labels that there are.

        Raises:
            TypeError: a key or a value is not bytes.
            sqlite3.Error, OSError: none is stored.
        """
        written: list[str] = []
        try:
            rows = [_labelled(row, labels) for row in self._rows(items, written)]
            with database.transaction(self.connection):
                replaced = self._file_names("raw = 1 AND key IN", [*items])
                self.connection.executemany(_PUT, rows)
        except BaseException:
            self._remove(written)
            raise
        self._remove(replaced)

    def delete_many(self, keys: Sequence[bytes]) -> int:
        """Delete the keys; return how many were stored.

        Raises:
            sqlite3.Error, OSError: some are still stored.
        """
        deleted = 0
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            names: list[object] = []
            with database.transaction(self.connection):
                found = self._delete("key IN", chunk, names)
                if found < len(chunk):
                    # Gone by now, or listed with a key made of one of another type.
                    other = "(key IS NULL OR key < x'')"  # in the index, all before the blobs
                    key = "CAST(coalesce(key, '') AS BLOB)"
                    found += self._delete(f"{other} AND {key} IN", chunk, names)
            deleted += found
            self._remove(names)
        return deleted

    def give_space_back(self, deleted: int) -> None:
        """After so many were deleted, make the folder smaller, as far as others allow.

        The caller holds the write lock exclusively.

        Raises:
            sqlite3.Error: the database is corrupt.
        """
        ((held,),) = self.connection.execute("SELECT count(*) FROM Cache").fetchall()
        if deleted < _MANY and deleted * 20 < held:
            return  # too little to be worth the wait; the space is used for new values
        self._deleted += deleted
        if self._deleted * 10 >= held:
            self._deleted = 0
            _remove_orphans(self._folder, self.connection)
            _vacuum(self.connection)
        _checkpoint(self.connection)

    def close(self) -> None:
        """Close the connection; the last one of all processes tidies up after the database."""
        self.connection.close()

    def _rows(self, items: Mapping[bytes, bytes], written: list[str]) -> list[tuple[Any, ...]]:
        now = time.time()
        rows: list[tuple[Any, ...]] = []
        for key, value in items.items():
            if type(key) is not bytes:
                raise TypeError(f"a key is bytes, not {type(key).__name__}")
            # A large value may be given in pieces.
            pieces: tuple[Any, ...] = value if isinstance(value, tuple) else (value,)
            for piece in pieces:
                if type(piece) is not bytes and type(piece) is not memoryview:
                    raise TypeError(f"a value is bytes, not {type(piece).__name__}")
            size = sum(map(len, pieces))
            if size < _FILE_SIZE:
                rows.append((key, now, now, 0, _IN_ROW, None, b"".join(pieces)))
                continue
            name = files.write(self._folder, pieces)
            written.append(name)
            rows.append((key, now, now, size, _IN_FILE, name, None))
        return rows

    def _file_names(self, where: str, keys: Sequence[bytes]) -> list[object]:
        """Return the names of the files of those rows that have one."""
        names: list[object] = []
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            query = f"SELECT filename FROM Cache WHERE {where} ({_marks(chunk)})"  # noqa: S608
            found = self.connection.execute(query, chunk).fetchall()
            names += [name for (name,) in found if name is not None]
        return names

    def _delete(self, where: str, keys: Sequence[bytes], names: list[object]) -> int:
        """Delete rows and add the names of their files; return how many there were."""
        names += self._file_names(where, keys)
        delete = f"DELETE FROM Cache WHERE {where} ({_marks(keys)})"  # noqa: S608
        return self.connection.execute(delete, keys).rowcount

    def _remove(self, names: Sequence[object]) -> None:
        for name in names:
            files.remove(self._folder, name)

    def _open(self) -> None:
        execute = self.connection.execute
        for name, value in _PRAGMAS.items():
            if name == "journal_mode":  # until here it is written straight into the file
                self._stamp()
            execute(f"PRAGMA {name} = {value}")
        # One transaction, where diskcache makes dozens: faster by 10 ms, and made whole or not.
        with database.transaction(self.connection):
            if execute("SELECT 1 FROM sqlite_master WHERE name = 'Settings'").fetchall():
                known = (*_SETTINGS, *_COUNTED)
                execute(f"DELETE FROM Settings WHERE key NOT IN ({_marks(known)})", known)  # noqa: S608
            _prepare(self.connection, self._folder)

    def _stamp(self) -> None:
        execute = self.connection.execute
        if execute("PRAGMA application_id").fetchall() == [(0,)]:
            with database.transaction(self.connection):
                execute(f"PRAGMA application_id = {database.APPLICATION}")
                execute(f"PRAGMA user_version = {database.STAMP}")


def _labelled(row: tuple[Any, ...], labels: Mapping[bytes, Label]) -> tuple[Any, ...]:
    """Return the row with its label: the text as the tag, the seconds as the time of access.

    diskcache sets that time for evictions, which are off.
    """
    key, stored, _, *rest = row
    label = labels.get(key)
    if label is None:
        return (key, stored, stored, None, *rest)
    tag = label.text.encode("utf-8", "surrogatepass")
    return (key, stored, float(label.seconds), tag, *rest)


@lru_cache(4096)
def row_size(value: int, *, in_file: bool) -> int:
    """Return the bytes of disk that a value of `value` bytes takes in all.

    The reader computes the same in SQL. In the database these are its share of a page, and whole pages where it overflows: see
    https://www.sqlite.org/fileformat2.html, section 1.6 (and measured, within a tenth).
    """
    if in_file:
        return -(-value // _PAGE) * _PAGE + 150
    local, over = value + 50, 0  # with the other columns
    if local > _PAGE - 35:
        rest = 489 + (local - 489) % (_PAGE - 4)
        rest = rest if rest <= _PAGE - 35 else 489
        local, over = rest, -(-(local - rest) // (_PAGE - 4))
    share = local + _PAGE // 10 if over else _PAGE // ((_PAGE - 8) // local)
    return over * _PAGE + share + 60  # its places in the indexes and in the records of use


def _prepare(connection: sqlite3.Connection, folder: Path) -> None:
    """Have diskcache create its tables and write its settings, on a given connection."""
    import diskcache  # noqa: PLC0415  slow to import, and needed to open for writing only

    class Tables(diskcache.Cache):  # type: ignore[misc]  # diskcache has no types
        """diskcache on our connection; by itself it opens one for each thread."""

        @property
        def _con(self) -> sqlite3.Connection:
            return connection

        def close(self) -> None:
            """Leave the connection open."""

    # diskcache makes the folder that it is given, and expands `~` and `$NAME` in its name. So
    # it is given one that exists, and never uses it.
    Tables(folder.anchor, **_SETTINGS)


def _vacuum(connection: sqlite3.Connection) -> None:
    """Write the database anew if that makes it smaller by much, as scattered deletes may."""
    # Others read or write, or the disk is full: then the space stays free for new values.
    with contextlib.suppress(sqlite3.OperationalError, TimeoutError):
        if _is_loose(connection):
            connection.execute("VACUUM")


def _checkpoint(connection: sqlite3.Connection) -> None:
    """Write the journal into the database and cut both off, if others let go of it soon enough."""
    deadline = time.monotonic() + _CHECKPOINT_S
    with contextlib.suppress(sqlite3.OperationalError, TimeoutError):
        # The first column says whether somebody still uses the journal.
        while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0]:
            if time.monotonic() > deadline:
                return
            time.sleep(0.02)


def _is_loose(connection: sqlite3.Connection) -> bool:
    ((pages,),) = connection.execute("PRAGMA page_count").fetchall()
    if pages * _PAGE > _VACUUM_AT_MOST:
        return False
    sizes = connection.execute("SELECT length(value) FROM Cache WHERE mode = 1").fetchall()
    needed = sum(row_size(size, in_file=False) for (size,) in sizes if size is not None)
    return bool(pages * _PAGE > _LOOSE * needed + 16 * _PAGE)


def _remove_orphans(folder: Path, connection: sqlite3.Connection) -> None:
    """Remove the files of values that no row names, and what was set aside long ago.

    A writer that was killed between its file and its row leaves such a file. The caller holds the
    write lock exclusively, so no writer is between the two now.
    """
    names = set(files.list_names(folder))
    if names:
        rows = connection.execute("SELECT filename FROM Cache WHERE filename IS NOT NULL")
        for name in names - {name for (name,) in rows}:
            files.remove(folder, name)
    recovery.remove_old(folder)


def _text(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")  # a stranger's need not be valid


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))
