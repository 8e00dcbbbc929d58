"""Giving room back: to the file system, once values have been deleted."""

import contextlib
import sqlite3
import time
from pathlib import Path

from cachedeval_disk import blobs, recovery

__all__ = ["checkpoint", "pack", "row_size", "sweep"]

_PAGE = 4096
"""Bytes of a database's page, and by which files grow on nearly every file system."""

_LOOSE = 1.25
"""How many times what its rows need a database may take before it is packed anew."""

_PACK_AT_MOST = 512 * 1024 * 1024
"""Bytes of a database that is packed: seconds in which nobody else can write."""

_ASIDE_KEPT = 30 * 24 * 3600
"""Seconds for which a damaged database stays where somebody can look at it."""


def row_size(value: int, *, in_file: bool) -> int:
    """Return the bytes of disk that a value of `value` bytes takes, all told.

    In the database these are its share of a page, and whole pages where it runs over: as told in
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
    return over * _PAGE + share + 60  # its places in the indexes and in the notes of use


def pack(connection: sqlite3.Connection) -> None:
    """Write the database anew if that makes it smaller by much, as scattered deletes may.

    Args:
        connection: for writing, outside of a transaction.

    Raises:
        sqlite3.Error: the database is damaged.
    """
    # Others read or write, or the disk is full: then the room stays free for new values.
    with contextlib.suppress(sqlite3.OperationalError):
        if _is_loose(connection):
            connection.execute("VACUUM")


def checkpoint(connection: sqlite3.Connection) -> None:
    """Write the journal into the database and cut both off, if others let go of it soon enough.

    Raises:
        sqlite3.Error: the database is damaged.
    """
    connection.execute("PRAGMA busy_timeout = 2000")
    with contextlib.suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.execute("PRAGMA busy_timeout = 60000")


def _is_loose(connection: sqlite3.Connection) -> bool:
    ((pages,),) = connection.execute("PRAGMA page_count").fetchall()
    if pages * _PAGE > _PACK_AT_MOST:
        return False
    sizes = connection.execute("SELECT length(value) FROM Cache WHERE mode = 1").fetchall()
    needed = sum(row_size(size, in_file=False) for (size,) in sizes if size is not None)
    return bool(pages * _PAGE > _LOOSE * needed + 16 * _PAGE)


def sweep(folder: Path, connection: sqlite3.Connection) -> None:
    """Remove the files of values that no row names, and what was set aside long ago.

    A writer that was killed between its file and its row leaves such a file. The caller is alone
    inside the gate, so no writer is between the two now.

    Raises:
        sqlite3.Error: the database cannot be read.
    """
    files = set(blobs.list_names(folder))
    if files:
        rows = connection.execute("SELECT filename FROM Cache WHERE filename IS NOT NULL")
        for name in files - {name for (name,) in rows}:
            blobs.remove(folder, name)
    for path in folder.glob(f"{recovery.ASIDE}*"):
        with contextlib.suppress(OSError):
            if path.stat().st_ctime < time.time() - _ASIDE_KEPT:
                path.unlink()
