"""The scheduler: runs what the cache does not hold of a graph, in one loop that handles events.

A scheduler belongs to the thread that drives it: `Engine.run` makes one on its caller's thread,
`Engine.arun` uses one that its engine keeps on a thread in the background. Executors and other
schedulers only post events to its queue. A turn of the loop takes everything that became ready by
then: it joins the calls to those in flight, asks for their leases as one wave, hands them to
executors, and commits all records that came back as one group. An outcome is reported when its
record is durable.

The idea is that of dask's `get_async` (dask/local.py) and redun's `_process_events`.
"""

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from cachedeval.engine.call import Call, describe, recipe_of
from cachedeval.engine.errors import CachedevalError, EncodingError, MissingError
from cachedeval.engine.inflight import InFlight, Waiter, current
from cachedeval.engine.interrupts import Interrupts
from cachedeval.engine.leases import LeaseQueue, unreadable
from cachedeval.engine.outcome import CacheMode, OnOutcome, Outcome, State
from cachedeval.engine.recipe import key_of
from cachedeval.engine.resolve import Resolution
from cachedeval.engine.steps import run_here

if TYPE_CHECKING:
    from cachedeval.engine.record import Record
    from cachedeval.engine.runtime import Runtime

__all__ = ["Run", "Scheduler"]

_WINDOW = 2000
"""Calls that a scheduler has in flight before it begins with further ones: leases and results in
memory cost the more the more there are. Calls that wait for no others count; those that became
ready through a result go on at once, up to twice as many."""

_STALL = 1.0
"""Seconds without an event after which steps may be waiting for runs that find no thread."""


class Run:
    """A graph while it runs.

    Args:
        known: what the cache holds of it.
        mode: how the cache is used.
        on_outcome: gets each outcome that is not known yet.
        roots: the calls whose outcomes are wanted; others go once nothing waits for them.

    Attributes:
        outcomes: the outcomes so far, by call.
        pending: how many calls have none.
        parent: the call whose step started this run, if one did.
        error: what ended it early.
    """

    __slots__ = (
        *("context", "dependents", "error", "keys", "mode", "on_end", "on_outcome", "outcomes"),
        *("parent", "pending", "ready", "records", "uses", "waiting"),
    )

    def __init__(
        self,
        known: Resolution,
        mode: CacheMode,
        on_outcome: OnOutcome,
        roots: Iterable[Call[Any]],
    ) -> None:
        self.outcomes = known.outcomes
        self.keys = known.keys
        self.mode = mode
        self.on_outcome = on_outcome
        self.pending = len(known.open)
        self.context: Context = copy_context()
        self.parent = current.get()
        self.error: BaseException | None = None
        self.on_end: Callable[[Run], None] | None = None
        """Called once when the run has ended, however it ended."""
        self.records: dict[bytes, Record] = {}
        """Results that are not stored, by recipe: none is computed twice, even without a cache."""
        self.dependents: dict[Call[Any], list[Call[Any]]] = {}
        self.waiting: dict[Call[Any], int] = {}
        """How many upstream calls of a call have no outcome yet."""
        self.uses: dict[Call[Any], int] = {}
        """How many calls without an outcome have a call among their inputs."""
        self.ready: list[Call[Any]] = []
        wanted = set(roots)
        for call in known.open:
            missing = 0
            for upstream in call.upstream:
                if upstream not in wanted:
                    self.uses[upstream] = self.uses.get(upstream, 0) + 1
                if upstream not in self.outcomes:
                    missing += 1
                    self.dependents.setdefault(upstream, []).append(call)
            if missing:
                self.waiting[call] = missing
            else:
                self.ready.append(call)

    def digest(self, call: Call[Any]) -> str:
        """Return the digest of a call's output."""
        return self.outcomes[call].digest

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left to do."""
        return not self.pending or self.error is not None


class Scheduler:
    """Runs graphs, driven by one thread.

    Args:
        runtime: what all schedulers of an engine share.
        inline: whether a single ready synchronous call may run on the driving thread.

    Thread safety: `post` may be called from any thread, everything else from the driving one.
    """

    def __init__(self, runtime: "Runtime", *, inline: bool) -> None:
        self._runtime = runtime
        self._inline = inline
        self._leases = LeaseQueue(runtime.store)
        self._runs: set[Run] = set()
        self._first: deque[tuple[Run, Call[Any]]] = deque()
        """Calls that waited for no others from the start."""
        self._ready: deque[tuple[Run, Call[Any]]] = deque()
        """Calls that became ready through a result: they go first, so that results go soon."""
        self._mine: set[InFlight] = set()
        """Calls in flight that this scheduler owns."""
        self._ended: list[InFlight] = []
        """Calls whose step has ended and that are not committed yet."""
        self._serving = False
        self.runs_inline = False
        """Whether a step runs on the driving thread now."""
        self._foreign = 0
        """How often runs wait for calls that other schedulers own."""
        self._interrupts = Interrupts()
        self._events: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._bell = threading.Lock()
        self._bell.acquire()

    # Called from any thread.

    def post(self, handler: Callable[..., None], *args: Any) -> None:
        """Let the driving thread call a function at its next turn."""
        self._events.append((handler, args))
        if self._bell.locked():
            with suppress(RuntimeError):  # another thread rang it in the meantime
                self._bell.release()

    # Driving.

    def drive(self, run: Run) -> None:
        """Run a graph on this thread until each of its calls has an outcome.

        Raises:
            CachedevalError: a fatal error of a step; or the engine was closed in the meantime.
            KeyboardInterrupt: what was computed by then is stored.
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
            self._runtime.wait_idle()

    def serve(self) -> None:
        """Run the graphs that are posted to this thread, until `stop` is posted."""
        self._serving = True
        while self._serving or self._runs:
            try:
                self._turn()
            except BaseException as error:  # noqa: BLE001  it ends the runs, and not the thread
                for run in self._runs:
                    run.error = run.error or error
            for run in [run for run in self._runs if run.is_over]:
                self._leave(run)
                if run.on_end is not None:
                    run.on_end(run)

    def stop(self) -> None:
        """End `serve` once no run is left."""
        self._serving = False

    def add(self, run: Run) -> None:
        """Begin to run a graph."""
        self._runs.add(run)
        self._first.extend((run, call) for call in run.ready)
        run.ready = []

    def cancel(self, run: Run, error: BaseException) -> None:
        """End a run early; what was computed by then is stored."""
        if run in self._runs and run.error is None:
            run.error = error

    def cancel_all(self, error: BaseException) -> None:
        """End all runs early."""
        for run in self._runs:
            self.cancel(run, error)

    def adopt(self, flight: InFlight) -> None:
        """Become the owner of a call whose owner has left it, or whose step was cancelled."""
        if flight not in self._mine:
            self._mine.add(flight)
            self._foreign -= sum(waiter.scheduler is self for waiter in flight.waiters)
        if flight.state == "waiting":
            self._leases.add(flight)

    def end(self, flight: InFlight) -> None:
        """Take the result of a call whose step has ended."""
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
        while self._events:
            handler, args = self._events.popleft()
            handler(*args)

    def _wait(self) -> None:
        """Wait for an event, or until it is time to ask for leases again."""
        if self._events or self._room() or any(run.is_over for run in self._runs):
            return
        seconds = self._leases.wait_seconds()
        if seconds is None or seconds > _STALL:
            seconds = _STALL if self._runtime.may_stall else -1
        try:
            self._interrupts.allow()
            rung = self._bell.acquire(timeout=seconds)
        finally:
            self._interrupts.defer()
        if not rung and seconds == _STALL:
            self._runtime.unstick()

    def _room(self) -> int:
        """Return how many of the calls that are ready may be joined now."""
        flying = len(self._mine)
        room = min(len(self._ready), 2 * _WINDOW - flying)
        # Not one by one as they end: what is leased together is computed together.
        if flying <= _WINDOW // 2:
            room += min(len(self._first), _WINDOW - flying)
        return max(0, room)

    def _join_ready(self) -> None:
        """Join ready calls to those in flight; those that none computes are this scheduler's."""
        wanted: list[tuple[Waiter, bytes, bytes]] = []
        for _ in range(self._room()):
            run, call = (self._ready or self._first).popleft()
            if run.error is None and (keyed := self._keyed(run, call)) is not None:
                wanted.append((Waiter(self, run, call), *keyed))
        if not wanted:
            return
        refused: list[tuple[Waiter, CachedevalError]] = []
        with self._runtime.table.lock:
            for waiter, key, recipe in wanted:
                try:
                    flight, new = self._runtime.table.join(waiter, key, recipe)
                except CachedevalError as error:
                    refused.append((waiter, error))
                    continue
                if new:
                    self._mine.add(flight)
                    self._leases.add(flight)
                elif flight.owner is self:
                    self._mine.add(flight)  # it may have been nobody's
                else:
                    self._foreign += 1
        for waiter, why in refused:
            self._fail(waiter.run, waiter.call, why)

    def _keyed(self, run: Run, call: Call[Any]) -> tuple[bytes, bytes] | None:
        """Return key and recipe of a call, or settle it where it need not be computed."""
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
        if record is not None and unreadable(known := Outcome(call, "hit", record)) is None:
            self._settle(run, call, known)
            return None
        if run.mode == "offline":
            missing = f"{describe(call)} is not in the cache, and offline nothing is computed"
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
        table = self._runtime.table
        with table.lock:
            for flight in flights:
                flight.state = "queued"
        if len(flights) == 1 and self._may_run_inline(flights[0]):
            self._run_inline(flights[0])
            return
        by_executor: dict[Any, list[InFlight]] = {}
        for flight in flights:
            by_executor.setdefault(self._runtime.executor(flight.call.node), []).append(flight)
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
        self._runtime.table.start(flight)
        self.runs_inline = True
        try:
            self._interrupts.allow()
            flight.context.run(_run, flight, self._runtime)
        finally:
            self._interrupts.defer()
            self.runs_inline = False
            if flight.record is None and flight.error is None:
                flight.cancelled = True  # interrupted before its step began
            elif flight.error is not None and self._interrupts.acknowledge():
                flight.error, flight.cancelled = None, True
            self._ended.append(flight)
        if flight.cancelled:
            raise KeyboardInterrupt

    # Results.

    def _commit(self) -> None:
        """Store the records of all calls that ended, and tell everybody who waits for them."""
        if not self._ended:
            return
        ended, self._ended = self._ended, []
        self._mine.difference_update(ended)
        cancelled = [flight for flight in ended if flight.cancelled]
        if cancelled:
            ended = [flight for flight in ended if not flight.cancelled]
            for flight in cancelled:
                self._runtime.restart(flight)
        for waiter, state, flight in self._runtime.commit(ended):
            if waiter.scheduler is self:
                self._deliver(waiter, state, flight)
            else:
                waiter.scheduler.post(waiter.scheduler.receive, waiter, state, flight)

    def receive(self, waiter: Waiter, state: State, flight: InFlight) -> None:
        """Take the result of a call that was committed elsewhere."""
        if flight in self._mine:  # it was nobody's when its step ended
            self._mine.discard(flight)
        else:
            self._foreign -= 1
        self._deliver(waiter, state, flight)

    def _deliver(self, waiter: Waiter, state: State, flight: InFlight) -> None:
        run, call = waiter.run, waiter.call
        if run.error is not None or run not in self._runs:
            return
        if flight.record is None:
            self._fail(run, call, flight.error)
        else:
            outcome = Outcome(call, state, flight.record)
            if call.node is not flight.call.node and unreadable(outcome) is not None:
                self._compute_apart(waiter, flight)
                return
            if not flight.stored:
                run.records[flight.recipe] = flight.record
            self._settle(run, call, outcome)

    def _compute_apart(self, waiter: Waiter, flight: InFlight) -> None:
        """Compute a call whose node has another's name and version, but returns another type."""
        own = InFlight(waiter.call, flight.key, flight.recipe, waiter.run)
        own.mode = "off"  # the record under the key is the other node's
        own.owner = self
        own.waiters.append(waiter)
        self._mine.add(own)
        self._leases.add(own)

    def _settle(self, run: Run, call: Call[Any], outcome: Outcome) -> None:
        """Set the outcome of a call; calls that waited for it alone become ready."""
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
                self._ready.append((run, dependent))
        try:
            run.on_outcome(outcome)
        except BaseException as error:  # noqa: BLE001  the callback's; it ends the run
            run.error = run.error or error

    def _fail(self, run: Run, call: Call[Any], error: BaseException | None) -> None:
        self._settle(run, call, Outcome(call, "failed", error=error))
        if isinstance(error, CachedevalError) and error.fatal:
            run.error = run.error or error

    # The end of a run.

    def _leave(self, run: Run) -> None:
        """Take a run out: store what has come back of it, and let go of the rest."""
        self._runs.discard(run)
        if not run.pending:
            return
        self._first = deque(each for each in self._first if each[0] is not run)
        self._ready = deque(each for each in self._ready if each[0] is not run)
        left = self._runtime.leave(run, self)
        self._leases.discard(left)
        self._mine.difference_update(left)
        # What had ended by then was posted to this scheduler.
        self._handle_events()
        self._commit()


def _run(flight: InFlight, runtime: "Runtime") -> None:
    current.set(flight)
    run_here(flight, runtime.pool)


def _in_event_loop() -> bool:
    """Say whether an event loop runs on this thread: a step here could start none of its own."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None  # noqa: SLF001
