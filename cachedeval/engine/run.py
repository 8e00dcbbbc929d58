"""One request to an engine: a graph, what is known of it, and how the cache may be used."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from cachedeval.engine.outcome import Outcome
from cachedeval.engine.resolve import Resolution

if TYPE_CHECKING:
    import asyncio

    from cachedeval.engine.call import Call
    from cachedeval.engine.record import Record

__all__ = ["MODES", "CacheMode", "OnOutcome", "Run"]

CacheMode = Literal["use", "refresh", "off", "offline"]
"""`use` reads and writes, `refresh` writes alone, `off` neither, `offline` reads alone."""

MODES: tuple[CacheMode, ...] = ("use", "refresh", "off", "offline")

OnOutcome = Callable[[Outcome], None]
"""Called with each outcome as soon as it is there, from any thread."""


class Run:
    """A graph while it runs."""

    def __init__(self, known: Resolution, mode: CacheMode, on_outcome: OnOutcome) -> None:
        self.known = known
        self.outcomes = known.outcomes
        self.mode = mode
        self.on_outcome = on_outcome
        self.records: dict[bytes, Record] = {}
        """What this run computed, by recipe: it is not computed again, even uncached."""
        self.tasks: dict[Call[Any], asyncio.Task[None]] = {}
        self.ended = threading.Event()
        """Set when nothing of it runs any more and what it computed is kept."""
