"""Reads a file that may change at any moment: whole, steady and, where it is large, in parallel.

The digest of a file depends on its bytes alone:

- up to `CHUNK` bytes: `xxh3:` and xxh3_128 over the bytes, as `digest_bytes` gives it;
- more: `xxh3t:` and xxh3_128 over the concatenation of the xxh3_128 digests (16 bytes each,
  canonical) of the chunks of `CHUNK` bytes, the last one shorter, followed by the size in bytes
  as 8 bytes, little-endian. The chunks can be read by several threads in any order.

Files are read by `preadv` into a buffer that stays in the processor's cache, never by `mmap`: a
file truncated under a map kills the process with SIGBUS.
"""

import errno
import itertools
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import xxhash

from cachedeval.engine.errors import InputError
from cachedeval.engine.forks import import_logging, importing

__all__ = [
    "CHUNK",
    "content_digest",
    "read_bytes",
    "sha256_digest",
    "shown",
    "stamp",
    "stat_file",
    "threads",
]

CHUNK = 8 << 20
"""Bytes in a leaf of the tree; part of what `xxh3t` means."""

_PIECE = 512 << 10
"""Bytes a read asks for: large enough to hide the call, small enough for a core's own cache."""

_ATTEMPTS = 4
_PAUSE_S = 0.05

_TICK_NS = 20_000_000
"""More than the time in which two writes leave the same mtime on the usual file systems."""

T = TypeVar("T")


class _Hash(Protocol):
    def update(self, data: memoryview, /) -> object: ...


class _ChangedError(Exception):
    """The file is shorter or longer than it was when it was opened."""


def content_digest(path: Path) -> tuple[str, os.stat_result]:
    """Return the file's digest, as the module tells, and the stat that goes with those bytes.

    Raises:
        InputError: it is no readable regular file, or it does not stop changing.
    """
    return _read_steady(path, _content)


def sha256_digest(path: Path) -> tuple[str, os.stat_result]:
    """Return the `sha256:` digest and stat: slow, for files that others have named by it.

    Raises:
        InputError: as `content_digest` does.
    """
    return _read_steady(path, _sha256)


def read_bytes(path: Path) -> bytes:
    """Return the whole content of a small file.

    Raises:
        InputError: as `content_digest` does.
    """
    return _read_steady(path, _whole)[0]


def stamp(status: os.stat_result) -> tuple[int, int, int, int, int]:
    """Return what changes when a file's content does: device, inode, size, mtime and ctime in ns."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def threads() -> int:
    """Return how many threads read a large file: one a core, up to where memory is the limit."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(cores, 8)


def shown(path: str | os.PathLike[str]) -> str:
    """Return the path as one line that any terminal can print, whatever bytes its name has."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in os.fspath(path)
    )


def stat_file(path: Path) -> os.stat_result:
    """Return the stat of a regular file, links followed.

    Raises:
        InputError: there is no such file, or it is something else.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise _input_error(path, error) from None
    _demand_regular(path, status)
    return status


def _read_steady(path: Path, read: Callable[[int, int], T]) -> tuple[T, os.stat_result]:
    """Call `read(descriptor, size)` until the file was the same before and after it."""
    for attempt in range(_ATTEMPTS):
        if attempt:  # sleeping for 0 seconds hands the processor to another process
            time.sleep(_PAUSE_S * attempt)
        try:
            # A FIFO that takes the file's place must not hang the open.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise _input_error(path, error) from None
        try:
            before = os.fstat(descriptor)
            _demand_regular(path, before)
            if 0 <= time.time_ns() - before.st_ctime_ns < _TICK_NS:
                time.sleep(_TICK_NS / 1e9)  # from now on a write changes the stat
            result = read(descriptor, before.st_size)
            after = os.fstat(descriptor)
            now_there = path.stat()  # another file may have taken its name
        except (_ChangedError, FileNotFoundError):
            continue
        except OSError as error:
            raise _input_error(path, error) from None
        finally:
            os.close(descriptor)
        if stamp(before) == stamp(after) == stamp(now_there):
            return result, before
    message = f"{shown(path)}: changes while it is read; try again when it is completely written"
    raise InputError(message)


def _content(descriptor: int, size: int) -> str:
    if size <= CHUNK:
        state = xxhash.xxh3_128()
        _feed(state, descriptor, 0, size, _buffer(size))
        _demand_end(descriptor, size)
        return "xxh3:" + state.hexdigest()
    tree = xxhash.xxh3_128(b"".join(_leaves(descriptor, size)))
    tree.update(size.to_bytes(8, "little"))
    _demand_end(descriptor, size)
    return "xxh3t:" + tree.hexdigest()


def _leaves(descriptor: int, size: int) -> list[bytes]:
    # Imported here: it takes longer than all else of a run whose files are known.
    import_logging()
    with importing():
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    leaves = [b""] * -(-size // CHUNK)
    order = itertools.count()  # its next() is atomic, so that each chunk is taken once

    def work() -> None:
        buffer = _buffer(size)
        while (index := next(order)) < len(leaves):
            state = xxhash.xxh3_128()
            start = index * CHUNK
            _feed(state, descriptor, start, min(start + CHUNK, size), buffer)
            leaves[index] = state.digest()

    count = min(threads(), len(leaves))
    with ThreadPoolExecutor(count, thread_name_prefix="cachedeval-digest") as pool:
        for done in [pool.submit(work) for _ in range(count)]:
            done.result()
    return leaves


def _sha256(descriptor: int, size: int) -> str:
    with importing():
        import hashlib  # noqa: PLC0415 - loads OpenSSL, which hardly any run needs

    state = hashlib.sha256()
    _feed(state, descriptor, 0, size, _buffer(size))
    _demand_end(descriptor, size)
    return "sha256:" + state.hexdigest()


def _whole(descriptor: int, size: int) -> bytes:
    buffer = bytearray(size)
    view = memoryview(buffer)
    position = 0
    while position < size:
        position += _read_into(descriptor, view[position:], position)
    _demand_end(descriptor, size)
    return bytes(buffer)


def _feed(state: _Hash, descriptor: int, start: int, end: int, buffer: memoryview) -> None:
    while start < end:
        count = _read_into(descriptor, buffer[: end - start], start)
        state.update(buffer[:count])
        start += count


def _read_into(descriptor: int, buffer: memoryview, offset: int) -> int:
    count = os.preadv(descriptor, [buffer], offset)
    if count == 0:
        raise _ChangedError
    return count


def _demand_end(descriptor: int, size: int) -> None:
    if os.pread(descriptor, 1, size):
        raise _ChangedError


def _buffer(size: int) -> memoryview:
    return memoryview(bytearray(min(size, _PIECE)))


def _demand_regular(path: Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        message = f"{shown(path)}: is a folder where a file is expected"
        raise InputError(message)
    if not stat.S_ISREG(status.st_mode):
        message = f"{shown(path)}: is a pipe, socket or device where a file is expected"
        raise InputError(message)


def _input_error(path: Path, error: OSError | ValueError) -> InputError:
    if isinstance(error, ValueError):
        return InputError(f"{shown(path)}: is not a path ({error})")
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        what = "is a link to nothing" if path.is_symlink() else "no such file"
    elif error.errno in {errno.EACCES, errno.EPERM}:
        what = "may not be read: its permissions forbid it"
    else:
        what = f"cannot be read: {error.strerror}"
    return InputError(f"{shown(path)}: {what}")
