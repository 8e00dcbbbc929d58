"""The scheduler: one loop of events that computes the calls of a graph that the cache lacks.

A scheduler belongs to the thread that drives it. `Engine.run` creates one on its caller's thread,
`Engine.arun` uses one on a background thread of the engine. Executors and other schedulers only
post events to its queue. A turn of the loop handles all calls that are ready by then. It adds them
to the in-flight table, requests their leases as one wave, submits them to executors, and commits
all records that have arrived as one group. It reports an outcome when the record is durable.

The design is that of dask's `get_async` (dask/local.py) and redun's `_process_events`.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cachedeval.engine.errors import CachedevalError, EncodingError, MissingError
from cachedeval.engine.execution import Execution
from cachedeval.engine.identity import conflict_of
from cachedeval.engine.inflight import InFlight, Run, Waiter
from cachedeval.engine.keys import key_of
from cachedeval.engine.leases import LeaseQueue, unreadable
from cachedeval.engine.node import Call, describe, recipe_of
from cachedeval.engine.process import Interrupts
from cachedeval.engine.result import Outcome, State, found_outcome
from cachedeval.engine.steps import run_in_context

__all__ = ["Scheduler"]

_WINDOW = 2000
"""How many calls without upstream calls a scheduler has in flight at most: each takes a lease and
memory. Calls that became ready through a result start at once, up to twice this number."""

_STALL = 1.0
"""Seconds without an event after which nested runs may have occupied all threads, or wait for each
other."""

_GATHER, _MANY = 0.001, 16
"""Seconds for which a scheduler gathers results when so many calls are in flight. Handled one by
one, results of short steps would cost a commit and two switches of threads each."""


class Scheduler:
    """Runs graphs on the thread that drives it.

    Args:
        execution: the state that all schedulers of an engine share.
        inline: whether a single ready synchronous call may run on the driving thread.

    Attributes:
        runs_inline: whether a step runs on the driving thread now.
        notifying: the driving thread while it calls a run's `on_outcome`.

    Thread safety: any thread may call `post`; only the driving thread may call other methods.
    """

    def __init__(self, execution: Execution, *, inline: bool) -> None:
        self._execution = execution
        self._inline = inline
        self._leases = LeaseQueue(execution.store)
        self._runs: set[Run] = set()
        self._first: deque[tuple[Run, Call[Any]]] = deque()
        """Ready calls whose inputs were known from the start."""
        self._ready: deque[tuple[Run, Call[Any]]] = deque()
        """Calls that became ready through a result. They start first, which frees results early."""
        self._mine: set[InFlight] = set()
        """The in-flight calls that this scheduler owns."""
        self._ended: list[InFlight] = []
        """Calls whose step has ended and that are not committed yet."""
        self._serving = False
        self.notifying: int | None = None
        self.runs_inline = False
        self._foreign = 0
        """How many waiters of this scheduler wait for calls of other schedulers."""
        self._stalls = 0
        """How often in sequence nothing has happened for `_STALL` seconds."""
        self._interrupts = Interrupts()
        self._events: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._bell = threading.Lock()
        self._bell.acquire()

    # Called from any thread.

    def post(self, handler: Callable[..., None], *args: Any) -> None:
        """Queue a function call for the driving thread."""
        self._events.append((handler, args))
        if self._bell.locked():
            with suppress(RuntimeError):  # another thread rang it in the meantime
                self._bell.release()

    # Driving.

    def drive(self, run: Run) -> None:
        """Run a graph on this thread until each of its calls has an outcome.

        Raises:
            CachedevalError: a fatal error of a step; or the engine was closed in the meantime.
            KeyboardInterrupt: Ctrl-C; results computed by then are stored.
        """
        with self._interrupts:
            try:
                self.add(run)
                while not run.is_over:
                    self._turn()
            except BaseException as error:
                run.error = error
                raise
            finally:
                self._leave(run)
                self._interrupts.acknowledge()
            if run.error is not None:
                raise run.error
            self._execution.wait_idle()

    def serve(self) -> None:
        """Run the graphs that are posted to this thread, until `stop` is posted."""
        self._serving = True
        while self._serving or self._runs:
            try:
                self._turn()
            except BaseException as error:  # noqa: BLE001  it ends the runs, not the thread
                for run in self._runs:
                    run.error = run.error or error
            for run in [run for run in self._runs if run.is_over]:
                self._leave(run)
                if run.on_end is not None:
                    run.on_end(run)

    def stop(self) -> None:
        """Make `serve` return when no run is left."""
        self._serving = False

    def add(self, run: Run) -> None:
        """Start to run a graph."""
        self._runs.add(run)
        self._first.extend((run, call) for call in run.ready)
        run.ready = []

    def cancel(self, run: Run, error: BaseException) -> None:
        """End a run with an error; results computed by then are stored."""
        if run in self._runs and run.error is None:
            run.error = error

    def cancel_all(self, error: BaseException) -> None:
        """End all runs with an error."""
        for run in self._runs:
            self.cancel(run, error)

    def adopt(self, flight: InFlight) -> None:
        """Become the owner of a call whose owner was cancelled, or whose step was."""
        if flight not in self._mine:
            self._mine.add(flight)
            self._foreign -= sum(waiter.scheduler is self for waiter in flight.waiters)
        if flight.state == "waiting":
            self._leases.add(flight)

    def end(self, flight: InFlight) -> None:
        """Handle the end of a step."""
        self._ended.append(flight)

    # One turn.

    def _turn(self) -> None:
        self._join_ready()
        self._take_leases()
        if not self._ended:
            self._wait()
        self._handle_events()
        self._commit()

    def _handle_events(self) -> None:
        if self._events:
            self._stalls = 0
        while self._events:
            handler, args = self._events.popleft()
            handler(*args)

    def _wait(self) -> None:
        """Wait for an event, or until the next wave of leases is due."""
        if self._events or self._room() or any(run.is_over for run in self._runs):
            return
        seconds = self._leases.wait_seconds()
        if seconds is None or seconds > _STALL:
            # One run alone waits for its steps, and they for no run.
            several = self._execution.schedulers > 1 or len(self._runs) > 1
            seconds = _STALL if several else -1
        try:
            self._interrupts.allow()
            rung = self._bell.acquire(timeout=seconds)
        finally:
            self._interrupts.defer()
        if rung and len(self._mine) >= _MANY:
            time.sleep(_GATHER)
        if not rung and seconds == _STALL:
            self._stalls += 1
            if self._stalls & (self._stalls - 1) == 0:  # ever more rarely: 1, 2, 4, … seconds
                self._execution.look_for_circles(self)
            self._execution.unstick()

    def _room(self) -> int:
        """Return how many ready calls may start now."""
        flying = len(self._mine)
        room = min(len(self._ready), 2 * _WINDOW - flying)
        # Refill when half is done, not call by call: calls that are leased together can be batched.
        if flying <= _WINDOW // 2:
            room += min(len(self._first), _WINDOW - flying)
        return max(0, room)

    def _join_ready(self) -> None:
        """Add ready calls to the in-flight table; this scheduler owns those that are new there."""
        wanted: list[tuple[Waiter, bytes, bytes]] = []
        for _ in range(self._room()):
            run, call = (self._ready or self._first).popleft()
            if run.error is None and (keyed := self._keyed(run, call)) is not None:
                wanted.append((Waiter(self, run, call), *keyed))
        if not wanted:
            return
        refused: list[tuple[Waiter, CachedevalError]] = []
        with self._execution.table.lock:
            for waiter, key, recipe in wanted:
                try:
                    flight, new = self._execution.table.join(waiter, key, recipe)
                except CachedevalError as error:
                    refused.append((waiter, error))
                    continue
                if new:
                    self._mine.add(flight)
                    self._leases.add(flight)
                elif flight.owner is self:
                    self._mine.add(flight)  # it may have had no owner before
                else:
                    self._foreign += 1
        for waiter, why in refused:
            self._fail(waiter.run, waiter.call, why)

    def _keyed(self, run: Run, call: Call[Any]) -> tuple[bytes, bytes] | None:
        """Return key and recipe of a call; settle it and return None if nothing is to compute."""
        for upstream in call.upstream:
            before = run.outcomes[upstream]
            if before.record is None:
                self._fail(run, call, before.error)
                return None
        keyed = run.keys.pop(call, None)
        if keyed is None:
            try:
                recipe = recipe_of(call, run.digest)
            except EncodingError as error:
                self._fail(run, call, error)
                return None
            keyed = key_of(recipe), recipe
        record = run.records.get(keyed[1])
        known = None if record is None else found_outcome(call, record)
        if known is not None and unreadable(known) is None:
            self._settle(run, call, known)
            return None
        if run.mode == "offline":
            missing = f"{describe(call)} is not in the cache, and offline mode computes nothing"
            self._fail(run, call, MissingError(missing))
            return None
        return keyed

    def _take_leases(self) -> None:
        wave = self._leases.wave()
        if wave is None:
            return
        for flight, record in wave.found:
            flight.record = record
            self._ended.append(flight)
        if wave.granted:
            self._submit(wave.granted)

    def _submit(self, flights: list[InFlight]) -> None:
        table = self._execution.table
        with table.lock:
            for flight in flights:
                flight.state = "queued"
        flights = self._execution.admitted(flights)
        if len(flights) == 1 and self._may_run_inline(flights[0]):
            self._run_inline(flights[0])
            return
        by_executor: dict[Any, list[InFlight]] = {}
        for flight in flights:
            by_executor.setdefault(self._execution.executor(flight.call.node), []).append(flight)
        for executor, given in by_executor.items():
            executor.submit_many(given)

    def _may_run_inline(self, flight: InFlight) -> bool:
        node = flight.call.node
        return (
            self._inline
            and not (node.is_async or node.executor)
            and len(self._mine) == 1
            and not (self._ready or self._first or self._foreign or self._ended)
            and not _in_event_loop()
        )

    def _run_inline(self, flight: InFlight) -> None:
        self._execution.table.start(flight)
        self.runs_inline = True
        try:
            self._interrupts.allow()
            run_in_context(flight, self._execution.pool)
        finally:
            self._interrupts.defer()
            self.runs_inline = False
            if flight.record is None and flight.error is None:
                flight.cancelled = True  # interrupted before its step began
            elif flight.error is not None and self._interrupts.acknowledge():
                flight.error, flight.cancelled = None, True
            self._execution.left_slot(flight)
            self._ended.append(flight)
        if flight.cancelled:
            raise KeyboardInterrupt

    # Results.

    def _commit(self) -> None:
        """Store the records of all calls that have ended, and report them to their waiters."""
        if not self._ended:
            return
        ended, self._ended = self._ended, []
        self._mine.difference_update(ended)
        cancelled = [flight for flight in ended if flight.cancelled]
        if cancelled:
            ended = [flight for flight in ended if not flight.cancelled]
            for flight in cancelled:
                self._execution.restart(flight)
        for waiter, state, flight in self._execution.commit(ended):
            if waiter.scheduler is self:
                self._deliver(waiter, state, flight)
            else:
                waiter.scheduler.post(waiter.scheduler.receive, waiter, state, flight)

    def receive(self, waiter: Waiter, state: State, flight: InFlight) -> None:
        """Handle the result of a call that another thread committed."""
        if flight in self._mine:  # it had no owner when its step ended
            self._mine.discard(flight)
        else:
            self._foreign -= 1
        self._deliver(waiter, state, flight)

    def _deliver(self, waiter: Waiter, state: State, flight: InFlight) -> None:
        run, call = waiter.run, waiter.call
        if run.error is not None or run not in self._runs:
            return
        node, other = call.node, flight.call.node
        rivals = None if node is other else conflict_of(node, other.function)
        if rivals is not None:
            self._fail(run, call, rivals)
        elif flight.record is None:
            self._fail(run, call, flight.error)
        else:
            outcome = Outcome(call, state, flight.record)
            if node is not other and unreadable(outcome) is not None:
                self._compute_apart(waiter, flight)
                return
            if not flight.stored:
                run.records[flight.recipe] = flight.record
            self._settle(run, call, outcome)

    def _compute_apart(self, waiter: Waiter, flight: InFlight) -> None:
        """Compute a call whose node has the name and version of another, but another output type."""
        own = InFlight(waiter.call, flight.key, flight.recipe, waiter.run)
        own.mode = "off"  # the record under the key belongs to the other node
        own.owner = self
        own.waiters.append(waiter)
        self._mine.add(own)
        self._leases.add(own)

    def _settle(self, run: Run, call: Call[Any], outcome: Outcome) -> None:
        """Set the outcome of a call, and queue dependent calls that have all their inputs now."""
        run.outcomes[call] = outcome
        run.pending -= 1
        for upstream in call.upstream:
            uses = run.uses.get(upstream, 0)
            if uses == 1:
                del run.uses[upstream], run.outcomes[upstream]
            elif uses:
                run.uses[upstream] = uses - 1
        for dependent in run.dependents.pop(call, ()):
            run.waiting[dependent] -= 1
            if not run.waiting[dependent]:
                del run.waiting[dependent]
                for each in run.gather(dependent):
                    self._ready.append((run, each))
        self.notifying = threading.get_ident()
        try:
            run.on_outcome(outcome)
        except BaseException as error:  # noqa: BLE001  an error of the callback ends the run
            run.error = run.error or error
        finally:
            self.notifying = None

    def _fail(self, run: Run, call: Call[Any], error: BaseException | None) -> None:
        self._settle(run, call, Outcome(call, "failed", error=error))
        if isinstance(error, CachedevalError) and error.fatal:
            run.error = run.error or error

    # The end of a run.

    def _leave(self, run: Run) -> None:
        """Remove a run: store its results that have arrived, and stop waiting for the others."""
        self._runs.discard(run)
        if not run.pending:
            return
        self._first = deque(each for each in self._first if each[0] is not run)
        self._ready = deque(each for each in self._ready if each[0] is not run)
        left = self._execution.leave(run, self)
        self._leases.discard(left)
        self._mine.difference_update(left)
        # Calls that had ended by then were posted to this scheduler.
        self._handle_events()
        self._commit()


def _in_event_loop() -> bool:
    """Return whether an event loop runs on this thread; then a step could not start its own."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None  # noqa: SLF001
