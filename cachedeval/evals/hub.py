"""The Hugging Face cache: finds models without a network, downloads them, and identifies files.

Finding and identifying import nothing of Hugging Face's, which would take a second.

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

A large file in the cache is identified by its SHA-256, elsewhere by its xxh3. So a model copied out
of the cache counts as another one: its results are computed once more, slow but never wrong.
"""

import json
import os
import re
from pathlib import Path

from cachedeval.engine.errors import CachedevalError, InputError
from cachedeval.engine.hashing import shown

__all__ = [
    "FETCH_PATTERNS",
    "BlobNames",
    "FetchError",
    "cached_snapshot",
    "fetch_snapshot",
    "hub_folder",
]

FETCH_PATTERNS = (
    "*.json",
    "model*.safetensors",
    "*.py",
    "tokenizer.model",
    "*.tiktoken",
    "tiktoken.model",
    "*.txt",
    "*.jsonl",
    "*.jinja",
)
"""The files of a repository that mlx_lm downloads (`mlx_lm.utils.DEFAULT_ALLOW_PATTERNS`)."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHARED = re.compile(r"\.\./\.\./blobs/[0-9a-f]{2}/[0-9a-f]{64}")


class FetchError(CachedevalError):
    """The hub could not be reached, or broke off: the same may succeed later."""


class BlobNames:
    """Reads the SHA-256 of a file off its place in the cache: the `linked_sha256` of `manifest`.

    It remembers the real paths of folders, so it is made for one look at a model.

    Example:
        >>> from cachedeval.engine.files import digest_file
        >>> digest_file(snapshot / "model.safetensors", linked_sha256=BlobNames())  # doctest: +SKIP
        'sha256:…'
    """

    def __init__(self) -> None:
        self._real: dict[Path, Path] = {}

    def __call__(self, link: Path) -> str | None:
        """Return the SHA-256 by which the cache names a link's target, or None if it does not."""
        target = link.readlink()
        if _SHA256.fullmatch(target.name) is None:
            return None
        parent = link.parent
        folder = self._real.get(parent) or self._real.setdefault(parent, parent.resolve())
        snapshots = next((above for above in folder.parents if above.name == "snapshots"), None)
        if snapshots is None or not snapshots.parent.name.startswith("models--"):
            return None
        blob = snapshots.parent / "blobs" / target.name
        if os.path.normpath(folder / target) != str(blob):
            return None
        if blob.is_symlink() and _SHARED.fullmatch(str(blob.readlink())) is None:
            return None
        return target.name


def hub_folder() -> Path:
    """Return the folder in which huggingface_hub keeps repositories, by its own rules."""
    home = os.environ.get("HF_HOME") or Path(
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"
    )
    legacy = os.environ.get("HUGGINGFACE_HUB_CACHE") or Path(home, "hub")
    return Path(os.path.expandvars(os.environ.get("HF_HUB_CACHE") or legacy)).expanduser()


def cached_snapshot(repo: str) -> Path | None:
    """Return the folder of a repository's `main` in the cache, if it is there and complete.

    Args:
        repo: as `org/name`.
    """
    folder = hub_folder() / "--".join(["models", *repo.split("/")])
    try:
        revision = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    snapshot = folder / "snapshots" / revision
    return snapshot if revision and _is_complete(snapshot) else None


def fetch_snapshot(repo: str) -> Path:
    """Download what mlx_lm reads of a repository's `main`, and return its folder.

    Raises:
        InputError: there is no such repository, or it is no model.
        FetchError: the hub cannot be reached, or did not answer.
    """
    import httpx  # these take a second, and only a download needs them
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = Path(snapshot_download(repo, allow_patterns=list(FETCH_PATTERNS)))
    except (OSError, ValueError, httpx.HTTPError) as error:
        why = shown(str(error).strip().partition("\n")[0]) or type(error).__name__
        message = f"model {repo}: cannot be fetched from the Hugging Face hub: {why}"
        wrong = (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError)
        raise (InputError if isinstance(error, wrong) else FetchError)(message) from error
    if not _is_complete(folder):
        message = f"model {repo}: what the Hugging Face hub has of it is no model for mlx_lm"
        raise InputError(message)
    return folder


def _is_complete(snapshot: Path) -> bool:
    """Tell whether a download was finished, as far as the files themselves say."""
    if not (snapshot / "config.json").exists():
        return False
    index = snapshot / "model.safetensors.index.json"
    names = {path.name for path in snapshot.glob("model*.safetensors")}
    if index.exists():
        try:
            names = set(json.loads(index.read_bytes())["weight_map"].values())
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return False
    return bool(names) and all((snapshot / name).exists() for name in names)
