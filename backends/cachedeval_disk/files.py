"""Values in files of their own: read, written and removed only where they belong.

A row of the database names its file, and a stranger may have written the row. So a name counts only
if it has the form that diskcache gives, `ab/cd/….val`, and is a regular file there.
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["is_name", "list_names", "read", "remove", "write"]

_NAME = re.compile(r"[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{28}\.val", re.ASCII)

_TRIES = 64
"""Names that are tried, where folders are links: of 65,536 folders few are."""


def is_name(name: object) -> bool:
    """Whether this is the name of a value's file, relative to the cache's folder."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def read(folder: Path, name: str, size: int) -> bytes | None:
    """Return the file's bytes; none of them if it is not whole or no such file can be read.

    None if it is not there, as after a delete by another process.
    """
    if not is_name(name):
        return b""
    path = folder / name
    try:
        if path.parent.resolve() != path.parent:  # a link leads elsewhere
            return b""
        # Opened so that neither a link is followed nor a FIFO waited for.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size != size:
                return b""
            data = file.read(size)
    except FileNotFoundError:
        return None
    except OSError:
        return b""
    return data if len(data) == size else b""


def write(folder: Path, pieces: Iterable[bytes | memoryview]) -> str:
    """Write a new file, for the owner alone, and return its name.

    What cannot be written whole is removed again. Nothing is written through a link, as `read`
    follows none.

    Raises:
        OSError: it cannot be written.
    """
    for _ in range(_TRIES):
        name = _new_name()
        path = folder / name
        fd = _create(path)
        if fd is not None:
            break
    else:
        raise OSError(f"{folder}: its folders of values are links, and no values are stored there")
    try:
        with os.fdopen(fd, "wb") as file:
            for piece in pieces:
                file.write(piece)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return name


def _new_name() -> str:
    """Return a name that no other value's file has."""
    name = os.urandom(16).hex()
    return f"{name[:2]}/{name[2:4]}/{name[4:]}.val"


def _create(path: Path) -> int | None:
    """Make a new file and its folders; return its descriptor, or None if a folder is a link."""
    while True:
        if path.parent.parent.is_symlink() or path.parent.is_symlink():
            return None
        path.parent.parent.mkdir(0o700, exist_ok=True)  # fails if the cache's folder is gone
        try:
            path.parent.mkdir(0o700, exist_ok=True)
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # somebody removed the last other file there, and its folders with it


def remove(folder: Path, name: object) -> None:
    """Remove a value's file, and its folders if it was the last there."""
    if not isinstance(name, str) or not is_name(name):
        return
    parent = (folder / name).parent
    with contextlib.suppress(OSError):  # not there, or other values still are
        if parent.resolve() == parent:
            (folder / name).unlink()
            parent.rmdir()
            parent.parent.rmdir()


def list_names(folder: Path) -> Iterator[str]:
    """Yield the names of all values' files in the folder."""
    for path in folder.glob("[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]/*.val"):
        name = path.relative_to(folder).as_posix()
        if is_name(name):
            yield name
