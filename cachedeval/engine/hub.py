"""Identifies a file of the Hugging Face cache by its path, without reading it.

The cache stores a repository's contents once, under their hash, and links to them:

    models--org--name/snapshots/<revision>/model.safetensors -> ../../blobs/<hash>

A hash of 64 hexadecimal digits is the SHA-256 of a large file, as the server reports it. A hash of
40 digits is git's hash of a small file; small files are read. A blob may itself be a link into a
store that all repositories share, `<cache>/blobs/<2 digits>/<another kind of hash>`.

Two things are trusted: that huggingface_hub stored the content under its right hash (it checks the
size, not the hash), and that the blob has not changed since. A stat can check the second: the link
is made after the blob, so a blob that is newer than its link is not trusted. Such a file is read
and its SHA-256 computed. So a cache restored from a backup has the same identity as before, and a
blob that was overwritten has another one.
"""

import os
import re
from pathlib import Path

__all__ = ["blob_sha256", "is_untouched"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHARED = re.compile(r"\.\./\.\./blobs/[0-9a-f]{2}/[0-9a-f]{64}")


def blob_sha256(path: Path, real: dict[Path, Path]) -> str | None:
    """Return the SHA-256 in the name of a file's blob, 64 hexadecimal digits, or None.

    Args:
        path: a symbolic link.
        real: a cache of the real paths of the links' folders; entries are added.
    """
    target = path.readlink()
    if _SHA256.fullmatch(target.name) is None:
        return None
    folder = real.get(path.parent) or real.setdefault(path.parent, path.parent.resolve())
    snapshots = next((above for above in folder.parents if above.name == "snapshots"), None)
    if snapshots is None or not snapshots.parent.name.startswith("models--"):
        return None
    blob = snapshots.parent / "blobs" / target.name
    if os.path.normpath(folder / target) != str(blob):
        return None
    if blob.is_symlink() and _SHARED.fullmatch(str(blob.readlink())) is None:
        return None
    return target.name


def is_untouched(link: os.stat_result, blob: os.stat_result) -> bool:
    """Return whether a blob is not empty and has not changed since its link was made.

    Args:
        link: the link's own stat.
        blob: the stat of the link's target.
    """
    return blob.st_size > 0 and max(blob.st_mtime_ns, blob.st_ctime_ns) <= link.st_ctime_ns
