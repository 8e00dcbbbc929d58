"""Values in files of their own: read, written and removed only where they belong.

A row of the database names its file, and a row is whoever's who wrote the database. So a name
counts only if it has the form that diskcache gives, `ab/cd/….val`, and is a regular file there.
"""

import os
import re
import stat
from collections.abc import Iterator

__all__ = ["is_name", "list_names", "read", "remove", "write"]

_NAME = re.compile(r"[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{28}\.val", re.ASCII)
_PART = re.compile(r"[0-9a-f]{2}", re.ASCII)


def is_name(name: object) -> bool:
    """Whether this is the name of a value's file, relative to the cache's folder."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def read(folder: str, name: str, size: int) -> bytes | None:
    """Return the file's bytes, or None if it is not there, not whole or not a regular file."""
    path = os.path.join(folder, name)
    try:
        if not is_name(name) or os.path.realpath(os.path.dirname(path)) != os.path.dirname(path):
            return None
        # A FIFO must not make the reader wait.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size != size:
                return None
            data = file.read(size + 1)
    except OSError:
        return None
    return data if len(data) == size else None


def write(folder: str, name: str, data: bytes) -> None:
    """Write a new file, for the owner alone; what cannot be written whole is removed again."""
    path = os.path.join(folder, name)
    while True:
        os.makedirs(os.path.dirname(os.path.dirname(path)), 0o700, exist_ok=True)
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # somebody removed the emptied folder in between
            if not os.path.isdir(folder):
                raise
            continue
        break
    try:
        with open(fd, "wb") as file:
            file.write(data)
    except BaseException:
        os.unlink(path)
        raise


def remove(folder: str, name: str) -> bool:
    """Remove a value's file, and its folders if it was the last there; whether it was there."""
    if not is_name(name):
        return False
    path = os.path.join(folder, name)
    parent = os.path.dirname(path)
    try:
        if os.path.realpath(parent) != parent:
            return False
        os.unlink(path)
        os.rmdir(parent)
        os.rmdir(os.path.dirname(parent))
    except FileNotFoundError:
        return False
    except OSError:  # a folder that still holds other values
        pass
    return True


def list_names(folder: str) -> Iterator[str]:
    """Yield the names of all values' files in the folder."""
    for first in sorted(os.listdir(folder)):
        if _PART.fullmatch(first) and not os.path.islink(os.path.join(folder, first)):
            for second in sorted(_listdir(os.path.join(folder, first))):
                names = _listdir(os.path.join(folder, first, second))
                yield from filter(is_name, (f"{first}/{second}/{name}" for name in names))


def _listdir(path: str) -> list[str]:
    try:
        return [] if os.path.islink(path) else os.listdir(path)
    except OSError:
        return []
