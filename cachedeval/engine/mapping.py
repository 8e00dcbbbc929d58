"""Mapping a node over any number of items, with a bounded number of them in memory.

Calls are made and submitted in parts, so that they are looked up and stored together. A part is
submitted as soon as there is room for it in the window, and each value is passed on as soon as it is
there. So neither items nor values are held, and no step waits for the end of a part.
"""

import queue
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from cachedeval.engine.errors import CachedevalError
from cachedeval.engine.inflight import Run, Runs, current
from cachedeval.engine.node import Call
from cachedeval.engine.result import CacheMode, OnOutcome, Outcome

if TYPE_CHECKING:
    from cachedeval.engine.resolve import Resolution
    from cachedeval.engine.runtime import Runtime

__all__ = ["WINDOW", "amap_calls", "map_calls"]

WINDOW = 4000
"""How many calls are known at once, at most: in flight, or with a value that was not passed on yet."""

_PART = 500
"""How many calls are submitted together."""

Resolve = Callable[[list[Call[Any]]], "Resolution"]
"""Looks calls up, and reports those that are found."""

Report = Callable[[Outcome | Run], None]
"""Called with each outcome of a run, and with the run when it has ended; on any thread."""


class _Window:
    """The calls that are known now.

    Args:
        calls: all calls, in order; taken from as there is room.
        runtime: returns what runs the missing calls.
        mode: how they use the cache.
        note: called with each new outcome.
        report: receives what the runs report.
        ordered: whether the outcomes come in the order of the calls.
    """

    def __init__(
        self,
        calls: Iterator[Call[Any]],
        runtime: "Callable[[], Runtime]",
        *,
        mode: CacheMode,
        note: OnOutcome,
        engine: Runs,
        report: Report,
        ordered: bool,
    ) -> None:
        self._calls = calls
        self._runtime = runtime
        self._mode = mode
        self._note = note
        self._engine = engine
        self._report = report
        self._ordered = ordered
        self._order: deque[Call[Any]] = deque()
        """The calls whose outcomes were not passed on yet, in order."""
        self._open: set[Call[Any]] = set()
        """The calls without an outcome."""
        self._known: dict[Call[Any], Outcome] = {}
        """The outcomes that were not passed on yet."""
        self._runs: set[Run] = set()
        self._all_taken = False

    @property
    def is_over(self) -> bool:
        """Whether all outcomes were passed on."""
        return self._all_taken and not (self._open or self._known)

    def take(self) -> list[Call[Any]]:
        """Return the next calls, if there is room for them."""
        if self._all_taken or len(self._open) + len(self._known) > WINDOW - _PART:
            return []
        part: dict[Call[Any], None] = {}
        for call in islice(self._calls, _PART):
            again = call in part or call in self._open or call in self._known
            part[Call(call.node, call.inputs) if again else call] = None
        self._all_taken = len(part) < _PART
        return list(part)

    def submit(self, part: list[Call[Any]], known: "Resolution") -> None:
        """Run the calls of a part that are not in the cache."""
        if self._ordered:
            self._order.extend(part)
        for call in part:
            outcome = known.outcomes.get(call)
            if outcome is None:
                self._open.add(call)
            else:
                self._known[call] = outcome
        if known.open:
            run = Run(known, self._mode, self._tell, part, self._engine)
            run.on_end = self._report
            self._runs.add(run)
            self._runtime().start(run)

    def receive(self, item: Outcome | Run) -> None:
        """Handle what a run reported.

        Raises:
            BaseException: the error that ended the run early.
        """
        if isinstance(item, Run):
            self._runs.discard(item)
            if item.error is not None:
                raise item.error
        elif item.call in self._open:
            self._open.discard(item.call)
            self._known[item.call] = item

    def ready(self) -> Iterator[Outcome]:
        """Take out the outcomes that can be passed on now."""
        if self._ordered:
            while self._order and self._order[0] in self._known:
                yield self._known.pop(self._order.popleft())
        while self._known and not self._ordered:
            yield self._known.pop(next(iter(self._known)))

    def cancel(self) -> None:
        """Stop the runs; results that were computed by then are stored."""
        for run in self._runs:
            self._runtime().cancel(run, CachedevalError("the map was left before its end"))

    def _tell(self, outcome: Outcome) -> None:
        self._note(outcome)
        self._report(outcome)


def map_calls(
    calls: Iterator[Call[Any]],
    resolve: Resolve,
    runtime: "Callable[[], Runtime]",
    *,
    mode: CacheMode,
    note: OnOutcome,
    engine: Runs,
    ordered: bool,
) -> Generator[Outcome, None, None]:
    """Yield the outcomes of calls.

    Args:
        calls: the calls.
        resolve: looks up a part.
        runtime: returns what runs the missing calls.
        mode: how they use the cache.
        note: called with each new outcome.
        engine: runs the calls that steps return.
        ordered: whether the outcomes come in the order of the calls.

    Raises:
        CachedevalError: a fatal error of a step, after which no other call can succeed.
    """
    reports: queue.SimpleQueue[Outcome | Run] = queue.SimpleQueue()
    window = _Window(
        calls, runtime, mode=mode, note=note, engine=engine, report=reports.put, ordered=ordered
    )
    parent = current.get()
    try:
        while not window.is_over:
            while part := window.take():
                window.submit(part, resolve(part))
                yield from window.ready()
            if not window.is_over:
                with runtime().waiting(parent):
                    window.receive(reports.get())
            while not reports.empty():
                window.receive(reports.get())
            yield from window.ready()
    finally:
        window.cancel()


async def amap_calls(
    calls: Iterator[Call[Any]],
    resolve: Resolve,
    runtime: "Callable[[], Runtime]",
    *,
    mode: CacheMode,
    note: OnOutcome,
    engine: Runs,
    ordered: bool,
) -> AsyncGenerator[Outcome, None]:
    """Yield the outcomes of calls without blocking the event loop, as `map_calls` does."""
    import asyncio

    from cachedeval.engine.waiting import waited

    loop = asyncio.get_running_loop()
    reports: asyncio.Queue[Outcome | Run] = asyncio.Queue()

    def report(item: Outcome | Run) -> None:
        with suppress(RuntimeError):  # the loop was closed in the meantime
            loop.call_soon_threadsafe(reports.put_nowait, item)

    window = _Window(
        calls, runtime, mode=mode, note=note, engine=engine, report=report, ordered=ordered
    )
    parent = current.get()
    try:
        while not window.is_over:
            while part := window.take():
                window.submit(part, await asyncio.to_thread(resolve, part))
                for outcome in window.ready():
                    yield outcome
            if not window.is_over:
                window.receive(await waited(runtime(), parent, reports.get()))
            while not reports.empty():
                window.receive(reports.get_nowait())
            for outcome in window.ready():
                yield outcome
    finally:
        window.cancel()
