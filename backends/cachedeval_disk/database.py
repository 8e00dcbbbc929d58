"""The file `cache.db`: what is in its header, and how it is opened for reading.

It is diskcache's database: a table `Cache` (stable through its versions 5) with a row a value. Its
header says whose it is, in the two places that SQLite leaves to applications:

- `application_id`: ours;
- `user_version`: our format's number in each of its four bytes, so that a damaged byte is not
  taken for a newer version. A later format must keep this header, whatever else it changes.
"""

import os
import sqlite3
import urllib.parse

from cachedeval.engine.errors import BackendError

__all__ = [
    "APPLICATION",
    "NAME",
    "STAMP",
    "Identity",
    "check_format",
    "connect_to_read",
    "identity",
]

NAME = "cache.db"
"""Its name in the cache's folder: diskcache's."""

_FORMAT = 1
APPLICATION = int.from_bytes(b"cdev", "big")
"""The header's `application_id`."""
STAMP = _FORMAT * 0x01010101
"""The header's `user_version`."""

Identity = tuple[int, int]
"""Device and inode: which file it is, whatever becomes of its name."""

_MAGIC = b"SQLite format 3\x00"


def identity(path: str) -> Identity | None:
    """Return which file is at the path now; None if none is."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def check_format(path: str) -> None:
    """Refuse a database that is another program's or a newer version's.

    One whose header is damaged passes: SQLite finds out.

    Raises:
        BackendError: it must be left alone.
        OSError: it cannot be read.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            header = file.read(72)
    except FileNotFoundError:
        return
    if len(header) < 72 or not header.startswith(_MAGIC):  # noqa: PLR2004  up to its last field
        return
    stamp, application = header[60:64], int.from_bytes(header[68:72], "big")
    valid = stamp == stamp[:1] * 4 and stamp[0] > 0
    if valid and stamp[0] > _FORMAT:
        raise BackendError(
            f"the cache {path!r} has format {stamp[0]}, written by a newer version of cachedeval "
            f"(this one knows format {_FORMAT}): upgrade it, or use another folder"
        )
    if not valid and application != APPLICATION:
        raise BackendError(
            f"the database {path!r} was not written by cachedeval: use another folder"
        )


def connect_to_read(path: str) -> sqlite3.Connection:
    """Open the database for reading only: it takes no write lock, and the folder may be read-only.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    quoted = urllib.parse.quote(os.fsencode(path))
    connection = _connect(f"file:{quoted}?mode=ro")
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchall()
    except sqlite3.OperationalError as error:
        connection.close()
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CANTOPEN:
            raise
        # No room for the files that readers and writers share, so nobody can write here either.
        connection = _connect(f"file:{quoted}?mode=ro&immutable=1")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri, uri=True, timeout=60, isolation_level=None, check_same_thread=False
    )
    # A text where a blob belongs is then told by its type, and need not be valid UTF-8.
    connection.text_factory = bytearray
    return connection


def is_empty(error: sqlite3.Error) -> bool:
    """Whether this says that the database has no tables yet: it is in the making."""
    return "no such table" in str(error)
