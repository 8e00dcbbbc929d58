"""Runs and in-flight calls (single-flight): all runs that need a call share one computation of it.

All runs of an engine share one table. An in-flight call has one owner: the scheduler that gets its
result. When the owner's run is cancelled, another waiting scheduler becomes the owner. When no
scheduler waits, a step that has not started is dropped, and one that runs continues to its end.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from cachedeval.engine.errors import CachedevalError
from cachedeval.engine.node import Call, Node, describe
from cachedeval.engine.resolve import Resolution
from cachedeval.engine.result import CacheMode, OnOutcome, Outcome, State

if TYPE_CHECKING:
    from cachedeval.engine.record import Record

__all__ = ["InFlight", "InFlightTable", "Owner", "Run", "Waiter", "circle_error", "current"]

current: ContextVar["InFlight | None"] = ContextVar("current call", default=None)
"""The call whose step runs in this context: the parent of a nested run."""


class Runs(Protocol):
    """What runs the calls that a step returns: the engine."""

    def run(self, calls: Any, *, mode: CacheMode | None = None) -> Any:
        """Return the values of calls."""

    async def arun(self, calls: Any, *, mode: CacheMode | None = None) -> Any:
        """Return the values of calls."""


class Run:
    """The state of a graph that runs.

    Args:
        known: the outcomes that the cache provides.
        mode: how the run uses the cache.
        on_outcome: called with each new outcome.
        roots: the calls whose outcomes the caller needs. Other outcomes are dropped as soon as no
            call waits for them.
        engine: runs the calls that steps return.

    Attributes:
        outcomes: the outcomes so far, by call.
        pending: how many calls have no outcome yet.
        parent: the call whose step started this run, if any.
        thread: the thread that waits for this run.
        error: the error that ended the run early.
    """

    __slots__ = (
        *(
            "context",
            "dependents",
            "engine",
            "error",
            "keys",
            "mode",
            "on_end",
            "on_outcome",
            "outcomes",
        ),
        *("parent", "pending", "ready", "records", "thread", "uses", "waiting"),
        *("_awaited", "_first_steps", "_gathered"),
    )

    def __init__(
        self,
        known: Resolution,
        mode: CacheMode,
        on_outcome: OnOutcome,
        roots: Iterable[Call[Any]],
        engine: "Runs",
    ) -> None:
        self.engine = engine
        self.outcomes = known.outcomes
        self.keys = known.keys
        self.mode = mode
        self.on_outcome = on_outcome
        self.pending = len(known.open)
        self.context: Context = copy_context()
        self.parent = current.get()
        self.thread = threading.get_ident()
        self.error: BaseException | None = None
        self.on_end: Callable[[Run], None] | None = None
        """Called once when the run has ended, with or without an error."""
        self.records: dict[bytes, Record] = {}
        """Results that are not stored, by recipe: a run computes nothing twice without a cache."""
        self.dependents: dict[Call[Any], list[Call[Any]]] = {}
        self.waiting: dict[Call[Any], int] = {}
        """How many upstream calls of a call have no outcome yet."""
        self.uses: dict[Call[Any], int] = {}
        """How many calls without an outcome depend on a call."""
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
        self._first_steps = {call for call in self.ready if call.node.executor is not None}
        self._gathered: dict[Node[Any], list[Call[Any]]] = {}
        self._awaited = Counter(call.node for call in self.waiting if self._shares_thread(call))
        """How many calls of a batched node wait for a step that the thread of the node runs first."""
        if self._awaited:
            self.ready = [each for call in self.ready for each in self.gather(call, waited=False)]

    def gather(self, call: Call[Any], *, waited: bool = True) -> list[Call[Any]]:
        """Return the calls that can start now that a call is ready: none, it alone, or a batch.

        A batch that starts with the first of its calls would decode them alone. Where the others
        are waiting for steps on the thread of the node itself, nothing is lost by waiting for them.
        """
        node = call.node
        if node not in self._awaited:
            return [call]
        gathered = self._gathered.setdefault(node, [])
        gathered.append(call)
        if waited and self._shares_thread(call):
            self._awaited[node] -= 1
        if self._awaited[node]:
            return []
        del self._gathered[node], self._awaited[node]
        return gathered

    def _shares_thread(self, call: Call[Any]) -> bool:
        """Return whether a batched call waits for a step on its own thread that waits for nothing."""
        node = call.node
        return node.batch and any(
            upstream.node.executor == node.executor and upstream in self._first_steps
            for upstream in call.upstream
        )

    def digest(self, call: Call[Any]) -> str:
        """Return the digest of a call's output."""
        return self.outcomes[call].digest

    @property
    def is_over(self) -> bool:
        """Whether all calls have an outcome, or an error ended the run."""
        return not self.pending or self.error is not None


class Owner(Protocol):
    """The part of a scheduler that in-flight calls use.

    Only `post` may be called from any thread; post the other methods.

    Attributes:
        notifying: the thread on which it calls a run's `on_outcome` now, if it does. It commits no
            result meanwhile.
    """

    notifying: int | None

    def post(self, handler: Callable[..., None], *args: Any) -> None:
        """Queue a function call for the scheduler's thread."""
        ...

    def adopt(self, flight: "InFlight") -> None:
        """Become the owner of a call."""
        ...

    def end(self, flight: "InFlight") -> None:
        """Handle the result of a call that this scheduler owns."""
        ...

    def receive(self, waiter: "Waiter", state: State, flight: "InFlight") -> None:
        """Handle the result of a call that another scheduler committed."""
        ...


class Waiter(NamedTuple):
    """A run that waits for an in-flight call."""

    scheduler: Owner
    run: Run
    call: Call[Any]


class InFlight:
    """A call that is computed now, or waits for that.

    Attributes:
        bound: the value of the input that bounds its output, if its node has one.
        call: the call object of the first run that needs it.
        outcomes: the outcomes of its upstream calls.
        owner: the scheduler that gets the result; None if no run waits for it any more.
        waiters: the runs that wait for it. The first one gets the state `computed`.
        state: `waiting` for a lease, `queued` at an executor, `running`, `ended`.
        leased: whether this process holds its lease.
        record: the result.
        stored: whether the cache holds the result.
        error: why the step failed.
        mutated: the input that changed while the step ran; then the result is not stored.
        cancelled: whether the step ended without a result because it was cancelled.
        cancelling: whether its cancellation was requested.
        finished: whether its step has ended.
        nested: how many runs inside its step wait now.
        on_pool: whether its step takes a thread of the pool.
        thread: the thread that runs its synchronous step.
        waits_for: the in-flight calls that runs inside its step wait for.
    """

    __slots__ = (
        *(
            "bound",
            "call",
            "cancelled",
            "cancelling",
            "context",
            "engine",
            "error",
            "key",
            "leased",
            "mode",
        ),
        *("mutated", "outcomes", "owner", "recipe", "record", "state", "stored", "waiters"),
        *("finished", "nested", "on_pool", "thread", "waits_for"),
    )

    def __init__(self, call: Call[Any], key: bytes, recipe: bytes, run: Run) -> None:
        self.call = call
        self.key = key
        self.recipe = recipe
        self.bound = _bound_of(call)
        self.mode: CacheMode = run.mode
        self.engine = run.engine
        self.outcomes: Mapping[Call[Any], Outcome] = run.outcomes
        self.context: Context = run.context.copy()
        self.owner: Owner | None = None
        self.waiters: list[Waiter] = []
        self.state: Literal["waiting", "queued", "running", "ended"] = "waiting"
        self.leased = False
        self.record: Record | None = None
        self.stored = False
        self.error: Exception | None = None
        self.mutated: str | None = None
        self.cancelled = False
        self.cancelling = False
        self.finished = False
        self.nested = 0
        self.on_pool = False
        self.thread: int | None = None
        self.waits_for: list[InFlight] = []

    def digest(self, call: Call[Any]) -> str:
        """Return the digest of an upstream call's output."""
        return self.outcomes[call].digest

    @property
    def wanted(self) -> bool:
        """Whether a run still waits for the result."""
        return self.owner is not None and self.state != "ended"


class InFlightTable:
    """The in-flight calls of one engine.

    Thread safety: hold `lock` to access the table, and the state, owner and waiters of its calls.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._calls: dict[tuple[CacheMode, bytes, Any], InFlight] = {}

    def join(self, waiter: Waiter, key: bytes, recipe: bytes) -> tuple[InFlight, bool]:
        """Add a waiter to the in-flight call of a recipe, or start one; the lock must be held.

        Returns:
            The call, and whether it is new. The waiter's scheduler owns a new call.

        Raises:
            CachedevalError: the wait would never end.
        """
        run = waiter.run
        at = (run.mode, recipe, _bound_of(waiter.call))
        found = self._calls.get(at)
        new = found is None
        if found is None:
            found = self._calls[at] = InFlight(waiter.call, key, recipe, run)
        elif run.parent is not None:
            _refuse_circle(run.parent, found)
        if found.owner is None:
            found.owner = waiter.scheduler
        found.waiters.append(waiter)
        if run.parent is not None:
            run.parent.waits_for.append(found)
        return found, new

    def all(self) -> list[InFlight]:
        """Return the calls; the lock must be held."""
        return list(self._calls.values())

    def waited_for_by(self, run: Run) -> list[InFlight]:
        """Return the calls that a run waits for; the lock must be held."""
        return [
            flight
            for flight in self._calls.values()
            if any(waiter.run is run for waiter in flight.waiters)
        ]

    def start(self, flight: InFlight) -> bool:
        """Mark a queued call as running; return False if it was dropped in the meantime."""
        with self.lock:
            if flight.state != "queued":
                return False
            flight.state = "running"
            return True

    def remove(self, flights: Iterable[InFlight]) -> None:
        """Remove calls from the table; the lock must be held."""
        for flight in flights:
            flight.state = "ended"
            at = (flight.mode, flight.recipe, flight.bound)
            if self._calls.get(at) is flight:
                del self._calls[at]
            for waiter in flight.waiters:
                parent = waiter.run.parent
                if parent is not None and flight in parent.waits_for:
                    parent.waits_for.remove(flight)

    def take_all(self) -> list[InFlight]:
        """Remove and return all calls, when the engine is closed."""
        with self.lock:
            left = list(self._calls.values())
            self.remove(left)
            return left


def circle_error(circle: str) -> CachedevalError:
    """Return the error of a wait that would never end."""
    return CachedevalError(
        f"a step waits for its own result: {circle}; pass calls as inputs to calls, and do not run "
        "a call inside its own step, or in an on_outcome of a run that computes it"
    )


def _bound_of(call: Call[Any]) -> Any:
    """Return the value of the input that bounds a call's output: calls with others are not joined."""
    bound = call.node.bound
    return None if bound is None else call.inputs[bound.name]


def _refuse_circle(inside: InFlight, wanted: InFlight) -> None:
    """Raise if `wanted` waits, directly or through other steps, for the step that asks for it.

    Raises:
        CachedevalError: it does; the message names the steps of the circle.
    """
    paths = [[wanted]]
    seen = {id(wanted)}
    while paths:
        path = paths.pop()
        if path[-1] is inside:
            steps = " -> ".join(describe(flight.call) for flight in [inside, *path])
            raise circle_error(steps)
        for following in path[-1].waits_for:
            if id(following) not in seen:
                seen.add(id(following))
                paths.append([*path, following])
