"""Pruning: what goes when a cache is too old or too large."""

import time
from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple

from cachedeval.engine.backend import Backend, Entry
from cachedeval.engine.errors import BackendError, InputError

__all__ = ["PruneReport", "choose", "prune"]

_AT_ONCE = 1000


class PruneReport(NamedTuple):
    """What a prune deleted, or would delete."""

    deleted: int
    freed: int
    """Bytes, as the backend counts them."""
    kept: int
    kept_bytes: int
    dry_run: bool


def choose(
    entries: Iterable[Entry], *, now: float, older_than: float | None, max_bytes: int | None
) -> tuple[list[Entry], list[Entry]]:
    """Return the entries that go and those that stay.

    First goes what was last used more than `older_than` seconds before `now`, then, while the rest
    takes more than `max_bytes`, what was used least recently. An entry from the future (a clock
    that was set back) counts as used now.
    """
    by_use = sorted(entries, key=lambda entry: (min(entry.used, now), entry.created, entry.key))
    total = sum(entry.size for entry in by_use)
    cut = 0
    for entry in by_use:
        too_old = older_than is not None and now - entry.used > older_than
        too_much = max_bytes is not None and total > max_bytes
        if not too_old and not too_much:
            break
        cut += 1
        total -= entry.size
    return by_use[:cut], by_use[cut:]


def prune(
    backend: Backend,
    *,
    older_than: timedelta | None,
    max_bytes: int | None,
    dry_run: bool,
) -> PruneReport:
    """Delete what is too old and what is too much.

    Raises:
        InputError: neither bound is given, or one is negative.
        BackendError: the backend cannot be read or written.
    """
    if older_than is None and max_bytes is None:
        raise InputError("prune: give an age (older_than), a size (max_bytes), or both")
    if older_than is not None and older_than < timedelta(0):
        raise InputError(f"prune: older_than is {older_than}; it cannot be negative")
    if max_bytes is not None and max_bytes < 0:
        raise InputError(f"prune: max_bytes is {max_bytes}; it cannot be negative")
    seconds = None if older_than is None else older_than.total_seconds()
    try:
        entries = list(backend.scan())
        gone, kept = choose(entries, now=time.time(), older_than=seconds, max_bytes=max_bytes)
        if not dry_run:
            # In parts, so that a run that writes meanwhile need not wait for the whole.
            for start in range(0, len(gone), _AT_ONCE):
                backend.delete_many([entry.key for entry in gone[start : start + _AT_ONCE]])
    except Exception as error:
        raise BackendError(f"the cache cannot be pruned: {error}") from error
    return PruneReport(
        deleted=len(gone),
        freed=sum(entry.size for entry in gone),
        kept=len(kept),
        kept_bytes=sum(entry.size for entry in kept),
        dry_run=dry_run,
    )
