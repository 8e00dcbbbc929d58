"""Executors: where steps run. An executor takes in-flight calls and posts them when they have ended.

- `ThreadExecutor` runs synchronous steps in parallel.
- `SerialExecutor` runs steps in turns on one thread: for objects that must stay on one thread (a
  model) and for batched nodes, which get all waiting calls together.
- `EventLoopExecutor` (in `aio`) runs async steps.

A single ready call needs no executor: its scheduler runs it inline.
"""

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol

from cachedeval.engine.inflight import InFlight, InFlightTable
from cachedeval.engine.node import Node
from cachedeval.engine.process import end_child
from cachedeval.engine.resource import ResourcePool
from cachedeval.engine.steps import run_batch, run_in_context

__all__ = ["Executor", "OnEnd", "SerialExecutor", "ThreadExecutor"]

OnEnd = Callable[[InFlight], None]
"""Called with each call whose step has ended, on any thread."""


class Executor(Protocol):
    """Runs steps outside the scheduler's thread."""

    def submit_many(self, flights: Sequence[InFlight]) -> None:
        """Run the steps of these calls; pass each call that has ended to `on_end`, if not dropped before."""
        ...

    def close(self, timeout: float) -> bool:
        """Stop; wait up to `timeout` seconds, and return whether all steps ended."""
        ...


class ThreadExecutor:
    """Runs synchronous steps on threads, started on demand up to a limit.

    The threads are daemons, so a step that hangs does not keep the program alive. (The threads of
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

    def owns(self, thread: threading.Thread) -> bool:
        """Return whether a thread is one of this pool."""
        return thread in self._threads

    def lend(self) -> None:
        """Allow one more thread while one of the pool waits for a run."""
        with self._lock:
            self._limit += 1
            self._start_missing()

    def take_back(self) -> None:
        """End what `lend` began."""
        with self._lock:
            self._limit -= 1

    @property
    def idents(self) -> set[int | None]:
        """The identifiers of the threads."""
        with self._lock:
            return {thread.ident for thread in self._threads}

    def unstick(self, count: int) -> None:
        """Start more threads if steps are queued and none has ended since the last call."""
        with self._lock:
            if self._free < 0 and not self._progress:
                self._limit += count
                self._start_missing()
            self._progress = False

    def close(self, timeout: float) -> bool:
        """Stop each thread when it is idle; waits for none."""
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
                flight.on_pool = True
                run_in_context(flight, self._pool)
                end_child(process)
                self._on_end(flight)
            del flight  # it holds inputs and outputs, and the next call may come much later
            with self._lock:
                self._free += 1
                self._progress = True


class _Batch:
    """Calls of one node that a serial executor runs together."""

    __slots__ = ("ended", "flights")

    def __init__(self, flights: list[InFlight]) -> None:
        self.flights = flights
        self.ended = threading.Event()


class SerialExecutor:
    """Runs steps in turns on one thread.

    Each batch is a generator, and the thread advances the batches in turn. So a short batch runs
    between two steps of a long one.

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
        # A daemon: a step that does not return must not keep an interrupted program alive.
        self.thread = threading.Thread(target=self._work, name=f"cachedeval-{name}", daemon=True)
        self.thread.start()

    def submit_many(self, flights: Sequence[InFlight]) -> None:
        """Queue the calls; all waiting calls of one node run together."""
        with self._lock:
            for flight in flights:
                self._waiting.setdefault(flight.call.node, []).append(flight)
            for node in {flight.call.node for flight in flights}:
                self._start(node)

    def wait_idle(self) -> None:
        """Wait until batches whose calls have all ended have released their resources."""
        with self._lock:
            batches = list(self._running.values())
        for batch in batches:
            if all(flight.state == "ended" for flight in batch.flights):
                batch.ended.wait()

    def close(self, timeout: float) -> bool:
        """Stop the thread after its current step and close the remaining batches there."""
        self._turns.put(None)
        self.thread.join(timeout)
        return not self.thread.is_alive()

    def _start(self, node: Node[object]) -> None:
        """Start a node's waiting calls if no batch of it runs; the lock must be held."""
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
                        run_in_context(flight, self._pool)
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
