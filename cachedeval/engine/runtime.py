"""The runtime: the schedulers of an engine, on its callers' threads and on a background thread.

An engine creates its runtime at the first miss. A run of hits imports none of this.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cachedeval.engine.execution import Execution, closed_error
from cachedeval.engine.inflight import InFlight, Run
from cachedeval.engine.resource import ResourcePool
from cachedeval.engine.scheduler import Scheduler
from cachedeval.engine.store import Store

__all__ = ["Runtime"]

_PATIENCE = 5.0
"""Seconds for which a closing engine waits for running steps."""


class Runtime:
    """Runs graphs, from any thread and any event loop.

    Args:
        store: where records are read and written.
        pool: the resources that steps use.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, store: Store, pool: ResourcePool) -> None:
        self._execution = Execution(store, pool)
        self._lock = threading.Lock()
        self._closed = False
        self._driven: set[Scheduler] = set()
        """The schedulers that callers drive now."""
        self._background: tuple[Scheduler, threading.Thread] | None = None

    def run(self, run: Run) -> None:
        """Run a graph on this thread.

        Raises:
            CachedevalError: a fatal error of a step; or the engine was closed in the meantime.
            RuntimeError: the thread runs the steps that this run would wait for.
        """
        scheduler = Scheduler(self._execution, inline=True)
        with self._lock:
            if self._closed:
                raise closed_error()
            self._driven.add(scheduler)
            self._execution.schedulers += 1
        try:
            with self.waiting(run.parent):
                scheduler.drive(run)
        finally:
            with self._lock:
                self._driven.discard(scheduler)
                self._execution.schedulers -= 1

    def start(self, run: Run) -> None:
        """Run a graph on the background thread, which calls `run.on_end` at its end.

        Raises:
            CachedevalError: the engine is closed.
        """
        with self._lock:
            if self._closed:
                raise closed_error()
            if self._background is None:
                scheduler = Scheduler(self._execution, inline=False)
                thread = threading.Thread(
                    target=scheduler.serve, name="cachedeval-scheduler", daemon=True
                )
                self._background = scheduler, thread
                self._execution.schedulers += 1
                thread.start()
            scheduler = self._background[0]
            scheduler.post(scheduler.add, run)

    def cancel(self, run: Run, error: BaseException) -> None:
        """Cancel a background run; results computed by then are stored."""
        with self._lock:
            if self._background is not None:
                scheduler = self._background[0]
                scheduler.post(scheduler.cancel, run, error)

    def pause(self, parent: InFlight | None) -> None:
        """Leave thread and slot of a step to others, as it waits for a run; None is no step."""
        self._execution.pause(parent)

    def resume(self, parent: InFlight | None, wake: Callable[[], None]) -> bool:
        """Take them again; return False if the step may go on when `wake` is called."""
        return self._execution.resume(parent, wake)

    @contextmanager
    def waiting(self, parent: InFlight | None) -> Iterator[None]:
        """Return the context in which a step waits for a run on this thread.

        Raises:
            RuntimeError: the thread runs the steps that it would wait for.
        """
        if not self._execution.may_wait():
            raise RuntimeError(
                "a step waits here for steps that wait for it: pass calls as inputs to calls, or "
                "await engine.arun(…) in an async step"
            )
        granted = threading.Event()
        self.pause(parent)
        try:
            yield
        except Exception:  # the step may handle it, and go on
            if not self.resume(parent, granted.set):
                granted.wait()
            raise
        except BaseException:
            self.resume(parent, granted.set)
            raise
        if not self.resume(parent, granted.set):
            granted.wait()

    def stop(self) -> None:
        """Cancel all runs and steps; results computed by then are stored."""
        deadline = time.monotonic() + _PATIENCE
        with self._lock:
            self._closed = True
            driven = set(self._driven)
            background, self._background = self._background, None
        for scheduler in driven:
            scheduler.post(scheduler.cancel_all, closed_error())
        if background is not None:
            scheduler, thread = background
            scheduler.post(scheduler.cancel_all, closed_error())
            scheduler.post(scheduler.stop)
            thread.join(_PATIENCE)
        while time.monotonic() < deadline and any(
            scheduler in self._driven and not scheduler.runs_inline for scheduler in driven
        ):
            time.sleep(0.002)
        self._execution.stop(max(0.1, deadline - time.monotonic()))

    def close(self) -> None:
        """Close the event loop, if it was started."""
        self._execution.close(_PATIENCE)
