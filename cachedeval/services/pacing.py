"""When the next request may be sent: every decision about it, without I/O and without a clock.

`cachedeval.services.limiter` waits accordingly. Times are seconds on any one clock.
"""

import math
import random
from dataclasses import dataclass

from cachedeval.services.errors import QuotaExhaustedError
from cachedeval.services.limits import Limits, RateHeaders
from cachedeval.services.windows import ExternalUsage, Held, LeakyBucket, SlidingWindow

__all__ = ["Pacer", "Sent"]

_LEARNING = 0.2
_TOKENS_FREE = 0.005
"""The share of the tokens that stays free: our count of a prompt's is not quite the service's."""

_REQUESTS_FREE = 0.01
"""The share of the requests that stays free while other clients send some, at irregular times."""

_NEARLY = 0.1
"""By which share of the requests those of others may have been underestimated before a 429."""

_BURST_SHARE, _BURST_REQUESTS = 1 / 12, 5
"""What may be sent at once: five seconds' worth of a minute, and at least five requests."""


@dataclass(slots=True)
class Sent:
    """What is counted for one reservation."""

    at: float
    requests: float
    tokens: float
    requests_held: Held
    tokens_held: Held
    own: float
    """Tokens of ours in the window when it was sent, its own included."""
    number: float
    """Requests of ours that the service counts, up to and including this one."""


class Pacer:
    """A service's limits, what of them is in use, and a cool-down for all.

    Args:
        limits: What the service allows.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = SlidingWindow(limits.requests_per_minute or math.inf, limits.minute)
        self.tokens = SlidingWindow(limits.tokens_per_minute or math.inf, limits.minute)
        self.sent = 0.0
        self.counted = 0.0
        """How many of those sent the service counts, as far as we know."""
        self.used_share = 1.0
        """Which share of what was reserved was used in the end, of late."""
        self._request_bucket, self._token_bucket = _buckets(limits)
        self._resume = self._cooling_since = -math.inf
        self._first_settled = math.inf
        self._streak = 0
        self._allowed = math.inf if limits.requests_per_day is None else limits.requests_per_day
        self._left = math.inf  # of the day's requests, as the service says
        self._exhausted_until = -math.inf
        self._external = ExternalUsage(limits.minute)

    def delay(self, now: float, tokens: float = 0.0, requests: float = 1.0) -> float:
        """Return the seconds until so much may be sent; 0 if it may now.

        Raises:
            QuotaExhaustedError: Not today.
        """
        if now < self._exhausted_until:
            raise QuotaExhaustedError(
                f"the service's budget is used up for another {self._exhausted_until - now:.0f} s;"
                " results so far are stored: run again then"
            )
        if min(self._allowed, self._left) < min(requests, 1):
            raise QuotaExhaustedError(
                "the service's requests for the day are used up; results so far are stored: run"
                " again tomorrow, or raise requests_per_day"
            )
        self._leave_to_others(now)
        even = 0.0
        if (bucket := self._request_bucket) is not None:
            even = bucket.delay(now, requests)
        if (bucket := self._token_bucket) is not None:
            even = max(even, bucket.delay(now, tokens * self.used_share))
        return max(
            self._resume - now,
            self.requests.delay(now, requests),
            self.tokens.delay(now, tokens),
            even,
            0.0,
        )

    def take(self, now: float, tokens: float = 0.0, requests: float = 1.0) -> Sent:
        """Count what is sent now."""
        self.sent += requests
        self.counted += requests
        self._allowed -= requests
        self._left -= requests
        if (bucket := self._request_bucket) is not None:
            bucket.add(now, requests)
        if (bucket := self._token_bucket) is not None:
            bucket.add(now, tokens * self.used_share)
        requests_held = self.requests.add(now, requests)
        tokens_held = self.tokens.add(now, min(tokens, self.tokens.limit))
        own = self.tokens.held(now)
        return Sent(now, requests, tokens, requests_held, tokens_held, own, self.counted)

    def settle(self, now: float, sent: Sent, tokens: float, headers: RateHeaders) -> None:
        """Count the tokens that were used in place of those reserved, and apply the headers."""
        self._streak = 0
        if sent.at <= self._first_settled:
            # The first requests take long: connections open, a library sets itself up.
            self._first_settled = min(self._first_settled, now)
            self.requests.restart(now, sent.requests_held)
            self.tokens.restart(now, sent.tokens_held)
        self.tokens.settle(now, sent.tokens_held, tokens)
        if sent.tokens > 0:
            self.used_share += _LEARNING * (tokens / sent.tokens - self.used_share)
        self._apply(now, sent, headers)

    def reject(
        self, now: float, sent: Sent, retry_after: float | None, headers: RateHeaders
    ) -> bool:
        """Begin a cool-down for all: the service answered 429.

        Args:
            now: When the reply arrived.
            sent: The request.
            retry_after: Seconds to wait as the service says, or None.
            headers: What else it said.

        Returns:
            Whether this began a cool-down; False if the current one covers it.
        """
        self.requests.settle(now, sent.requests_held, 0)
        self.tokens.settle(now, sent.tokens_held, 0)
        self.counted -= sent.requests
        self._apply(now, sent, headers)
        free = self.requests.limit - self.requests.held(now)
        if 0 < free - self._external.requests(now) < self.requests.limit * _NEARLY:
            self._external.see_requests(now, free)  # it was full, and what is not ours is theirs
        first = sent.at >= self._cooling_since
        if first:
            self._streak += 1
            self._cooling_since = now
        wait = retry_after
        remaining = headers.tokens_remaining
        if wait is None and remaining is not None and remaining < sent.tokens:
            wait = headers.tokens_reset
        if wait is None:  # a 60th of the minute, doubled each time, with jitter
            grown = self.limits.minute / 60 * 2 ** min(self._streak - 1, 5)
            wait = grown * random.uniform(0.75, 1.25) if first else 0.0  # noqa: S311 -- jitter
        if wait > self.limits.longest_wait:
            self._exhausted_until = max(self._exhausted_until, now + wait)
        else:
            self._resume = max(self._resume, now + wait)
        return first

    def _leave_to_others(self, now: float) -> None:
        if math.isfinite(limit := self.tokens.limit):
            self.tokens.reserved = self._external.tokens(now) + limit * _TOKENS_FREE
        if math.isfinite(limit := self.requests.limit):
            others = self._external.requests(now)
            self.requests.reserved = others + (limit * _REQUESTS_FREE if others else 0.0)

    def _apply(self, now: float, sent: Sent, headers: RateHeaders) -> None:
        corrected = self.limits.corrected(headers.tokens_limit)
        if corrected is not self.limits:
            self.limits = corrected
            self.requests.limit = corrected.requests_per_minute or math.inf
            self.tokens.limit = corrected.tokens_per_minute or math.inf
            self._request_bucket, self._token_bucket = _buckets(corrected)
        if headers.tokens_limit is not None and headers.tokens_remaining is not None:
            used = headers.tokens_limit - headers.tokens_remaining
            spare = max(headers.tokens_limit - self.tokens.limit, 0.0)  # which we leave anyway
            self._external.see_tokens(now, used - max(sent.own, self.tokens.held(now)) - spare)
        if headers.day_remaining is not None:
            self._left = headers.day_remaining
            if headers.day_remaining < 1 and headers.day_reset:
                self._exhausted_until = now + headers.day_reset
            self._external.see_day(
                now, headers.day_remaining, sent=self.counted, sent_then=sent.number
            )


def _buckets(limits: Limits) -> tuple[LeakyBucket | None, LeakyBucket | None]:
    def bucket(limit: float | None, least: float) -> LeakyBucket | None:
        if limit is None:
            return None
        return LeakyBucket(limit, limits.minute, max(limit * _BURST_SHARE, min(limit, least), 1.0))

    return (
        bucket(limits.requests_per_minute, _BURST_REQUESTS),
        bucket(limits.tokens_per_minute, 0),
    )
