"""Identifies files by their content, and reads as few files as possible.

`cachedeval.engine.hashing` reads files and computes digests, and `cachedeval.engine.digest_cache`
decides when a cached digest is valid. A store that names files by their SHA-256 and links to them
needs no reading: the caller passes a function that knows its layout.
"""

import os
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cachedeval.engine import digest_cache, hashing
from cachedeval.engine.hashing import digest_bytes

__all__ = [
    "FileEntry",
    "LinkedSha256",
    "digest_file",
    "digest_files",
    "manifest",
    "manifest_digest",
]

AnyPath = str | os.PathLike[str]

LinkedSha256 = Callable[[Path], str | None]
"""Returns the SHA-256 (64 hexadecimal digits) by which a symbolic link names its target, or None.

The digest is trusted as long as the target has not changed since the link was made. After that the
file is read, and still identified by its SHA-256."""


class FileEntry(NamedTuple):
    """One file of a manifest.

    Attributes:
        path: relative to the manifest's root, with `/` between its parts.
        size: in bytes.
        digest: of the content, as `digest_file` returns it.

    Example:
        >>> import tempfile
        >>> from cachedeval import manifest
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.txt").write_text("hello")
        ...     [entry] = manifest(folder, ["a.txt"])
        >>> entry.path, entry.size
        ('a.txt', 5)
    """

    path: str
    size: int
    digest: str


class _Seen(NamedTuple):
    path: Path
    kind: str
    """`content`, or `sha256` where a link names the file by its SHA-256."""
    status: os.stat_result
    digest: str | None
    """The digest, where it is known without reading the file."""


def digest_file(
    path: AnyPath,
    *,
    known_digests: digest_cache.DigestCache | None = None,
    linked_sha256: LinkedSha256 | None = None,
) -> str:
    """Return the digest of a file's content; follows links.

    Args:
        path: the path of a regular file.
        known_digests: the digest cache; without one the file is read.
        linked_sha256: knows a store whose links name their targets by SHA-256.

    Raises:
        InputError: it is not a readable regular file, or it does not stop changing.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "weights.bin")
        ...     _ = path.write_bytes(b"weights")
        ...     digest_file(path) == digest_bytes(b"weights")
        True
    """
    return digest_files([path], known_digests=known_digests, linked_sha256=linked_sha256)[0]


def digest_files(
    paths: Sequence[AnyPath],
    *,
    known_digests: digest_cache.DigestCache | None = None,
    linked_sha256: LinkedSha256 | None = None,
) -> list[str]:
    """Return the digest of each file, as `digest_file` does, with one look-up for all."""
    return [
        digest
        for _, digest in _identify([Path(path) for path in paths], known_digests, linked_sha256)
    ]


def manifest(
    root: AnyPath,
    relative_paths: Iterable[str],
    *,
    known_digests: digest_cache.DigestCache | None = None,
    linked_sha256: LinkedSha256 | None = None,
) -> list[FileEntry]:
    """Return an entry for each file, sorted by path.

    Args:
        root: the folder of the files.
        relative_paths: the files' paths below `root`.
        known_digests: the digest cache; without one the files are read.
        linked_sha256: as for `digest_file`.

    Raises:
        InputError: as for `digest_file`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b.txt", "a.txt"):
        ...         _ = Path(folder, name).write_text(name)
        ...     print([entry.path for entry in manifest(folder, ["b.txt", "a.txt"])])
        ['a.txt', 'b.txt']
    """
    names = sorted(set(relative_paths))
    found = _identify([Path(root, name) for name in names], known_digests, linked_sha256)
    return [
        FileEntry(Path(name).as_posix(), size, digest)
        for name, (size, digest) in zip(names, found, strict=True)
    ]


def manifest_digest(entries: Iterable[FileEntry]) -> str:
    """Return one digest of a manifest: of names, sizes and contents, in any order."""
    parts = bytearray()
    for entry in sorted(entries):
        for field in (entry.path, str(entry.size), entry.digest):
            data = field.encode("utf-8", "surrogatepass")
            parts += len(data).to_bytes(8, "little") + data
    return digest_bytes(parts)


def _identify(
    paths: list[Path],
    known_digests: digest_cache.DigestCache | None,
    linked_sha256: LinkedSha256 | None,
) -> list[tuple[int, str]]:
    """Return the size and digest of each file."""
    seen = [_look(path, linked_sha256) for path in paths]
    known = (
        _recall([each for each in seen if each.digest is None], known_digests)
        if known_digests
        else {}
    )
    read: dict[bytes, bytes] = {}
    found = []
    try:
        for each in seen:
            size, digest = each.status.st_size, each.digest or known.get(each.path)
            found.append((size, digest) if digest else _read(each, read))
    finally:
        # Stored even if a later file fails: a model takes seconds to read.
        if known_digests and read:
            known_digests.put_many(read)
    return found


def _look(path: Path, linked_sha256: LinkedSha256 | None) -> _Seen:
    status = hashing.stat_file(path)
    if linked_sha256 is None:
        return _Seen(path, "content", status, None)
    try:
        link = path.lstat()
        sha256 = linked_sha256(path) if stat.S_ISLNK(link.st_mode) else None
    except OSError:  # another process just replaced the link: the file is read
        sha256 = None
    if sha256 is None:
        return _Seen(path, "content", status, None)
    # The link is made after its target, so a target that changed after the link is read.
    changed_ns = max(status.st_mtime_ns, status.st_ctime_ns)
    untouched = status.st_size > 0 and changed_ns <= link.st_ctime_ns
    return _Seen(path, "sha256", status, f"sha256:{sha256}" if untouched else None)


def _recall(seen: list[_Seen], known_digests: digest_cache.DigestCache) -> dict[Path, str]:
    now_ns = time.time_ns()
    asked = {
        each.path: (each, digest_cache.entry(each.kind, each.status)[0])
        for each in seen
        if not digest_cache.is_young(each.status, now_ns)
    }
    held = known_digests.get_many([key for _, key in asked.values()]) if asked else {}
    digests = {
        path: digest_cache.recalled(each.kind, each.status, held.get(key))
        for path, (each, key) in asked.items()
    }
    return {path: digest for path, digest in digests.items() if digest}


def _read(each: _Seen, read: dict[bytes, bytes]) -> tuple[int, str]:
    """Return the size and the digest of a file; add a valid entry of the digest cache to `read`."""
    now_ns = time.time_ns()
    digest_of = hashing.sha256_digest if each.kind == "sha256" else hashing.content_digest
    digest, status = digest_of(each.path)
    if not digest_cache.is_young(status, now_ns):
        key, value = digest_cache.entry(each.kind, status, digest)
        read[key] = value
    return status.st_size, digest
