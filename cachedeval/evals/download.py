"""Finds models in the Hugging Face cache without a network, and fetches them where that is wanted.

Looking up imports nothing of Hugging Face's: it costs a second, and a run that is answered from
the cache needs none of it.
"""

import json
import os
from pathlib import Path

from cachedeval.engine.errors import CachedevalError, InputError
from cachedeval.engine.reading import shown

__all__ = ["FETCH_PATTERNS", "FetchError", "cached_snapshot", "fetch_snapshot", "hub_folder"]

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


class FetchError(CachedevalError):
    """The hub could not be reached, or broke off: the same may succeed later."""


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
    import httpx  # noqa: PLC0415 - all only where something is fetched
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import (  # noqa: PLC0415
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
