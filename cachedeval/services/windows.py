"""How much of a limit is in use: sliding windows, leaky buckets, and what other clients use.

Nothing here does I/O or reads a clock. Times are seconds on any one clock.
"""

import heapq
import itertools
import math
from collections import deque

__all__ = ["ExternalUsage", "Held", "LeakyBucket", "SlidingWindow"]

_SLACK = 0.015
"""The share of the period for which a request stays in the window in addition.

The service counts from a request's arrival, we count from its sending, and the latency varies.
"""

_FIRST_LOOK = 0.05
"""The share of a minute after which the rate of other clients is estimated."""

_UNSEEN = 2
"""How many requests of other clients may have arrived since the last reply counted them."""


class Held:
    """An amount in a window until it leaves it."""

    __slots__ = ("amount", "until")

    def __init__(self, amount: float, until: float) -> None:
        self.amount = amount
        self.until = until


class SlidingWindow:
    """How much of a limit was used within the last period.

    A service that counts in a sliding window, in fixed minutes, or by a bucket that refills at an
    even rate accepts everything that this lets through.

    Args:
        limit: The most that the window may hold; infinite for no limit.
        period: Seconds that an amount stays in it.

    Attributes:
        total: What it holds.
        reserved: The part of the limit that is left to other clients.
    """

    def __init__(self, limit: float, period: float) -> None:
        self.limit = limit
        self.period = period
        self._held: list[tuple[float, int, Held]] = []
        self._number = itertools.count()
        self.total = 0.0
        self.reserved = 0.0

    def delay(self, now: float, amount: float) -> float:
        """Return the seconds until an amount fits; 0 where it does now.

        An amount above what is free fits once the window is empty: no later moment would be
        better. Where other clients use everything, look again after a twentieth of the period.
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
        """Add an amount."""
        held = Held(amount, now + self.period * (1 + _SLACK))
        heapq.heappush(self._held, (held.until, next(self._number), held))
        self.total += amount
        return held

    def settle(self, now: float, held: Held, amount: float) -> None:
        """Correct an amount; no effect once it has left the window."""
        self._expire(now)
        if held.until > now:
            self.total += amount - held.amount
            held.amount = amount

    def restart(self, now: float, held: Held) -> None:
        """Count an amount from now on; no effect once it has left the window."""
        self._expire(now)
        if held.until > now:
            held.until = now + self.period * (1 + _SLACK)

    def held(self, now: float) -> float:
        """Return how much is in the window."""
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


class LeakyBucket:
    """Spreads amounts evenly: a burst passes at once, and then one drains at the limit's rate.

    Args:
        limit: The amount that a period allows.
        period: Seconds.
        burst: The amount that may pass at once.
    """

    def __init__(self, limit: float, period: float, burst: float) -> None:
        self.burst = burst
        self._rate = limit / period
        self._level = 0.0
        self._at = -math.inf

    def delay(self, now: float, amount: float) -> float:
        """Return the seconds until an amount may pass; one above the burst counts as the burst."""
        excess = self._drained(now) + min(amount, self.burst) - self.burst
        return max(excess, 0.0) / self._rate

    def add(self, now: float, amount: float) -> None:
        """Count an amount that passes now."""
        self._level = self._drained(now) + min(amount, self.burst)
        self._at = now

    def _drained(self, now: float) -> float:
        return max(self._level - (now - self._at) * self._rate, 0.0)


class ExternalUsage:
    """The requests and tokens of other clients of the same account within the last minute.

    They show in the service's headers: fewer tokens remain than ours explain, and the day's
    requests shrink faster than we send them. Some of ours that are in flight may be counted already
    when a reply says what is left, or not yet. None of ours may be taken for another client's, so
    others count for no less than is certain.

    Args:
        minute: Seconds in a minute.
    """

    def __init__(self, minute: float) -> None:
        self.minute = minute
        self._tokens = _Peak(minute)
        self._requests = _Peak(minute)
        self._counts: deque[tuple[float, float]] = deque()
        self._count = 0.0
        self._least = self._before = math.inf

    def tokens(self, now: float) -> float:
        """Return the tokens that others use: the most seen within the last minute."""
        return self._tokens.value(now)

    def see_tokens(self, now: float, seen: float) -> None:
        """Record that others were seen to use so many tokens."""
        self._tokens.see(now, seen)

    def requests(self, now: float) -> float:
        """Return the requests that others send in a minute: the most of late, or the rate so far.

        The most, so that others whom the service rejects because of us do not seem to want less.
        """
        return max(self._rate_so_far(now), self._requests.value(now))

    def see_requests(self, now: float, seen: float) -> None:
        """Record that others were seen to have sent so many requests within the last minute."""
        self._requests.see(now, seen)

    def see_day(self, now: float, remaining: float, *, sent: float, sent_then: float) -> None:
        """Record how many of the day's requests are left.

        Args:
            now: When the reply arrived that says so.
            remaining: How many are left.
            sent: How many we have sent so far: no more of ours are counted.
            sent_then: How many we had sent when this one was sent: no fewer of ours are counted.
        """
        if remaining > self._least + sent:  # a new day
            self._counts.clear()
            self._least, self._before, self._count = math.inf, math.inf, 0.0
        self._least = min(self._least, remaining)
        # Up to a constant, others' requests are between these two, and never decrease.
        self._before = min(self._before, -remaining - sent_then)
        self._count = max(self._count, -remaining - sent - self._before)
        self._counts.append((now, self._count))
        # One count from before the minute stays: the difference is what came within it.
        while len(self._counts) > 1 and self._counts[1][0] <= now - self.minute:
            self._counts.popleft()
        since, before = self._counts[0]
        if now - since >= self.minute:
            self.see_requests(now, (self._count - before) * self.minute / (now - since))

    def _rate_so_far(self, now: float) -> float:
        """Return others' requests a minute within the first minute, allowing for some not seen yet."""
        if not self._counts or self._count <= 0:
            return 0.0
        elapsed = now - self._counts[0][0]
        if not _FIRST_LOOK * self.minute <= elapsed < self.minute:
            return 0.0
        return (self._count - self._counts[0][1] + _UNSEEN) * self.minute / elapsed


class _Peak:
    """The greatest of the values seen within the last period."""

    def __init__(self, period: float) -> None:
        self._period = period
        self._falling: deque[tuple[float, float]] = deque()

    def see(self, now: float, value: float) -> None:
        while self._falling and self._falling[-1][1] <= value:  # never the greatest again
            self._falling.pop()
        if value > 0:
            self._falling.append((now, value))

    def value(self, now: float) -> float:
        while self._falling and self._falling[0][0] <= now - self._period:
            self._falling.popleft()
        return self._falling[0][1] if self._falling else 0.0
