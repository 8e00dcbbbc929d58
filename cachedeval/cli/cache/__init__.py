"""`cachedeval cache`: commands that look after a cache. None of them creates one."""

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachedeval.cli.options import Parser
    from cachedeval.engine.store import Store

__all__ = ["COMMANDS", "add_filters", "open_store"]

COMMANDS = {
    "stats": "Show what is stored, by step, and the time and money that hits have saved.",
    "ls": "List the records, by step, the newest first.",
    "show": "Show one record: what was computed from what, its cost and its uses.",
    "prune": "Delete old records, or cheap ones down to a size.",
    "verify": "Read and check every record.",
    "audit": "Compute a sample of stored answers again, and compare.",
    "clear": "Delete all records.",
}


def add_filters(parser: "Parser") -> None:
    """Add the options that say which records are meant."""
    from cachedeval.cli.options import moment

    parser.add_argument(
        "--node", metavar="STEP", help="Only records of this step: generation, judge, files, …"
    )
    parser.add_argument("--tag", metavar="TAG", help="Only records whose node had this tag.")
    parser.add_argument(
        "--unused-since",
        type=moment,
        metavar="WHEN",
        help="Only records that were last used before this: a date such as 2026-11-30, or a time "
        "ago such as 30d.",
    )


@contextmanager
def open_store(url: str) -> "Iterator[Store]":
    """Give the store of an existing cache.

    Raises:
        InputError: there is no such cache, or the folder holds something else.
        BackendError: the service that keeps it cannot be used now.
    """
    from cachedeval.engine.backend import open_backend, shown_url
    from cachedeval.engine.errors import BackendError, InputError
    from cachedeval.engine.maintenance import disk_folder
    from cachedeval.engine.store import Store

    folder = disk_folder(url)
    if folder is not None and not folder.exists():
        raise InputError(
            f"cache {shown_url(url)}: there is no such folder; the first run creates it"
        )
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
