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


class Others:
    """Others' requests and tokens within the last minute.

    Args:
        minute: Seconds in a minute.
    """

    def __init__(self, minute: float) -> None:
        self.minute = minute
        self._tokens: deque[tuple[float, float]] = deque()
        self._counts: deque[tuple[float, float]] = deque()
        self._count = 0.0
        self._least = self._before = math.inf

    def tokens(self, now: float) -> float:
        """Tokens that others use: the most that was seen within the last minute."""
        _forget(self._tokens, now - self.minute)
        return max((seen for _, seen in self._tokens), default=0.0)

    def see_tokens(self, now: float, seen: float) -> None:
        """Others were seen to use so many."""
        while self._tokens and self._tokens[-1][1] <= seen:  # never the most again
            self._tokens.pop()
        if seen > 0:
            self._tokens.append((now, seen))

    def requests(self, now: float) -> float:
        """Requests that others sent in the last minute, or will have at the rate so far."""
        # One count from before the minute stays, to tell how many came within it.
        while len(self._counts) > 1 and self._counts[1][0] <= now - self.minute:
            self._counts.popleft()
        if not self._counts:
            return 0.0
        since, before = self._counts[0]
        elapsed, count = now - since, self._count - before
        if elapsed < _FIRST_LOOK * self.minute or count <= 0:
            return 0.0
        return count * self.minute / elapsed

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


def _forget(samples: deque[tuple[float, float]], before: float) -> None:
    while samples and samples[0][0] <= before:
        samples.popleft()
