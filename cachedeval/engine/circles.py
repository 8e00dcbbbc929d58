"""Circles through threads: a step that waits for a thread which waits for the step's own result.

A run knows the step that started it by a context variable, which `asyncio.to_thread` copies to its
thread. `threading.Thread` and the pools of `concurrent.futures` do not. So when nothing has happened
for a while, the stacks of the threads say who waits for whom: a frame of `Thread.join` for a thread,
one of `Future.result` for the thread that runs the future's work. Only waits without a time limit
count, as the others end by themselves.
"""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from concurrent.futures import thread as pools
from types import CodeType, FrameType
from typing import Any

from cachedeval.engine.inflight import InFlight
from cachedeval.engine.node import describe
from cachedeval.engine.steps import run_in_context

__all__ = ["Waits"]

_Reader = Callable[[Mapping[str, Any]], Iterable[object]]
"""Returns what a frame waits for, given its local variables: threads and futures."""

_READERS: dict[CodeType, _Reader] = {
    threading.Thread.join.__code__: lambda found: [found["self"]],
    futures.Future.result.__code__: lambda found: [found["self"]],
    futures.Future.exception.__code__: lambda found: [found["self"]],
    futures.wait.__code__: lambda found: (
        found["fs"] if found["return_when"] == futures.ALL_COMPLETED else ()
    ),
    futures.as_completed.__code__: lambda found: found.get("pending", ()),
}


class Waits:
    """Who waits for whom now: steps, the threads that run them, and threads that wait in runs.

    Args:
        flights: the calls in flight; their table's lock must be held.
        executing: returns the thread on which a call's step runs, or would run next, if that is
            one certain thread.
        task: returns the task of a call whose step is async.
    """

    def __init__(
        self,
        flights: Iterable[InFlight],
        executing: Callable[[InFlight], int | None],
        task: Callable[[InFlight], Any],
    ) -> None:
        self._executing = executing
        self._task = task
        self._in_runs: dict[int, list[InFlight]] = {}
        """The calls for which the runs of a thread wait."""
        self._running: dict[int, InFlight] = {}
        """The call whose step each thread runs; the innermost one."""
        for flight in flights:
            if flight.thread is not None:
                self._running[flight.thread] = flight
            for waiter in flight.waiters:
                self._in_runs.setdefault(waiter.run.thread, []).append(flight)
        self._frames = sys._current_frames()  # noqa: SLF001  documented, for debuggers
        self._workers: dict[int, int] | None = None

    def circle(self, flight: InFlight, thread: int) -> str | None:
        """Return the circle, in words, if a call can only end after a thread that waits for it."""
        paths: list[list[InFlight | int]] = [[flight]]
        seen: set[object] = set()
        while paths:
            path = paths.pop()
            for following in self._after(path[-1]):
                if following == thread:
                    inner = self._named([*path, following])
                    return " -> ".join([*inner, describe(flight.call)])
                if following not in seen:
                    seen.add(following)
                    paths.append([*path, following])
        return None

    def blocked(self, flight: InFlight) -> bool:
        """Return whether a step waits, through threads, for a run."""
        waiting: list[InFlight | int] = [flight]
        seen: set[object] = set()
        while waiting:
            each = waiting.pop()
            if isinstance(each, int) and each in self._in_runs:
                return True
            seen.add(each)
            waiting += [following for following in self._after(each) if following not in seen]
        return False

    def _after(self, waiting: InFlight | int) -> Iterator[InFlight | int]:
        """Yield what a call or a thread waits for."""
        if isinstance(waiting, int):
            yield from self._in_runs.get(waiting, ())
            yield from self._joined(waiting)
            return
        yield from waiting.waits_for
        if waiting.owner is not None and waiting.owner.notifying is not None:
            yield waiting.owner.notifying
        if (thread := self._executing(waiting)) is not None:
            yield thread
        elif (task := self._task(waiting)) is not None:
            yield from self._threads(_awaited(task))

    def _named(self, path: list[InFlight | int]) -> Iterator[str]:
        """Yield the names of the steps and threads of a circle."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        before: InFlight | None = None
        for each in path:
            flight = each if isinstance(each, InFlight) else self._running.get(each)
            if isinstance(each, int) and flight is None:
                yield f"thread {names.get(each, each)!r}"
            elif flight is not None and flight is not before:
                yield describe(flight.call)
            before = flight

    def _joined(self, thread: int) -> Iterator[int]:
        """Yield the threads for which a thread waits, by its stack down to the step that it runs."""
        frame = self._frames.get(thread)
        while frame is not None and frame.f_code is not run_in_context.__code__:
            reader = _READERS.get(frame.f_code)
            if reader is not None and frame.f_locals.get("timeout") is None:
                yield from self._threads(reader(frame.f_locals))
            frame = frame.f_back

    def _threads(self, found: Iterable[object]) -> Iterator[int]:
        for each in list(found):
            if isinstance(each, threading.Thread):
                if each.ident is not None:
                    yield each.ident
            elif (worker := self._working().get(id(each))) is not None:
                yield worker

    def _working(self) -> dict[int, int]:
        """Return the threads that run the work of futures, by the future's id."""
        if self._workers is None:
            self._workers = {}
            for ident, top in self._frames.items():
                frame: FrameType | None = top
                while frame is not None:
                    if frame.f_code is _WORK and "self" in frame.f_locals:
                        self._workers[id(frame.f_locals["self"].future)] = ident
                    frame = frame.f_back
        return self._workers


_WORK = pools._WorkItem.run.__code__  # noqa: SLF001  the frame that knows the future


def _awaited(task: Any) -> Iterator[object]:
    """Yield the futures of threads that a task awaits, directly or in a `gather`."""
    waiting = [task]
    while waiting:
        future = waiting.pop()
        waiting.extend(getattr(future, "_children", ()))
        if (inner := getattr(future, "_fut_waiter", None)) is not None:
            waiting.append(inner)
        for callback, _ in getattr(future, "_callbacks", None) or ():
            for cell in getattr(callback, "__closure__", None) or ():
                if isinstance(cell.cell_contents, futures.Future):
                    yield cell.cell_contents
