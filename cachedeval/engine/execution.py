"""The state that the schedulers of one engine share: in-flight calls, executors and commits."""

# Lazy import: only async steps need asyncio.

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cachedeval.engine import process
from cachedeval.engine.encoding import Identified, encode
from cachedeval.engine.errors import CachedevalError
from cachedeval.engine.executors import Executor, SerialExecutor, ThreadExecutor
from cachedeval.engine.inflight import (
    InFlight,
    InFlightTable,
    Owner,
    Run,
    Waiter,
    circle_error,
)
from cachedeval.engine.keys import identity_recipe, key_of
from cachedeval.engine.log import logger
from cachedeval.engine.node import Call, Node, describe, substitute
from cachedeval.engine.record import Record
from cachedeval.engine.resource import Resource, ResourcePool
from cachedeval.engine.result import State
from cachedeval.engine.slots import Slots
from cachedeval.engine.store import Store
from cachedeval.engine.values import UNSTORED, Unstored

if TYPE_CHECKING:
    from cachedeval.engine.aio import EventLoopExecutor

__all__ = ["Execution", "closed_error"]


class Execution:
    """Executors and commits for all runs of one engine.

    Args:
        store: where records are read and written.
        pool: the resources that steps use.

    Attributes:
        table: the in-flight calls.
        schedulers: how many schedulers run graphs now.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, store: Store, pool: ResourcePool) -> None:
        self.store = store
        self.pool = pool
        self.table = InFlightTable()
        self.schedulers = 0
        self._lock = threading.Lock()
        self._closed = False
        self._threads: ThreadExecutor | None = None
        self._serial: dict[str, SerialExecutor] = {}
        self._loop: EventLoopExecutor | None = None
        self._slots: dict[Node[Any], Slots] = {}
        self._identified: set[Identified] = set()
        """Resources whose identity is stored for explanations."""
        self._warned: set[str] = set()

    # Executors.

    def executor(self, node: Node[Any]) -> Executor:
        """Return the executor of a node's steps; start it at its first use."""
        with self._lock:
            if self._closed:
                raise closed_error()
            if node.executor is not None:
                serial = self._serial.get(node.executor)
                if serial is None:
                    serial = self._serial[node.executor] = SerialExecutor(
                        node.executor, self.table, self.pool, self.ended
                    )
                return serial
            if node.is_async:
                if self._loop is None:
                    with process.importing():
                        from cachedeval.engine.aio import EventLoopExecutor

                    self._loop = EventLoopExecutor(self.table, self.pool, self.ended)
                return self._loop
            if self._threads is None:
                self._threads = ThreadExecutor(self.table, self.pool, self.ended)
            return self._threads

    def admitted(self, flights: Sequence[InFlight]) -> list[InFlight]:
        """Return the queued calls that may start now; others start when a slot is free."""
        return [
            flight
            for flight in flights
            if flight.call.node.concurrency is None or self._slots_of(flight.call.node).take(flight)
        ]

    def left_slot(self, flight: InFlight) -> None:
        """Pass the slot of a call that has ended, or was dropped, to the next one."""
        if flight.call.node.concurrency is not None:
            flight.finished = True
            self._slots_of(flight.call.node).release(flight)

    def _slots_of(self, node: Node[Any]) -> Slots:
        with self._lock:
            slots = self._slots.get(node)
            if slots is None:
                assert node.concurrency is not None  # noqa: S101  for the type checker
                slots = self._slots[node] = Slots(node.concurrency, self._submit_admitted)
            return slots

    def _submit_admitted(self, flight: InFlight) -> None:
        with suppress(CachedevalError):  # the engine was closed
            self.executor(flight.call.node).submit_many([flight])

    def wait_idle(self) -> None:
        """Wait until batches whose calls have all ended have released their resources.

        The caller may free a model's memory next, which works only if no batch holds the model.
        """
        for serial in list(self._serial.values()):
            serial.wait_idle()

    # In-flight calls.

    def ended(self, flight: InFlight) -> None:
        """Pass a call whose step has ended to its owner; called on any thread."""
        self.left_slot(flight)
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
        """Restart a call whose step was cancelled if a run waits for it by now; else drop it."""
        with self.table.lock:
            if flight.waiters:
                flight.state = "waiting"
                flight.cancelled = flight.cancelling = flight.finished = False
                flight.error = None
                flight.owner = owner = flight.waiters[0].scheduler
                owner.post(owner.adopt, flight)
                return
            self.table.remove([flight])
        self._release([flight])

    def leave(self, run: Run, scheduler: Owner) -> list[InFlight]:
        """Remove a run from the waiters; return the calls that the scheduler no longer owns."""
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
        for flight in dropped:
            self.left_slot(flight)
        self._release(dropped)
        # A batch notices by itself that no run waits for the rest; a thread cannot be interrupted.
        if self._loop is not None:
            self._loop.cancel([flight for flight in running if flight.call.node.is_async])
        return moved

    def commit(self, flights: Sequence[InFlight]) -> list[tuple[Waiter, State, InFlight]]:
        """Store the records of calls that have ended, as one group.

        Returns:
            Each waiter of these calls, with the state to report to it and the call.
        """
        records: dict[bytes, Record] = {}
        for flight in flights:
            if flight.state != "running" or flight.record is None or flight.mode == "off":
                continue
            if isinstance(flight.record.payload, Unstored):
                self._warn_unstored(flight, flight.record.payload)
                continue
            if flight.mutated is not None:
                self._warn_mutation(flight)
                continue
            if UNSTORED.encode() in flight.recipe:
                continue  # no later run could find it
            other = flight.record.recipe is not flight.recipe
            records[key_of(flight.record.recipe) if other else flight.key] = flight.record
            if not flight.call.plain:
                self._add_identities(flight.call, records)
        stored = self.store.put_many(records)
        self._release(flights)
        reports: list[tuple[Waiter, State, InFlight]] = []
        with self.table.lock:
            for flight in flights:
                state: State = "computed" if flight.state == "running" else "hit"
                flight.stored = state == "hit" or (
                    flight.key in stored and flight.mode == "use" and flight.mutated is None
                )
                for waiter in flight.waiters:
                    reports.append((waiter, state, flight))
                    if waiter.run.error is None:
                        state = "hit"  # for all but the first whose run still waits
            self.table.remove(flights)
        return reports

    def deliver(self, reports: Sequence[tuple[Waiter, State, InFlight]]) -> None:
        """Post results to the schedulers that wait for them."""
        for waiter, state, flight in reports:
            waiter.scheduler.post(waiter.scheduler.receive, waiter, state, flight)

    def _release(self, flights: Sequence[InFlight]) -> None:
        leased = [flight for flight in flights if flight.leased]
        for flight in leased:
            flight.leased = False
        self.store.release_many([flight.key for flight in leased])

    def _add_identities(self, call: Call[Any], records: dict[bytes, Record]) -> None:
        """Add the identities of a call's resources to the records, for explanations."""
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

    def _warn_unstored(self, flight: InFlight, payload: Unstored) -> None:
        name = flight.call.node.name
        if payload.why and name not in self._warned:
            self._warned.add(name)
            logger().warning(
                "%s returned a value that cannot be stored, so each run computes it again: %s",
                name,
                payload.why,
            )

    def _warn_mutation(self, flight: InFlight) -> None:
        name = flight.call.node.name
        if name not in self._warned:
            self._warned.add(name)
            logger().warning(
                "%s is not stored: %s changed while it ran, so the result may belong to other "
                "inputs; make sure that neither the step nor another thread changes its inputs",
                describe(flight.call),
                flight.mutated,
            )

    # Waiting and closing.

    def may_wait(self) -> bool:
        """Return whether the current thread may wait for steps: not if they run on it."""
        here = threading.current_thread()
        return not (
            (self._loop is not None and here is self._loop.thread)
            or any(here is serial.thread for serial in self._serial.values())
        )

    def pause(self, flight: InFlight | None) -> None:
        """Leave thread and slot of a step to others while it waits for a run.

        Args:
            flight: the call whose step waits; None outside of steps.
        """
        if self._is_lent(flight) and self._threads is not None:
            self._threads.lend()
        if flight is not None and flight.call.node.concurrency is not None:
            with self._lock:
                flight.nested += 1
            if flight.nested == 1:
                self._slots_of(flight.call.node).release(flight)

    def resume(self, flight: InFlight | None, wake: Callable[[], None]) -> bool:
        """Take thread and slot again; return False if the slot is there when `wake` is called."""
        if self._is_lent(flight) and self._threads is not None:
            self._threads.take_back()
        if flight is not None and flight.call.node.concurrency is not None:
            with self._lock:
                flight.nested -= 1
            if flight.nested == 0:
                return self._slots_of(flight.call.node).resume(flight, wake)
        return True

    def _is_lent(self, flight: InFlight | None) -> bool:
        """Return whether a wait on this thread takes a thread of the pool from others."""
        if flight is not None and flight.on_pool:
            return True
        return self._threads is not None and self._threads.owns(threading.current_thread())

    def unstick(self) -> None:
        """Start one more thread for queued steps if no step has ended since the last call."""
        if self._threads is not None:
            self._threads.unstick(1)

    def look_for_circles(self, scheduler: Owner) -> None:
        """End the runs of a scheduler that wait, through a thread, for the step that started them.

        Steps that wait for other calls through threads leave their place in the pool to these.
        """
        with process.importing():
            from cachedeval.engine.circles import Waits

        with self.table.lock:
            flights = self.table.all()
            waits = Waits(flights, self._thread_of, self._task_of)
            threads = set() if self._threads is None else self._threads.idents
            blocked = [
                flight
                for flight in flights
                if (flight.thread in threads or flight.call.node.concurrency is not None)
                and waits.blocked(flight)
            ]
            for flight in flights:
                for waiter in flight.waiters:
                    run = waiter.run
                    if waiter.scheduler is not scheduler or run.error is not None:
                        continue
                    circle = waits.circle(flight, run.thread)
                    if circle is not None:
                        run.error = circle_error(circle)
        for flight in blocked:
            if flight.call.node.concurrency is not None:
                self._slots_of(flight.call.node).release(flight)
        if self._threads is not None and blocked:
            self._threads.unstick(2 * len(blocked))

    def _thread_of(self, flight: InFlight) -> int | None:
        if flight.state not in {"queued", "running"}:
            return None
        if flight.call.node.executor is not None:
            return self._serial[flight.call.node.executor].thread.ident
        return flight.thread

    def _task_of(self, flight: InFlight) -> Any:
        return None if self._loop is None else self._loop.task(flight)

    def stop(self, timeout: float) -> None:
        """Stop all steps; wait up to `timeout` seconds for the async ones."""
        with self._lock:
            self._closed = True
        if self._loop is not None and not self._loop.stop(timeout):
            logger().warning("an async step does not end after its cancellation; it keeps running")
        for serial in self._serial.values():
            serial.close(1.0)
        if self._threads is not None:
            self._threads.close(0.0)
        self._release(self.table.take_all())

    def close(self, timeout: float) -> None:
        """Close the event loop, if it was started."""
        if self._loop is not None:
            self._loop.close(timeout)


def closed_error() -> CachedevalError:
    """Return the error of a run whose engine was closed."""
    return CachedevalError(
        "the engine was closed before the run ended; results computed by then are stored"
    )
