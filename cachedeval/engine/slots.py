"""Slots: how many steps of a node with `concurrency=` run at once.

A call takes a slot before it goes to its executor, and leaves it when its step has ended. While a step
waits for a run of its own, it leaves its slot to others, so that a step may wait for calls of its own
node. It takes one again before it goes on, and before all calls that have not started.
"""

import threading
from collections import deque
from collections.abc import Callable

from cachedeval.engine.inflight import InFlight

__all__ = ["Slots"]


class Slots:
    """The slots of one node.

    Args:
        count: how many there are.
        submit: passes a call that was granted a slot to its executor.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, count: int, submit: Callable[[InFlight], None]) -> None:
        self._free = count
        self._submit = submit
        self._lock = threading.Lock()
        self._holding: set[InFlight] = set()
        self._waiting: deque[InFlight] = deque()
        self._resuming: dict[InFlight, Callable[[], None]] = {}
        """The steps that wait for a slot to go on, and how to wake each."""

    def take(self, flight: InFlight) -> bool:
        """Take a slot for a call; return False if none is free, and the call waits for one."""
        with self._lock:
            if self._free > 0:
                self._free -= 1
                self._holding.add(flight)
                return True
            self._waiting.append(flight)
            return False

    def release(self, flight: InFlight) -> None:
        """Leave the slot of a call, if it has one, to the next."""
        with self._lock:
            self._resuming.pop(flight, None)
            if flight not in self._holding:
                return
            self._holding.discard(flight)
            self._free += 1
            woken, granted = self._grant()
        for wake in woken:
            wake()
        for each in granted:
            self._submit(each)

    def resume(self, flight: InFlight, wake: Callable[[], None]) -> bool:
        """Take a slot for a step that goes on; return False if `wake` will be called for that."""
        with self._lock:
            if flight.finished:  # a thread that outlived its step
                return True
            if self._free > 0:
                self._free -= 1
                self._holding.add(flight)
                return True
            self._resuming[flight] = wake
            return False

    def _grant(self) -> tuple[list[Callable[[], None]], list[InFlight]]:
        """Give free slots away; the lock must be held."""
        woken: list[Callable[[], None]] = []
        granted: list[InFlight] = []
        while self._free > 0 and self._resuming:
            flight = next(iter(self._resuming))
            woken.append(self._resuming.pop(flight))
            self._free -= 1
            self._holding.add(flight)
        while self._free > 0 and self._waiting:
            flight = self._waiting.popleft()
            if flight.state == "queued":  # not dropped in the meantime
                granted.append(flight)
                self._free -= 1
                self._holding.add(flight)
        return woken, granted
