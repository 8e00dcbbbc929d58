"""Knows a file of the Hugging Face cache by its place there, without reading it.

The cache keeps a repository's contents once, under their hash, and links to them:

    models--org--name/snapshots/<revision>/model.safetensors -> ../../blobs/<hash>

Where the hash has 64 hexadecimal digits it is the SHA-256 of the content, as the server states it
for large files (40 digits are git's hash of a small one: those are read). A blob may itself be a
link into the store that all repositories share, `<cache>/blobs/<2 digits>/<hash of another kind>`.

What is trusted: that huggingface_hub stored under a name what the server calls by that name (it
checks the size, not the hash), and that nobody has written to the blob since. The second is
checked as far as a stat can: the link is made after the blob, so a blob that was changed after its
link is not trusted. Then the file is read and its SHA-256 computed, so that a cache restored
from a backup has the same identity as before, and a blob trained in place has another.
"""

import os
import re
from pathlib import Path

__all__ = ["blob_sha256", "is_untouched"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHARED = re.compile(r"\.\./\.\./blobs/[0-9a-f]{2}/[0-9a-f]{64}")


def blob_sha256(path: Path, real: dict[Path, Path]) -> str | None:
    """Return the SHA-256 by which the cache names the file, 64 hexadecimal digits, if it does.

    Args:
        path: a symbolic link.
        real: the real paths of the links' folders that are known; more are added.
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
    """Tell whether the blob holds something and has not changed since the link was made.

    Args:
        link: the link's own stat.
        blob: the stat of the file that it leads to.
    """
    return blob.st_size > 0 and max(blob.st_mtime_ns, blob.st_ctime_ns) <= link.st_ctime_ns
