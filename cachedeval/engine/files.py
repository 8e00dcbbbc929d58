"""Identifies files by their content, and reads as few of them as can be.

How a file is read and what its digest means stands in `cachedeval.engine.reading`, and when a
digest that is remembered is good in `cachedeval.engine.statmemo`. A store that names files by their
SHA-256 and links to them needs no reading: the caller passes a function that knows its layout.
"""

import os
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cachedeval.engine import reading, statmemo
from cachedeval.engine.digest import digest_bytes

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
    """A line of a manifest."""

    path: str
    """Relative to the manifest's root, with `/` between its parts."""
    size: int
    """In bytes."""
    digest: str


class _Seen(NamedTuple):
    path: Path
    kind: str
    """`content`, or `sha256` where a link names the file by that."""
    status: os.stat_result
    digest: str | None
    """Known without reading or remembering."""


def digest_file(
    path: AnyPath,
    *,
    memo: statmemo.Memo | None = None,
    linked_sha256: LinkedSha256 | None = None,
) -> str:
    """Return the digest of a file's content; links are followed.

    Args:
        path: of a regular file.
        memo: where digests are remembered; without one the file is read.
        linked_sha256: knows a store whose links name their targets by SHA-256.

    Raises:
        InputError: it is no readable regular file, or it does not stop changing.
    """
    return digest_files([path], memo=memo, linked_sha256=linked_sha256)[0]


def digest_files(
    paths: Sequence[AnyPath],
    *,
    memo: statmemo.Memo | None = None,
    linked_sha256: LinkedSha256 | None = None,
) -> list[str]:
    """Return the files' digests in their order, as `digest_file` does, with one look-up for all."""
    return [digest for _, digest in _identify([Path(path) for path in paths], memo, linked_sha256)]


def manifest(
    root: AnyPath,
    relative_paths: Iterable[str],
    *,
    memo: statmemo.Memo | None = None,
    linked_sha256: LinkedSha256 | None = None,
) -> list[FileEntry]:
    """Return an entry for each of the files below `root`, sorted by path.

    Raises:
        InputError: as `digest_file` does.
    """
    names = sorted(set(relative_paths))
    found = _identify([Path(root, name) for name in names], memo, linked_sha256)
    return [
        FileEntry(Path(name).as_posix(), size, digest)
        for name, (size, digest) in zip(names, found, strict=True)
    ]


def manifest_digest(entries: Iterable[FileEntry]) -> str:
    """Return one digest of a manifest: equal where names, sizes and contents are, in any order."""
    parts = bytearray()
    for entry in sorted(entries):
        for field in (entry.path, str(entry.size), entry.digest):
            data = field.encode("utf-8", "surrogatepass")
            parts += len(data).to_bytes(8, "little") + data
    return digest_bytes(parts)


def _identify(
    paths: list[Path], memo: statmemo.Memo | None, linked_sha256: LinkedSha256 | None
) -> list[tuple[int, str]]:
    """Return the size and digest of each file."""
    seen = [_look(path, linked_sha256) for path in paths]
    known = _recall([each for each in seen if each.digest is None], memo) if memo else {}
    read: dict[bytes, bytes] = {}
    found = []
    try:
        for each in seen:
            size, digest = each.status.st_size, each.digest or known.get(each.path)
            found.append((size, digest) if digest else _read(each, read))
    finally:
        # Kept also where a later file fails: a model takes seconds to read.
        if memo and read:
            memo.put_many(read)
    return found


def _look(path: Path, linked_sha256: LinkedSha256 | None) -> _Seen:
    status = reading.stat_file(path)
    if linked_sha256 is None:
        return _Seen(path, "content", status, None)
    try:
        link = path.lstat()
        sha256 = linked_sha256(path) if stat.S_ISLNK(link.st_mode) else None
    except OSError:  # it was replaced a moment ago: what is there now is read
        sha256 = None
    if sha256 is None:
        return _Seen(path, "content", status, None)
    # The link is made after its target, so a target that changed after the link is read.
    changed_ns = max(status.st_mtime_ns, status.st_ctime_ns)
    untouched = status.st_size > 0 and changed_ns <= link.st_ctime_ns
    return _Seen(path, "sha256", status, f"sha256:{sha256}" if untouched else None)


def _recall(seen: list[_Seen], memo: statmemo.Memo) -> dict[Path, str]:
    now_ns = time.time_ns()
    asked = {
        each.path: (each, statmemo.entry(each.kind, each.status)[0])
        for each in seen
        if not statmemo.is_young(each.status, now_ns)
    }
    held = memo.get_many([key for _, key in asked.values()]) if asked else {}
    digests = {
        path: statmemo.recalled(each.kind, each.status, held.get(key))
        for path, (each, key) in asked.items()
    }
    return {path: digest for path, digest in digests.items() if digest}


def _read(each: _Seen, read: dict[bytes, bytes]) -> tuple[int, str]:
    """Return the size and the digest of a file; add to `read` what may be remembered of it."""
    now_ns = time.time_ns()
    digest_of = reading.sha256_digest if each.kind == "sha256" else reading.content_digest
    digest, status = digest_of(each.path)
    if not statmemo.is_young(status, now_ns):
        key, value = statmemo.entry(each.kind, status, digest)
        read[key] = value
    return status.st_size, digest
