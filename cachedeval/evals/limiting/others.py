"""What other users of the same account take of its limits, by what the service says is left.

What of ours is under way may be counted already when a reply tells what is left, or not yet. No
request of ours may be taken for another's, so others count for no less than is certain.
Times are seconds on any one clock.
"""

import math
from collections import deque

__all__ = ["Others"]

_FIRST_LOOK = 0.05
"""The share of a minute after which others' rate is told from what they did so far."""

_UNSEEN = 2
"""How many requests of others may have come since the last reply told of them."""


class Others:
    """Others' requests and tokens within the last minute.

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
        """Tokens that others use: the most that was seen within the last minute."""
        return self._tokens.value(now)

    def see_tokens(self, now: float, seen: float) -> None:
        """Others were seen to use so many."""
        self._tokens.see(now, seen)

    def requests(self, now: float) -> float:
        """Requests that others send in a minute: the most of late, or the rate so far.

        The most, so that others who are turned down because of us are not taken to want less.
        """
        return max(self._rate_so_far(now), self._requests.value(now))

    def see_requests(self, now: float, seen: float) -> None:
        """Others were seen to have sent so many within the last minute."""
        self._requests.see(now, seen)

    def see_day(self, now: float, remaining: float, *, sent: int, sent_then: int) -> None:
        """So many of the day's requests are left.

        Args:
            now: When the reply that says so came.
            remaining: How many are left.
            sent: How many we have sent so far: at the most so many of ours are counted.
            sent_then: How many we had sent when this one was: so many of ours are, at the least.
        """
        if remaining > self._least + sent:  # a new day
            self._counts.clear()
            self._least, self._before, self._count = math.inf, math.inf, 0.0
        self._least = min(self._least, remaining)
        # Up to a constant: the others' requests are between these two, and do not grow fewer.
        self._before = min(self._before, -remaining - sent_then)
        self._count = max(self._count, -remaining - sent - self._before)
        self._counts.append((now, self._count))
        # One count from before the minute stays, to tell how many came within it.
        while len(self._counts) > 1 and self._counts[1][0] <= now - self.minute:
            self._counts.popleft()
        since, before = self._counts[0]
        if now - since >= self.minute:
            self.see_requests(now, (self._count - before) * self.minute / (now - since))

    def _rate_so_far(self, now: float) -> float:
        """Others' requests a minute in the first minute, some not seen yet among them."""
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
