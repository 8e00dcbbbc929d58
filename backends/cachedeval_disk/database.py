"""The file `cache.db`: whose it is, what its header says, and how it is opened for reading.

It is diskcache's database: a table `Cache` (stable through its versions 5) with a row a value. Its
header says what it is, in the two places that SQLite leaves to applications:

- `application_id`: ours;
- `user_version`: our format's number in each of its four bytes, so that a damaged byte is not
  taken for a newer version. A later format must keep this header, whatever else it changes.
"""

import os
import sqlite3
import stat
import string
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cachedeval.backend import BackendError
from cachedeval_disk import forks

__all__ = [
    "APPLICATION",
    "NAME",
    "STAMP",
    "Identity",
    "check_format",
    "connect_to_read",
    "connect_to_write",
    "find",
    "transaction",
]

NAME = "cache.db"
"""Its name in the cache's folder: diskcache's."""

_FORMAT = 1
_REPEATED = 0x01010101

APPLICATION = int.from_bytes(b"cdev", "big")
"""The header's `application_id`."""
STAMP = _FORMAT * _REPEATED
"""The header's `user_version`."""

_SHARED_NOTHING = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR)
"""SQLite's answers where the file that readers and writers share cannot be made: in a folder that
may not be written to, on a full disk."""

_UNQUOTED = frozenset(map(ord, "/._-" + string.ascii_letters + string.digits))

Identity = tuple[int, int]
"""Device and inode: which file it is, whatever becomes of its name."""


class Connection(sqlite3.Connection):
    """A connection to a file that may hold anything."""

    immutable = False
    """Whether it looks out for no writers, because there can be none while it is used."""

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        try:
            return sqlite3.Connection.execute(self, sql, parameters)
        except UnicodeDecodeError as error:  # SQLite's complaint quotes the broken file
            corruption = sqlite3.DatabaseError("malformed database schema")
            corruption.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise corruption from error


def find(path: Path) -> Identity | None:
    """Return which file is at the path now; None if none is.

    Raises:
        BackendError: it is no regular file.
        OSError: the path cannot be looked at.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):  # opening a FIFO would wait for its other end
        raise BackendError(f"the cache's {path} is not a regular file: use another folder")
    return found.st_dev, found.st_ino


def check_format(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a database that is another program's or a newer version's.

    The header is asked for through SQLite: closing a descriptor of ours on the file would drop the
    locks that every connection of this process has on it.

    Raises:
        BackendError: it must be left alone.
        sqlite3.Error: it cannot be read.
    """
    # In one transaction: between two statements another process may create the database.
    connection.execute("BEGIN")
    try:
        ((application,),) = connection.execute("PRAGMA application_id").fetchall()
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        stamp = version & 0xFFFFFFFF
        number = stamp & 0xFF
        valid = number > 0 and stamp == number * _REPEATED
        ours = valid or application == APPLICATION
        empty = ours or not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
    finally:
        with suppress(sqlite3.Error):  # nothing was written, and the first error is to be seen
            connection.execute("COMMIT")
    if valid and number > _FORMAT:
        raise BackendError(
            f"the cache {path} has format {number}, written by a newer version of cachedeval "
            f"(this one knows format {_FORMAT}): upgrade cachedeval, or use another folder"
        )
    if not ours and not empty:
        raise BackendError(f"{path} is not a cache of cachedeval's: use another folder")


def uri_to_read(path: Path) -> str:
    """Return the URI by which SQLite opens a database for reading only."""
    return f"file:{_quoted(path)}?mode=ro"


def connect_to_read(path: Path) -> Connection:
    """Open a database for reading only: it takes no write lock, and the folder may be read-only.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    connection = _open_leniently(path, uri_to_read(path))
    try:
        # The first read opens the other files that belong to it.
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
    except sqlite3.OperationalError as error:
        connection.close()
        code = error.sqlite_errorcode
        if code & 0xFF not in _SHARED_NOTHING or code == sqlite3.SQLITE_READONLY_ROLLBACK:
            raise
        # Nobody writes here now: who does has made the file that readers and writers share.
        connection = _open_leniently(path, f"{uri_to_read(path)}&immutable=1")
        connection.immutable = True
    except BaseException:
        connection.close()
        raise
    return connection


def _open_leniently(path: Path, uri: str) -> Connection:
    connection = _connect(path, uri)
    # A text where a blob belongs shows by its type, and need not be valid UTF-8.
    connection.text_factory = bytearray
    # Nothing is written here. What this allows is to read what is left of a file that was cut off.
    connection.execute("PRAGMA writable_schema = ON")
    return connection


def connect_to_write(path: Path, like: Path) -> Connection:
    """Open a database for reading and writing; a new one gets the permissions of the file `like`.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    return _connect(path, f"file:{_quoted(path)}?modeof={_quoted(like)}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Write in a transaction: all that is done in the context, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some failures end it themselves. And what went wrong is not to be hidden by this.
        with suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise


def _connect(path: Path, uri: str) -> Connection:
    if forks.is_inherited(path):
        raise BackendError(
            f"{path} was in use when this process was forked, so it cannot be used here: "
            "let operations on the cache end before a fork"
        )
    connection = sqlite3.connect(
        uri,
        uri=True,
        timeout=60,  # before anything else is asked of it: others may be creating it
        isolation_level=None,
        check_same_thread=False,
        factory=Connection,
    )
    forks.track(connection, path)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _quoted(path: Path) -> str:
    """Return a path as it stands in a URI: https://www.sqlite.org/uri.html, section 3.1."""
    return "".join(chr(c) if c in _UNQUOTED else f"%{c:02x}" for c in os.fsencode(path))
