"""What all runs of an engine share: the calls in flight, the executors, and the commits.

Made at the first miss; a run of hits has no need of it.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from cachedeval.engine import forks
from cachedeval.engine.call import Call, describe, substitute
from cachedeval.engine.encoding import Identified, encode
from cachedeval.engine.errors import CachedevalError
from cachedeval.engine.executors import Executor, SerialExecutor, ThreadExecutor
from cachedeval.engine.inflight import InFlight, InFlightTable, Waiter
from cachedeval.engine.log import logger
from cachedeval.engine.node import Node
from cachedeval.engine.outcome import State
from cachedeval.engine.recipe import identity_recipe, key_of
from cachedeval.engine.record import Record
from cachedeval.engine.resource import Resource, ResourcePool
from cachedeval.engine.scheduler import Run, Scheduler
from cachedeval.engine.store import Store

if TYPE_CHECKING:
    from cachedeval.engine.aio import EventLoopExecutor

__all__ = ["Runtime"]

_PATIENCE = 5.0
"""Seconds that running steps are given to end when the engine is closed."""


class Runtime:
    """Runs graphs for an engine, from any thread and any event loop.

    Args:
        store: where records are read and written.
        pool: the resources that steps use.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, store: Store, pool: ResourcePool) -> None:
        self.store = store
        self.pool = pool
        self.table = InFlightTable()
        self._lock = threading.Lock()
        self._closed = False
        self._threads: ThreadExecutor | None = None
        self._serial: dict[str, SerialExecutor] = {}
        self._loop: EventLoopExecutor | None = None
        self._driven: dict[Scheduler, threading.Event] = {}
        """Schedulers that run on their callers' threads, with what is set when they are done."""
        self._background: tuple[Scheduler, threading.Thread] | None = None
        self._identified: set[Identified] = set()
        """Resources whose identity is stored for explanations."""
        self._warned: set[str] = set()

    # Runs.

    def run(self, run: Run) -> None:
        """Run a graph on this thread.

        Raises:
            CachedevalError: a fatal error of a step; or the engine was closed in the meantime.
            RuntimeError: called where waiting would stop what it waits for.
        """
        here = threading.current_thread()
        if (self._loop is not None and here is self._loop.thread) or any(
            here is serial.thread for serial in self._serial.values()
        ):
            raise RuntimeError(
                "a step waits here for steps that wait for it: give calls as inputs to calls, or "
                "await engine.arun(…) in an async step"
            )
        scheduler = Scheduler(self, inline=True)
        with self._driving(scheduler):
            scheduler.drive(run)

    def start(self, run: Run) -> None:
        """Run a graph on the thread in the background; `run.on_end` is called there at its end."""
        with self._lock:
            self._refuse_closed()
            if self._background is None:
                scheduler = Scheduler(self, inline=False)
                thread = threading.Thread(
                    target=scheduler.serve, name="cachedeval-scheduler", daemon=True
                )
                self._background = scheduler, thread
                thread.start()
            scheduler = self._background[0]
            scheduler.post(scheduler.add, run)

    def cancel(self, run: Run, error: BaseException) -> None:
        """End a run in the background early; what was computed by then is stored."""
        with self._lock:
            if self._background is not None:
                scheduler = self._background[0]
                scheduler.post(scheduler.cancel, run, error)

    def waiting(self) -> AbstractContextManager[None]:
        """Return the context in which the current thread waits for a run in the background."""
        return nullcontext() if self._threads is None else self._threads.waiting()

    @property
    def may_stall(self) -> bool:
        """Whether all threads may be taken by steps that wait for another run."""
        return self._threads is not None and (
            len(self._driven) + (self._background is not None) > 1
        )

    def unstick(self) -> None:
        """Give waiting steps one more thread, if none has ended since the last time."""
        if self._threads is not None:
            self._threads.unstick()

    @contextmanager
    def _driving(self, scheduler: Scheduler) -> Iterator[None]:
        done = threading.Event()
        with self._lock:
            self._refuse_closed()
            self._driven[scheduler] = done
        try:
            with self.waiting():
                yield
        finally:
            done.set()
            with self._lock:
                self._driven.pop(scheduler, None)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise _closed()

    # Executors.

    def executor(self, node: Node[Any]) -> Executor:
        """Return the executor on which a node's steps run, started if need be."""
        with self._lock:
            self._refuse_closed()
            if node.executor is not None:
                serial = self._serial.get(node.executor)
                if serial is None:
                    serial = self._serial[node.executor] = SerialExecutor(
                        node.executor, self.table, self.pool, self.ended
                    )
                return serial
            if node.is_async:
                if self._loop is None:
                    with forks.importing():
                        from cachedeval.engine.aio import EventLoopExecutor  # noqa: PLC0415

                    self._loop = EventLoopExecutor(self.table, self.pool, self.ended)
                return self._loop
            if self._threads is None:
                self._threads = ThreadExecutor(self.table, self.pool, self.ended)
            return self._threads

    def wait_idle(self) -> None:
        """Wait until batches whose calls have all ended have let go of what they hold.

        Whoever asks for a model's memory back as the next thing may want it to be free.
        """
        for serial in list(self._serial.values()):
            serial.wait_idle()

    # Calls in flight.

    def ended(self, flight: InFlight) -> None:
        """Hand a call whose step has ended to its owner; called on any thread."""
        with self.table.lock:
            owner = flight.owner
            if owner is not None:
                owner.post(owner.end, flight)
                return
        if flight.cancelled:
            self.restart(flight)
        else:
            self.deliver(self.commit([flight]))

    def restart(self, flight: InFlight) -> None:
        """Compute a call whose step was cancelled again if somebody wants it by now, or drop it."""
        with self.table.lock:
            if flight.waiters:
                flight.state = "waiting"
                flight.cancelled = flight.cancelling = False
                flight.error = None
                flight.owner = owner = flight.waiters[0].scheduler
                owner.post(owner.adopt, flight)
                return
            self.table.remove([flight])
        self._release([flight])

    def leave(self, run: Run, scheduler: Scheduler) -> list[InFlight]:
        """Wait no longer for the calls of a run; return those that are the scheduler's no more."""
        moved: list[InFlight] = []
        dropped: list[InFlight] = []
        running: list[InFlight] = []
        with self.table.lock:
            for flight in self.table.waited_for_by(run):
                mine = flight.owner is scheduler
                flight.waiters = [waiter for waiter in flight.waiters if waiter.run is not run]
                if not mine or any(waiter.scheduler is scheduler for waiter in flight.waiters):
                    continue
                moved.append(flight)
                if flight.waiters:
                    flight.owner = heir = flight.waiters[0].scheduler
                    heir.post(heir.adopt, flight)
                elif flight.state == "running":
                    flight.owner = None
                    running.append(flight)
                else:
                    dropped.append(flight)
            self.table.remove(dropped)
        self._release(dropped)
        # Batches see by themselves that nobody wants the rest; a thread cannot be interrupted.
        if self._loop is not None:
            self._loop.cancel([flight for flight in running if flight.call.node.is_async])
        return moved

    def commit(self, flights: Sequence[InFlight]) -> list[tuple[Waiter, State, InFlight]]:
        """Store the records of calls that have ended, as one group.

        Returns:
            Who waits for them, and what each is told.
        """
        records: dict[bytes, Record] = {}
        for flight in flights:
            if flight.state != "running" or flight.record is None or flight.mode == "off":
                continue
            if flight.mutated is not None:
                self._warn_mutation(flight)
                continue
            records[flight.key] = flight.record
            if not flight.call.plain:
                self._add_identities(flight.call, records)
        stored = bool(records) and self.store.put_many(records)
        self._release(flights)
        told: list[tuple[Waiter, State, InFlight]] = []
        with self.table.lock:
            for flight in flights:
                state: State = "computed" if flight.state == "running" else "hit"
                flight.stored = state == "hit" or (
                    stored and flight.mode == "use" and flight.mutated is None
                )
                for waiter in flight.waiters:
                    told.append((waiter, state, flight))
                    state = "hit"  # for all but the first
            self.table.remove(flights)
        return told

    def deliver(self, told: Sequence[tuple[Waiter, State, InFlight]]) -> None:
        """Tell schedulers what became of calls that they wait for."""
        for waiter, state, flight in told:
            waiter.scheduler.post(waiter.scheduler.receive, waiter, state, flight)

    def _release(self, flights: Sequence[InFlight]) -> None:
        leased = [flight for flight in flights if flight.leased]
        for flight in leased:
            flight.leased = False
        self.store.release_many([flight.key for flight in leased])

    def _add_identities(self, call: Call[Any], records: dict[bytes, Record]) -> None:
        """Store what stands behind the identities in a recipe, for explanations."""
        found: list[Resource[Any]] = []
        for value in call.inputs.values():
            substitute(value, lambda _: None, found.append)
        for resource in found:
            identified = resource.identified
            if identified not in self._identified:
                self._identified.add(identified)
                recipe = identity_recipe(identified)
                payload = b"c" + encode(resource.identity)
                records[key_of(recipe)] = Record(recipe, payload, identified.digest, 0.0, 0.0)

    def _warn_mutation(self, flight: InFlight) -> None:
        name = flight.call.node.name
        if name not in self._warned:
            self._warned.add(name)
            logger().warning(
                "%s is not stored: %s changed while it ran, so the result may belong to other "
                "inputs; a step must not change what it reads, nor may another meanwhile",
                describe(flight.call),
                flight.mutated,
            )

    # Closing.

    def stop(self) -> None:
        """End all runs and steps; what was computed by then is stored."""
        deadline = time.monotonic() + _PATIENCE
        with self._lock:
            self._closed = True
            driven = dict(self._driven)
            background, self._background = self._background, None
        for scheduler in driven:
            scheduler.post(scheduler.cancel_all, _closed())
        if background is not None:
            scheduler, thread = background
            scheduler.post(scheduler.cancel_all, _closed())
            scheduler.post(scheduler.stop)
            thread.join(_PATIENCE)
        for scheduler, done in driven.items():
            if not scheduler.runs_inline:
                done.wait(max(0.0, deadline - time.monotonic()))
        if self._loop is not None and not self._loop.stop(max(0.1, deadline - time.monotonic())):
            logger().warning("a step does not end; it is left behind")
        for serial in self._serial.values():
            serial.close(1.0)
        if self._threads is not None:
            self._threads.close(0.0)
        self._release(self.table.take_all())

    def close(self) -> None:
        """End the event loop."""
        if self._loop is not None:
            self._loop.close(_PATIENCE)


def _closed() -> CachedevalError:
    return CachedevalError(
        "the engine was closed before all was computed; what was computed is stored"
    )
