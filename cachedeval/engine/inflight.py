"""Runs, and the calls in flight that they wait for: one computation that all of them share.

The table is shared by all runs of an engine. A call in flight belongs to one scheduler, its owner,
which gets its result. When the owner's run is cancelled, a scheduler that still waits takes over;
when none waits, a step that has not started is dropped and one that runs is left to end by itself.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from cachedeval.engine.errors import CachedevalError
from cachedeval.engine.node import Call, describe
from cachedeval.engine.resolve import Resolution
from cachedeval.engine.result import CacheMode, OnOutcome, Outcome, State

if TYPE_CHECKING:
    from cachedeval.engine.record import Record

__all__ = ["InFlight", "InFlightTable", "Owner", "Run", "Waiter", "current"]

current: ContextVar["InFlight | None"] = ContextVar("current call", default=None)
"""The call whose step runs in this context, so that a nested run knows what it runs inside of."""


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


class Owner(Protocol):
    """A scheduler, as calls in flight know it: it takes events from any thread."""

    def post(self, handler: Callable[..., None], *args: Any) -> None:
        """Call a function on the scheduler's thread."""
        ...

    def adopt(self, flight: "InFlight") -> None:
        """Become the owner of a call; to be posted."""
        ...

    def end(self, flight: "InFlight") -> None:
        """Take the result of an own call; to be posted."""
        ...

    def receive(self, waiter: "Waiter", state: State, flight: "InFlight") -> None:
        """Take the result of a call that was committed elsewhere; to be posted."""
        ...


class Waiter(NamedTuple):
    """A run that waits for a call in flight."""

    scheduler: Owner
    run: Run
    call: Call[Any]


class InFlight:
    """A call that is being computed, or waits to be.

    Attributes:
        call: the call as the first run described it.
        outcomes: the outcomes of the calls among its inputs.
        owner: the scheduler that gets the result; None where nobody waits for it any more.
        waiters: the runs that want it, the first of which is told that it was computed.
        state: `waiting` for a lease, `queued` at an executor, `running`, `ended`.
        leased: whether its lease is held.
        record: its result.
        stored: whether the cache holds the result.
        error: why it failed.
        mutated: the input that the step changed while it ran, so that the result is not stored.
        cancelled: whether it ended because it was told to, without a result.
        cancelling: whether it was told to end.
        waits_for: the calls in flight that runs inside its step wait for.
    """

    __slots__ = (
        *("call", "cancelled", "cancelling", "context", "error", "key", "leased", "mode"),
        *(
            "mutated",
            "outcomes",
            "owner",
            "recipe",
            "record",
            "state",
            "stored",
            "waiters",
            "waits_for",
        ),
    )

    def __init__(self, call: Call[Any], key: bytes, recipe: bytes, run: Run) -> None:
        self.call = call
        self.key = key
        self.recipe = recipe
        self.mode: CacheMode = run.mode
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
        self.waits_for: list[InFlight] = []

    def digest(self, call: Call[Any]) -> str:
        """Return the digest of an upstream call's output."""
        return self.outcomes[call].digest

    @property
    def wanted(self) -> bool:
        """Whether somebody still waits for the result."""
        return self.owner is not None and self.state != "ended"


class InFlightTable:
    """The calls in flight of one engine.

    Thread safety: `lock` guards the table and the state, owner and waiters of its calls.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._calls: dict[tuple[CacheMode, bytes], InFlight] = {}

    def join(self, waiter: Waiter, key: bytes, recipe: bytes) -> tuple[InFlight, bool]:
        """Wait for the call in flight of a recipe; the lock must be held.

        Returns:
            The call, and whether it is new and the waiter's scheduler its owner.

        Raises:
            CachedevalError: the wait could never end.
        """
        run = waiter.run
        at = (run.mode, recipe)
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

    def waited_for_by(self, run: Run) -> list[InFlight]:
        """Return the calls that a run waits for; the lock must be held."""
        return [
            flight
            for flight in self._calls.values()
            if any(waiter.run is run for waiter in flight.waiters)
        ]

    def start(self, flight: InFlight) -> bool:
        """Mark a queued call as running; say False where it was dropped in the meantime."""
        with self.lock:
            if flight.state != "queued":
                return False
            flight.state = "running"
            return True

    def remove(self, flights: Iterable[InFlight]) -> None:
        """Take calls out of the table; the lock must be held."""
        for flight in flights:
            flight.state = "ended"
            at = (flight.mode, flight.recipe)
            if self._calls.get(at) is flight:
                del self._calls[at]
            for waiter in flight.waiters:
                parent = waiter.run.parent
                if parent is not None and flight in parent.waits_for:
                    parent.waits_for.remove(flight)

    def take_all(self) -> list[InFlight]:
        """Empty the table, when its engine is closed; return what was in it."""
        with self.lock:
            left = list(self._calls.values())
            self.remove(left)
            return left


def _refuse_circle(inside: InFlight, wanted: InFlight) -> None:
    """Raise where `wanted` waits, through whatever steps, for the step that asks for it."""
    paths = [[wanted]]
    seen = {id(wanted)}
    while paths:
        path = paths.pop()
        if path[-1] is inside:
            steps = " -> ".join(describe(flight.call) for flight in [inside, *path])
            raise CachedevalError(
                f"a step waits for its own result: {steps}; give calls as inputs to calls, and "
                "let no step ask for itself"
            )
        for following in path[-1].waits_for:
            if id(following) not in seen:
                seen.add(id(following))
                paths.append([*path, following])
