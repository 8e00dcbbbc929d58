"""Digests of bytes and of files: content hashes with the name of their algorithm.

A digest is text, `<algorithm>:<lower-case hex>`. Two digests of different algorithms are never
equal, so a change of the algorithm causes a miss and never a wrong hit.

| tag | digest |
| --- | --- |
| `xxh3` | xxh3_128 of the bytes, seed 0, canonical (big-endian) |
| `xxh3t` | xxh3_128 of the xxh3_128 of each chunk of `CHUNK` bytes, in order, and the file's size (8 bytes, little-endian); for files larger than a chunk |
| `sha256` | SHA-256 of the bytes; where a service names a file by it, and for identities |

xxh3 is fast and not cryptographic: it detects changes, not forgeries. Someone who can choose the
bytes can make two contents with one digest.

A file may change while it is read. So a file is read until its stat is the same before and after,
and large files are read by several threads.
"""

# Lazy imports: `hashlib` loads OpenSSL and `concurrent.futures` loads `logging`; a run whose files
# are all in the digest cache needs neither.

import errno
import itertools
import os
import stat
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar

import xxhash

from cachedeval.engine.errors import InputError
from cachedeval.engine.process import import_logging, importing

__all__ = [
    "CHUNK",
    "content_digest",
    "digest_bytes",
    "digest_identity",
    "read_bytes",
    "sha256_digest",
    "shown",
    "stamp",
    "stat_file",
    "threads",
]


CHUNK = 8 << 20
"""Bytes of a chunk of `xxh3t`; part of the digest's definition."""

_PIECE = 512 << 10
"""Bytes of one read: large enough to hide the system call, small enough for a core's own cache."""

_ATTEMPTS = 4
_PAUSE_S = 0.05
"""Seconds before the second attempt to read a file that changes; the pause grows."""

_TICK_NS = 20_000_000
"""Two writes within this time may leave the same mtime on the usual file systems."""

T = TypeVar("T")


class _Hash(Protocol):
    def update(self, data: memoryview, /) -> object: ...


class _ChangedError(Exception):
    """The file is shorter or longer than it was when it was opened."""


# Digests of bytes.


def digest_bytes(data: bytes | bytearray | memoryview) -> str:
    """Return the `xxh3:` digest of the bytes: the tag and 32 hexadecimal digits.

    Example:
        >>> digest_bytes(b"abc")
        'xxh3:06b05ab6733a618578af5f94892f3950'
    """
    return "xxh3:" + xxhash.xxh3_128_hexdigest(data)


def digest_identity(data: bytes) -> str:
    """Return the `sha256:` digest of a short text, such as the identity of a resource.

    A run of hits needs this digest too, and OpenSSL takes 3 ms to load. So it uses the
    interpreter's own sha256, which has a tenth of the speed and is built in. Python builds without
    it use that of OpenSSL.
    """
    for module in ("_sha2", "_sha256", "hashlib"):  # Python 3.12 and later, 3.11, the fallback
        try:
            sha256: Any = import_module(module).sha256
        except (ImportError, AttributeError):
            continue
        return f"sha256:{sha256(data).hexdigest()}"
    raise AssertionError("hashlib has a sha256")


# Digests of files.


def content_digest(path: Path) -> tuple[str, os.stat_result]:
    """Return the `xxh3:` or `xxh3t:` digest of a file, and the stat of the content that was read.

    Raises:
        InputError: it is not a readable regular file, or it does not stop changing.
    """
    return _read_steady(path, _content)


def sha256_digest(path: Path) -> tuple[str, os.stat_result]:
    """Return the `sha256:` digest of a file, which is slow, and the stat of the content.

    Raises:
        InputError: as for `content_digest`.
    """
    return _read_steady(path, _sha256)


def read_bytes(path: Path) -> bytes:
    """Return the whole content of a small file.

    Raises:
        InputError: as for `content_digest`.
    """
    return _read_steady(path, _whole)[0]


def stamp(status: os.stat_result) -> tuple[int, int, int, int, int]:
    """Return the numbers that change with a file's content.

    Returns:
        Device, inode, size in bytes, mtime and ctime in nanoseconds.
    """
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def threads() -> int:
    """Return how many threads read a large file: one per core, at most 8 (then memory limits)."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(cores, 8)


def shown(path: str | os.PathLike[str]) -> str:
    """Return the path as one line of printable characters."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in os.fspath(path)
    )


def stat_file(path: Path) -> os.stat_result:
    """Return the stat of a regular file; follows links.

    Raises:
        InputError: there is no such file, or it is not a regular file.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise _input_error(path, error) from None
    _demand_regular(path, status)
    return status


def _read_steady(path: Path, read: Callable[[int, int], T]) -> tuple[T, os.stat_result]:
    """Call `read(descriptor, size)` until the file's stat is the same before and after it."""
    for attempt in range(_ATTEMPTS):
        if attempt:  # not for 0 seconds: that would yield the processor
            time.sleep(_PAUSE_S * attempt)
        try:
            # Non-blocking: the open must not hang if a FIFO has replaced the file.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise _input_error(path, error) from None
        try:
            before = os.fstat(descriptor)
            _demand_regular(path, before)
            if 0 <= time.time_ns() - before.st_ctime_ns < _TICK_NS:
                time.sleep(_TICK_NS / 1e9)  # after that, each write changes the stat
            result = read(descriptor, before.st_size)
            after = os.fstat(descriptor)
            now_there = path.stat()  # another file may have replaced it
        except (_ChangedError, FileNotFoundError):
            continue
        except OSError as error:
            raise _input_error(path, error) from None
        finally:
            os.close(descriptor)
        if stamp(before) == stamp(after) == stamp(now_there):
            return result, before
    message = f"{shown(path)}: changes while it is read; try again when no program writes to it"
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
    import_logging()
    with importing():
        from concurrent.futures import ThreadPoolExecutor

    leaves = [b""] * -(-size // CHUNK)
    order = itertools.count()  # its next() is atomic: each chunk is read once

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
        import hashlib

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
        message = f"{shown(path)}: is a folder, but a file is expected"
        raise InputError(message)
    if not stat.S_ISREG(status.st_mode):
        message = f"{shown(path)}: is a pipe, socket or device, but a file is expected"
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
