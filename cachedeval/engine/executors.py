"""Executors: where steps run. Each takes calls in flight and hands them back when they have ended.

- `ThreadExecutor`: synchronous steps, side by side.
- `SerialExecutor`: one thread on which steps take turns, for what must stay on one thread (a model
  that decodes) and for batched nodes, which get all calls that wait together.
- `EventLoopExecutor` (in `aio`): async steps.

A single ready call needs none: its scheduler runs it on its own thread.
"""

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from cachedeval.engine.forks import end_child
from cachedeval.engine.inflight import InFlight, InFlightTable, current
from cachedeval.engine.node import Node
from cachedeval.engine.resource import ResourcePool
from cachedeval.engine.steps import run_batch, run_here

__all__ = ["Executor", "OnEnd", "SerialExecutor", "ThreadExecutor"]

OnEnd = Callable[[InFlight], None]
"""Called on any thread with each call that has ended."""


class Executor(Protocol):
    """Runs steps somewhere else than on the scheduler's thread."""

    def submit_many(self, flights: Sequence[InFlight]) -> None:
        """Run the steps of these calls; `on_end` gets each that is not dropped before it starts."""
        ...

    def close(self, timeout: float) -> bool:
        """End; wait so many seconds for running steps, and say whether all of them ended."""
        ...


class ThreadExecutor:
    """Runs synchronous steps on threads: as many as are needed, up to a bound.

    They are daemons, so that a step that hangs keeps no program alive. (The threads of
    `concurrent.futures` are joined when the program ends.)

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, table: InFlightTable, pool: ResourcePool, on_end: OnEnd) -> None:
        self._table = table
        self._pool = pool
        self._on_end = on_end
        self._limit = min(32, (os.cpu_count() or 1) + 4)
        self._queue: queue.SimpleQueue[InFlight | None] = queue.SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._free = 0
        self._progress = False
        """Whether a step has ended since `unstick` looked last."""

    def submit_many(self, flights: Sequence[InFlight]) -> None:
        """Run the steps as soon as threads are free."""
        with self._lock:
            for flight in flights:
                self._queue.put(flight)
            self._free -= len(flights)
            self._start_missing()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While a thread of these waits for a run of its own, there may be one more."""
        mine = threading.current_thread() in self._threads
        if not mine:
            yield
            return
        with self._lock:
            self._limit += 1
            self._start_missing()
        try:
            yield
        finally:
            self._limit -= 1

    def unstick(self) -> None:
        """Start one more thread, if steps wait for one and none has ended since the last call."""
        with self._lock:
            if self._free < 0 and not self._progress:
                self._limit += 1
                self._start_missing()
            self._progress = False

    def close(self, timeout: float) -> bool:
        """End the threads that are free, and the others once they are; waits for none."""
        del timeout
        with self._lock:
            for _ in self._threads:
                self._queue.put(None)
        return True

    def _start_missing(self) -> None:
        wanted = min(-self._free, self._limit - len(self._threads))
        for _ in range(wanted):
            thread = threading.Thread(target=self._work, name="cachedeval-step", daemon=True)
            self._threads.add(thread)
            self._free += 1
            thread.start()

    def _work(self) -> None:
        process = os.getpid()
        while (flight := self._queue.get()) is not None:
            if self._table.start(flight):
                flight.context.run(_run, flight, self._pool)
                end_child(process)
                self._on_end(flight)
            del flight  # it holds inputs and outputs, and the next may be long in coming
            with self._lock:
                self._free += 1
                self._progress = True


def _run(flight: InFlight, pool: ResourcePool) -> None:
    current.set(flight)
    run_here(flight, pool)


class _Batch:
    """Calls of one node that went to a serial executor together."""

    __slots__ = ("ended", "flights")

    def __init__(self, flights: list[InFlight]) -> None:
        self.flights = flights
        self.ended = threading.Event()


class SerialExecutor:
    """One thread on which steps take turns.

    Its work comes as generators, and each gets one step at a time: while one decodes a long batch,
    another's short work is done between two of its steps.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, name: str, table: InFlightTable, pool: ResourcePool, on_end: OnEnd) -> None:
        self._table = table
        self._pool = pool
        self._on_end = on_end
        self._lock = threading.Lock()
        self._waiting: dict[Node[object], list[InFlight]] = {}
        self._running: dict[Node[object], _Batch] = {}
        self._turns: queue.SimpleQueue[Iterator[None] | None] = queue.SimpleQueue()
        # A daemon: a step that does not come back must not keep an interrupted program alive.
        self.thread = threading.Thread(target=self._work, name=f"cachedeval-{name}", daemon=True)
        self.thread.start()

    def submit_many(self, flights: Sequence[InFlight]) -> None:
        """Run calls of one node together with all others of it that wait by then."""
        with self._lock:
            for flight in flights:
                self._waiting.setdefault(flight.call.node, []).append(flight)
            for node in {flight.call.node for flight in flights}:
                self._start(node)

    def wait_idle(self) -> None:
        """Wait until the batches whose calls have all ended have let go of what they hold."""
        with self._lock:
            batches = list(self._running.values())
        for batch in batches:
            if all(flight.state == "ended" for flight in batch.flights):
                batch.ended.wait()

    def close(self, timeout: float) -> bool:
        """Stop what is left, on its own thread, after its current step."""
        self._turns.put(None)
        self.thread.join(timeout)
        return not self.thread.is_alive()

    def _start(self, node: Node[object]) -> None:
        """Start a node's waiting calls, if none of it run; the lock must be held."""
        if node in self._running:
            return
        flights = [f for f in self._waiting.pop(node, []) if self._table.start(f)]
        if flights:
            batch = self._running[node] = _Batch(flights)
            self._turns.put(self._steps(node, batch))

    def _steps(self, node: Node[object], batch: _Batch) -> Iterator[None]:
        try:
            if node.batch:
                yield from run_batch(node, batch.flights, self._pool, self._on_end)
            else:
                for flight in batch.flights:
                    if flight.wanted:
                        flight.context.run(_run, flight, self._pool)
                    else:
                        flight.cancelled = True
                    self._on_end(flight)
                    yield
        finally:
            batch.ended.set()
            with self._lock:
                del self._running[node]
                if self._waiting.get(node):
                    self._start(node)

    def _work(self) -> None:
        process = os.getpid()
        while (steps := self._turns.get()) is not None:
            try:
                next(steps)
            except StopIteration:
                continue
            finally:
                end_child(process)
            self._turns.put(steps)
        with suppress(queue.Empty):
            while True:
                left = self._turns.get_nowait()
                if left is not None:
                    left.close()  # type: ignore[attr-defined]  # they are generators
