"""Lays files out as huggingface_hub keeps them."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["add_snapshot"]

REVISION = "0123456789abcdef0123456789abcdef01234567"


def add_snapshot(
    cache: Path,
    repo: str,
    files: Mapping[str, bytes],
    *,
    large: int = 1 << 16,
    revision: str = REVISION,
    shared: bool = False,
) -> Path:
    """Store a repository's files and return its snapshot folder.

    Args:
        cache: the cache's `hub` folder.
        repo: as `org/name`.
        files: contents by relative path.
        large: size in bytes from which a file is stored under its SHA-256, as LFS does.
        revision: the commit, to which `main` refers.
        shared: whether large blobs lie in the store that all repositories share.
    """
    folder = cache / "--".join(["models", *repo.split("/")])
    snapshot = folder / "snapshots" / revision
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(revision)
    for name, data in files.items():
        is_large = len(data) >= large
        blob = folder / "blobs" / (_sha256(data) if is_large else _git_sha1(data))
        if shared and is_large:
            hashed = hashlib.blake2s(data).hexdigest()
            store = cache / "blobs" / hashed[:2] / hashed
            store.parent.mkdir(parents=True, exist_ok=True)
            store.write_bytes(data)
            blob.symlink_to(os.path.relpath(store, blob.parent))
        else:
            blob.write_bytes(data)
        link = snapshot / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
