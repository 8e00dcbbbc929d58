"""Calls in flight: one computation that every run that wants it shares.

The table is shared by all runs of an engine. A call in flight belongs to one scheduler, its owner,
which gets its result. When the owner's run is cancelled, a scheduler that still waits takes over;
when none waits, a step that has not started is dropped and one that runs is left to end by itself.
"""

import threading
from collections.abc import Iterable, Mapping
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cachedeval.engine.call import Call, describe
from cachedeval.engine.errors import CachedevalError

if TYPE_CHECKING:
    from cachedeval.engine.outcome import CacheMode, Outcome
    from cachedeval.engine.record import Record
    from cachedeval.engine.scheduler import Run, Scheduler

__all__ = ["InFlight", "InFlightTable", "Waiter", "current"]

current: ContextVar["InFlight | None"] = ContextVar("current call", default=None)
"""The call whose step runs in this context, so that a nested run knows what it runs inside of."""


class Waiter(NamedTuple):
    """A run that waits for a call in flight."""

    scheduler: "Scheduler"
    run: "Run"
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

    def __init__(self, call: Call[Any], key: bytes, recipe: bytes, run: "Run") -> None:
        self.call = call
        self.key = key
        self.recipe = recipe
        self.mode: CacheMode = run.mode
        self.outcomes: Mapping[Call[Any], Outcome] = run.outcomes
        self.context: Context = run.context.copy()
        self.owner: Scheduler | None = None
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

    def waited_for_by(self, run: "Run") -> list[InFlight]:
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
