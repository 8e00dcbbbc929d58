"""Leases in waves: the right to compute many calls is asked for at once.

A lease is asked for first and the cache read after it, because another process may have stored the
result in between. Calls that another process computes are polled together.
"""

import time
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from cachedeval.engine.inflight import InFlight
from cachedeval.engine.log import logger
from cachedeval.engine.outcome import Outcome, Unreadable
from cachedeval.engine.recipe import key_of
from cachedeval.engine.record import Record
from cachedeval.engine.store import Store

__all__ = ["LeaseQueue", "Wave", "unreadable"]

_FIRST_POLL = 0.02
_LAST_POLL = 0.2
"""Seconds between two looks at what others compute; they grow from first to last."""

_PATIENCE = 60.0
"""Seconds without a result from other processes after which a warning says that this one waits."""

_AT_ONCE = 2000
"""How many calls are polled together."""


class Wave(NamedTuple):
    """What one round of leases gave."""

    granted: list[InFlight]
    """Calls to compute here; their leases are held."""
    found: list[tuple[InFlight, Record]]
    """Calls whose result is in the cache by now; their leases are released."""


class LeaseQueue:
    """The calls of one scheduler that wait for their leases.

    Thread safety: used by its scheduler's thread alone.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._fresh: list[InFlight] = []
        self._granted: list[InFlight] = []
        """Calls that need no lease, or have it from an attempt that was cancelled."""
        self._busy: dict[InFlight, None] = {}
        """What another process computes, in the order of the next look."""
        self._pause = _FIRST_POLL
        self._next_poll = 0.0
        self._progress_at = 0.0
        self._warned = False

    def __bool__(self) -> bool:
        return bool(self._fresh or self._granted or self._busy)

    def add(self, flight: InFlight) -> None:
        """Ask for the lease of a call with the next wave, if it needs one."""
        needs_none = flight.leased or flight.mode != "use"
        (self._granted if needs_none else self._fresh).append(flight)

    def discard(self, flights: Iterable[InFlight]) -> None:
        """Ask no longer for the leases of some calls."""
        gone = set(flights)
        self._fresh = [flight for flight in self._fresh if flight not in gone]
        self._granted = [flight for flight in self._granted if flight not in gone]
        for flight in gone:
            self._busy.pop(flight, None)

    def wait_seconds(self) -> float | None:
        """Return how long to wait for the next wave, if for any; None is until something comes."""
        if self._fresh or self._granted:
            return 0.0
        return max(0.0, self._next_poll - time.monotonic()) if self._busy else None

    def wave(self) -> Wave | None:
        """Ask for the leases of all new calls, and poll those of other processes if it is time.

        Returns:
            What came of it; None where there was nothing to ask.
        """
        wanted, self._fresh = self._fresh, []
        polled: list[InFlight] = []
        idle = not self._busy
        if self._busy and time.monotonic() >= self._next_poll:
            # In turns, so that ten thousand which wait keep neither a processor nor a disk busy.
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
            record = records.get(flight.key)
            if record is not None and self._answers(flight, record):
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

    def _answers(self, flight: InFlight, record: Record) -> bool:
        """Say whether a record answers a call; another recipe's, or an unreadable one, does not."""
        if record.recipe != flight.recipe:
            return False
        why = unreadable(Outcome(flight.call, "hit", record))
        if why is not None:
            self._store.found_unreadable(*why)
        return why is None

    def _schedule(self, *, progress: bool) -> None:
        now = time.monotonic()
        self._pause = _FIRST_POLL if progress else min(self._pause * 1.5, _LAST_POLL)
        self._next_poll = now + self._pause
        if progress:
            self._progress_at = now
        elif not self._warned and now - self._progress_at > _PATIENCE:
            self._warned = True  # a stopped process (Ctrl-Z) would otherwise be waited for unseen
            logger().warning(
                "waiting for another process that computes %d results which are wanted here too; "
                "if it was stopped, let it go on, or end it and they are computed here",
                len(self._busy),
            )


def unreadable(outcome: Outcome) -> Unreadable | None:
    """Return why a stored value cannot be read; no exception of its code ends the scheduler."""
    try:
        return outcome.unreadable()
    except BaseException as error:  # noqa: BLE001  no signal: those are deferred here
        assert outcome.record is not None  # noqa: S101  else nothing is read
        return Unreadable(key_of(outcome.record.recipe), outcome.call.node.name, repr(error))
