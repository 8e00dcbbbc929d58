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
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cachedeval.backend import BackendError
from cachedeval_disk import forks
from cachedeval_disk.patience import Patience

__all__ = [
    "APPLICATION",
    "NAME",
    "STAMP",
    "Identity",
    "check_format",
    "connect_to_read",
    "connect_to_write",
    "corruption",
    "find",
    "signs",
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

_BESIDE = ("-journal", "-wal", "-shm")
"""How the names of the files that SQLite makes beside a database end."""

_LONGEST = 30.0
"""Seconds that a statement may take that reads. Ours read a part at a time."""

_TICK = 100_000
"""SQLite's instructions, some milliseconds, between two looks at the clock and for Ctrl-C. A hit
takes some dozens, so it pays nothing for them."""

Identity = tuple[int, int]
"""Device and inode: which file it is, whatever becomes of its name."""


class Connection(sqlite3.Connection):
    """A connection to a file that may hold anything, and that any program may hold."""

    immutable = False
    """Whether it looks out for no writers, because there can be none while it is used."""
    patience: Patience | None = None
    """How long to wait for others."""
    limited = False
    """Whether a statement that takes too long is ended."""
    _since: float | None = None
    """When the statement was first seen to take long."""
    _late = False

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        self._since = None
        try:
            return sqlite3.Connection.execute(self, sql, parameters)
        except sqlite3.OperationalError as error:
            self.raise_interrupt(error)
            if self.patience is None or not _is_busy(error):
                raise
        except UnicodeDecodeError as error:  # SQLite's complaint quotes the broken file
            raise corruption("malformed database schema") from error
        found: list[sqlite3.Cursor] = []

        def attempt() -> bool:
            try:
                found.append(sqlite3.Connection.execute(self, sql, parameters))
            except sqlite3.OperationalError as error:
                self.raise_interrupt(error)
                if not _is_busy(error):
                    raise
            return bool(found)

        self.patience.wait(attempt)
        return found[0]

    def raise_interrupt(self, error: sqlite3.Error) -> None:
        """Raise KeyboardInterrupt if that is what has ended a statement.

        `sqlite3` drops an exception that a signal handler raises within a statement, and reports
        that the statement was interrupted.
        """
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_INTERRUPT and not self._late:
            raise KeyboardInterrupt from error

    def is_late(self) -> bool:
        """Return whether to end the statement; SQLite asks every `_TICK` instructions."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        self._late = self.limited and now - self._since > _LONGEST
        return self._late


def corruption(message: str) -> sqlite3.DatabaseError:
    """Return the error that SQLite raises for a broken file."""
    error = sqlite3.DatabaseError(message)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _is_busy(error: sqlite3.Error) -> bool:
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


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


def signs(folder: Path) -> tuple[Path, ...]:
    """Return the files that change while others write to the cache."""
    return (folder / NAME, folder / f"{NAME}-wal")


def check_files(path: Path) -> None:
    """Refuse what SQLite would open beside the database, if it is anything but a regular file.

    It would wait for the other end of a FIFO, in C where nothing ends the wait, and write through
    a link to somebody's file.

    Raises:
        BackendError: one of them is not a regular file.
    """
    for rest in _BESIDE:
        try:
            found = os.lstat(f"{path}{rest}")
        except OSError:
            continue
        if not stat.S_ISREG(found.st_mode):
            raise BackendError(
                f"the cache's {path}{rest} is not a regular file: remove it, or use another folder"
            )


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


def connect_to_read(path: Path, patience: Patience) -> Connection:
    """Open a database for reading only: it takes no write lock, and the folder may be read-only.

    Raises:
        BackendError: something else than SQLite's files is in their places.
        sqlite3.Error: it cannot be opened.
    """
    connection = _open_leniently(path, uri_to_read(path), patience)
    try:
        # The first read opens the other files that belong to it.
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
    except sqlite3.OperationalError as error:
        connection.close()
        code = error.sqlite_errorcode
        if code & 0xFF not in _SHARED_NOTHING or code == sqlite3.SQLITE_READONLY_ROLLBACK:
            raise
        # Nobody writes here now: who does has made the file that readers and writers share.
        connection = _open_leniently(path, f"{uri_to_read(path)}&immutable=1", patience)
        connection.immutable = True
    except BaseException:
        connection.close()
        raise
    return connection


def _open_leniently(path: Path, uri: str, patience: Patience) -> Connection:
    connection = _connect(path, uri, patience)
    connection.limited = True
    # A text where a blob belongs shows by its type, and need not be valid UTF-8.
    connection.text_factory = bytearray
    # Nothing is written here. What this allows is to read what is left of a file that was cut off.
    connection.execute("PRAGMA writable_schema = ON")
    return connection


def connect_to_write(path: Path, like: Path, patience: Patience) -> Connection:
    """Open a database for reading and writing; a new one gets the permissions of the file `like`.

    Raises:
        BackendError: something else than SQLite's files is in their places.
        sqlite3.Error: it cannot be opened.
    """
    return _connect(path, f"file:{_quoted(path)}?modeof={_quoted(like)}", patience)


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


def _connect(path: Path, uri: str, patience: Patience) -> Connection:
    if forks.is_inherited(path):
        raise BackendError(
            f"{path} was in use when this process was forked, so it cannot be used here: "
            "let operations on the cache end before a fork"
        )
    check_files(path)
    connection = sqlite3.connect(
        uri,
        uri=True,
        timeout=0,  # see `Patience`
        isolation_level=None,
        check_same_thread=False,
        factory=Connection,
    )
    forks.track(connection, path)
    connection.patience = patience
    connection.set_progress_handler(connection.is_late, _TICK)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _quoted(path: Path) -> str:
    """Return a path as it stands in a URI: https://www.sqlite.org/uri.html, section 3.1."""
    return "".join(chr(c) if c in _UNQUOTED else f"%{c:02x}" for c in os.fsencode(path))
