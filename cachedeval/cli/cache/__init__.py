"""`cachedeval cache`: commands that look after a cache. None of them creates one."""

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachedeval.engine.store import Store

__all__ = ["COMMANDS", "open_store"]

COMMANDS = {
    "stats": "Show what is stored, by step, and the time and money that hits have saved.",
    "ls": "List the records, by step, the newest first.",
    "prune": "Delete old records, or the least recently used ones down to a size.",
    "verify": "Read and check every record.",
    "audit": "Compute a sample of stored answers again, and compare.",
    "clear": "Delete all records.",
}


@contextmanager
def open_store(url: str) -> "Iterator[Store]":
    """Give the store of an existing cache.

    Raises:
        InputError: there is no such cache, or the folder holds something else.
        BackendError: the service that keeps it cannot be used now.
    """
    from cachedeval.engine.contents import disk_folder
    from cachedeval.engine.errors import BackendError, InputError
    from cachedeval.engine.open import open_backend
    from cachedeval.engine.store import Store

    folder = disk_folder(url)
    if folder is not None and not folder.exists():
        raise InputError(f"cache {url}: there is no such folder; the first run creates it")
    try:
        store = Store(open_backend(url))
    except BackendError as error:
        if folder is None:
            raise
        raise InputError(str(error)) from error
    try:
        yield store
    finally:
        store.close()
