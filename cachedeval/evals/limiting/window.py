"""A trailing window, as a service keeps one: what was sent within the last minute, and how much."""

import heapq
import itertools
import math

__all__ = ["Held", "Window"]

_SLACK = 0.015
"""The share of the period by which we hold a request to be in the window for longer.

The service counts from the request's arrival, we from its sending; the way takes now longer, now
shorter.
"""


class Held:
    """An amount in a window, until it falls out of it."""

    __slots__ = ("amount", "until")

    def __init__(self, amount: float, until: float) -> None:
        self.amount = amount
        self.until = until


class Window:
    """How much of a limit is in use. It does no I/O and reads no clock.

    A service that counts in a sliding window, in fixed minutes, or by a bucket that refills at an
    even rate takes all that this lets through.

    Args:
        limit: The most that the window may hold; infinite for no limit.
        period: Seconds that an amount stays in it.

    Attributes:
        total: What it holds.
        reserved: What of the limit is left to others.
    """

    def __init__(self, limit: float, period: float) -> None:
        self.limit = limit
        self.period = period
        self._held: list[tuple[float, int, Held]] = []
        self._number = itertools.count()
        self.total = 0.0
        self.reserved = 0.0

    def delay(self, now: float, amount: float) -> float:
        """Seconds until an amount fits in; 0 where it does now.

        An amount above what is free fits once the window is empty: no later moment would be
        better. Where others have all, it is time to look again after a twentieth of the period.
        """
        self._expire(now)
        free = self.limit - self.reserved
        if math.isinf(free):
            return 0.0
        if free <= 0:
            return self.period / 20
        excess = self.total + min(amount, free) - free
        if excess <= 0:
            return 0.0
        for until, _, held in heapq.nsmallest(len(self._held), self._held):
            excess -= held.amount
            if excess <= 0:
                return until - now
        return 0.0

    def add(self, now: float, amount: float) -> Held:
        """Put an amount in."""
        held = Held(amount, now + self.period * (1 + _SLACK))
        heapq.heappush(self._held, (held.until, next(self._number), held))
        self.total += amount
        return held

    def settle(self, now: float, held: Held, amount: float) -> None:
        """Change an amount to what it turned out to be; without effect once it has fallen out."""
        self._expire(now)
        if held.until > now:
            self.total += amount - held.amount
            held.amount = amount

    def restart(self, now: float, held: Held) -> None:
        """Hold an amount from now on; without effect once it has fallen out."""
        self._expire(now)
        if held.until > now:
            held.until = now + self.period * (1 + _SLACK)

    def held(self, now: float) -> float:
        """How much is in it."""
        self._expire(now)
        return self.total

    def _expire(self, now: float) -> None:
        while self._held and self._held[0][0] <= now:
            _, number, held = heapq.heappop(self._held)
            if held.until > now:  # it was restarted
                heapq.heappush(self._held, (held.until, number, held))
            else:
                self.total -= held.amount
        if not self._held:
            self.total = 0.0  # sums of fractions leave a rest
