"""Leases in waves: a scheduler requests the leases of many calls at once.

It requests a lease first and reads the cache after that, because another process may have stored
the result in between. Calls that another process computes are polled together.
"""

import time
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from cachedeval.engine.inflight import InFlight
from cachedeval.engine.keys import key_of
from cachedeval.engine.log import logger
from cachedeval.engine.record import Record
from cachedeval.engine.result import Outcome, Unreadable, disowned, found_outcome
from cachedeval.engine.store import Store

__all__ = ["LeaseQueue", "Wave", "unreadable"]

_FIRST_POLL = 0.02
_LAST_POLL = 0.2
"""Seconds between two polls; the pause grows from the first value to the last."""

_PATIENCE = 60.0
"""Seconds without a result of another process after which a warning reports the wait."""

_AT_ONCE = 2000
"""How many calls are polled together."""


class Wave(NamedTuple):
    """The result of one round of lease requests.

    Attributes:
        granted: the calls to compute here; this process holds their leases.
        found: the calls whose result is in the cache by now, with it; their leases are released.
    """

    granted: list[InFlight]
    found: list[tuple[InFlight, Record]]


class LeaseQueue:
    """The calls of one scheduler that wait for their leases.

    Args:
        store: where leases are requested and records read.

    Thread safety: only the scheduler's thread may use it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._fresh: list[InFlight] = []
        self._granted: list[InFlight] = []
        """Calls that need no lease, or still hold it after a cancelled attempt."""
        self._busy: dict[InFlight, None] = {}
        """Calls that another process computes, in the order in which they are polled."""
        self._pause = _FIRST_POLL
        self._next_poll = 0.0
        self._progress_at = 0.0
        self._warned = False

    def add(self, flight: InFlight) -> None:
        """Add a call to the next wave."""
        needs_none = flight.leased or flight.mode != "use"
        (self._granted if needs_none else self._fresh).append(flight)

    def discard(self, flights: Iterable[InFlight]) -> None:
        """Remove calls from the queue."""
        gone = set(flights)
        self._fresh = [flight for flight in self._fresh if flight not in gone]
        self._granted = [flight for flight in self._granted if flight not in gone]
        for flight in gone:
            self._busy.pop(flight, None)

    def wait_seconds(self) -> float | None:
        """Return the seconds until the next wave is due; None if no call waits."""
        if self._fresh or self._granted:
            return 0.0
        return max(0.0, self._next_poll - time.monotonic()) if self._busy else None

    def wave(self) -> Wave | None:
        """Request the leases of all new calls, and poll those of other processes if it is time.

        Returns:
            The calls to compute and those found in the cache; None if there was nothing to request.
        """
        wanted, self._fresh = self._fresh, []
        polled: list[InFlight] = []
        idle = not self._busy
        if self._busy and time.monotonic() >= self._next_poll:
            # In parts, so that thousands of waiting calls keep neither processor nor disk busy.
            polled = list(islice(self._busy, _AT_ONCE))
            for flight in polled:
                del self._busy[flight]
            wanted += polled
        granted, self._granted = self._granted, []
        if not wanted:
            return Wave(granted, []) if granted else None
        wave = self._ask(wanted)
        wave.granted.extend(granted)
        if idle or polled:
            self._schedule(progress=idle or any(f not in self._busy for f in polled))
        return wave

    def _ask(self, wanted: list[InFlight]) -> Wave:
        keys = {flight.key: flight.recipe for flight in reversed(wanted)}
        leases = self._store.lease_many(list(keys))
        for flight in wanted:  # of two recipes with one key, the first gets the lease
            if flight.key in leases:
                leases.discard(flight.key)
                flight.leased = True
        wave = Wave([], [])
        records = self._store.get_many(keys)
        done: list[bytes] = []
        for flight in wanted:
            record = self._answer(flight, records.get(flight.key))
            if record is not None:
                wave.found.append((flight, record))
                if flight.leased:
                    flight.leased = False
                    done.append(flight.key)
            elif flight.leased:
                wave.granted.append(flight)
            else:
                self._busy[flight] = None
        self._store.release_many(done)
        return wave

    def _answer(self, flight: InFlight, record: Record | None) -> Record | None:
        """Return a record if it is of a call's recipe, is long enough and its value can be read."""
        if record is None or record.recipe != flight.recipe:
            return None
        if flight.call.node.expired(record.created):
            return None
        why = disowned(flight.call, flight.key, record)
        if why is None:
            found = found_outcome(flight.call, record)
            if found is None:
                return None
            why = unreadable(found)
            if why is None:
                return found.record
        self._store.found_unreadable(*why)
        return None

    def _schedule(self, *, progress: bool) -> None:
        now = time.monotonic()
        self._pause = _FIRST_POLL if progress else min(self._pause * 1.5, _LAST_POLL)
        self._next_poll = now + self._pause
        if progress:
            self._progress_at = now
        elif not self._warned and now - self._progress_at > _PATIENCE:
            self._warned = True  # the other process may be suspended (Ctrl-Z)
            logger().warning(
                "waiting for another process that computes %d results that this run needs too; "
                "if it is suspended, resume it, or end it and this process computes them",
                len(self._busy),
            )


def unreadable(outcome: Outcome) -> Unreadable | None:
    """Return why a stored value cannot be read, or None if it can be; raises nothing."""
    try:
        return outcome.unreadable()
    except BaseException as error:  # noqa: BLE001  signals are deferred here
        assert outcome.record is not None  # noqa: S101  else nothing is read
        return Unreadable(key_of(outcome.record.recipe), outcome.call.node.name, repr(error))
