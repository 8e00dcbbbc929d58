"""A trailing window, as a service keeps one: what was sent within the last minute, and how much."""

import heapq
import itertools
import math

__all__ = ["Held", "Window"]

_SLACK_SHARE, _SLACK_SECONDS = 0.01, 0.05
"""How much longer than the service we hold a request to be in the window.

The service counts from the request's arrival, we from its sending; the way takes now longer, now
shorter. In a minute this costs 1.1% of the rate.
"""


class Held:
    """An amount in a window, until it falls out of it."""

    __slots__ = ("amount", "until")

    def __init__(self, amount: float, until: float) -> None:
        self.amount = amount
        self.until = until


class Window:
    """How much of a limit is in use, by us and by others. It does no I/O and reads no clock.

    A service that counts in a sliding window, in fixed minutes, or by a bucket that refills at an
    even rate takes all that this lets through.

    Args:
        limit: The most that the window may hold; infinite for no limit.
        period: Seconds that an amount stays in it.
    """

    def __init__(self, limit: float, period: float) -> None:
        self.limit = limit
        self.period = period
        self._held: list[tuple[float, int, Held]] = []
        self._number = itertools.count()
        self._others: Held | None = None
        self.total = 0.0

    def delay(self, now: float, amount: float) -> float:
        """Seconds until an amount fits in; 0 where it does now.

        An amount above the limit fits once the window is empty: no later moment would be better.
        """
        self._expire(now)
        excess = self.total + min(amount, self.limit) - self.limit
        if excess <= 0 or math.isinf(self.limit):
            return 0.0
        for until, _, held in heapq.nsmallest(len(self._held), self._held):
            excess -= held.amount
            if excess <= 0:
                return until - now
        return 0.0

    def add(self, now: float, amount: float, *, stays: float | None = None) -> Held:
        """Put an amount in. ``stays``: seconds, where it is not the period."""
        if stays is None:
            stays = self.period * (1 + _SLACK_SHARE) + _SLACK_SECONDS
        held = Held(amount, now + stays)
        heapq.heappush(self._held, (held.until, next(self._number), held))
        self.total += amount
        return held

    def settle(self, now: float, held: Held, amount: float) -> None:
        """Change an amount to what it turned out to be; without effect once it has fallen out."""
        self._expire(now)
        if held.until > now:
            self.total += amount - held.amount
            held.amount = amount

    def own(self, now: float) -> float:
        """How much of the window is ours."""
        self._expire(now)
        return self.total - (self._others.amount if self._others else 0.0)

    def others(self, now: float, amount: float, *, stays: float | None = None) -> None:
        """Say how much of the window others have, in place of what was said before."""
        if self._others is not None:
            self.settle(now, self._others, 0.0)
        self._others = self.add(now, amount, stays=stays) if amount > 0 else None

    def _expire(self, now: float) -> None:
        while self._held and self._held[0][0] <= now:
            _, _, held = heapq.heappop(self._held)
            self.total -= held.amount
            if held is self._others:
                self._others = None
        if not self._held:
            self.total = 0.0  # sums of fractions leave a rest
