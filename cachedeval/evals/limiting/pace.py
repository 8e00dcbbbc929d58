"""When the next request may be sent: every decision about it, with no I/O and no clock.

`cachedeval.evals.limiting.throttle` carries the decisions out. Times are seconds on any one clock.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from cachedeval.evals.judging.failures import BudgetExhausted
from cachedeval.evals.limiting.limits import Limits, RateHeaders
from cachedeval.evals.limiting.others import Others
from cachedeval.evals.limiting.window import Held, Window

__all__ = ["Pace", "Ticket", "guess_tokens"]

_BYTES_PER_TOKEN = 3.0
_TOKENS_PER_MESSAGE = 8
"""A first guess at a prompt's tokens, on the high side for English; replies correct it."""

_LEARNING = 0.2
_TOKENS_FREE = 0.005
"""The share of the tokens left free: our count of a prompt's is not quite the service's."""

_REQUESTS_FREE = 0.01
"""The share of the requests left free where others use them too: they come by fits and starts."""

_NEARLY = 0.1
"""By which share of the requests the others' may have been underrated when we are turned down."""


@dataclass(slots=True)
class Ticket:
    """One request's reservation."""

    sent: float
    tokens: float
    request_held: Held
    tokens_held: Held
    guessed: float
    """The prompt's share of ``tokens``."""
    own: float
    """Tokens of ours in the window when it was sent, its own among them."""
    number: int
    """Requests of ours that the service counts, up to this one."""


def guess_tokens(messages: Sequence[dict[str, str]]) -> float:
    """The prompt's size in tokens by its bytes alone: 3 bytes a token and 8 tokens a message."""
    content = sum(len(message["content"].encode()) for message in messages)
    return content / _BYTES_PER_TOKEN + _TOKENS_PER_MESSAGE * len(messages)


class Pace:
    """A service's limits, what of them is in use, and a cool-down for all.

    Others who use the same account are seen in the headers: the tokens that remain are fewer than
    ours explain, the day's requests grow fewer faster than ours do.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = Window(limits.requests_per_minute or math.inf, limits.minute)
        self.tokens = Window(limits.tokens_per_minute or math.inf, limits.minute)
        self.sent = 0
        self.counted = 0
        """How many of those sent the service counts, as far as we know."""
        self.used_share = 1.0
        """Which share of what was reserved was used in the end, of late."""
        self._scale = 1.0
        self._resume = self._cooling_since = -math.inf
        self._first_answer = math.inf
        self._streak = 0
        self._allowed = math.inf if limits.requests_per_day is None else limits.requests_per_day
        self._left = math.inf  # of the day's requests, as the service said
        self._exhausted_until = -math.inf
        self._others = Others(limits.minute)

    def reserved(self, messages: Sequence[dict[str, str]], max_completion_tokens: int) -> float:
        """Tokens that the service will count for a request when it is sent."""
        return math.ceil(guess_tokens(messages) * self._scale) + max_completion_tokens

    def delay(self, now: float, tokens: float) -> float:
        """Seconds until a request may be sent: 0 where it may now.

        Raises:
            BudgetExhausted: Not today.
        """
        if now < self._exhausted_until:
            raise BudgetExhausted(
                f"the judge's budget is used up for another {self._exhausted_until - now:.0f} s;"
                " what is done is kept: run again then"
            )
        if min(self._allowed, self._left) < 1:
            raise BudgetExhausted(
                "the judge's requests for the day are used up; what is done is kept: run again"
                " tomorrow, or raise requests_per_day"
            )
        self._leave_to_others(now)
        return max(
            self._resume - now,
            self.requests.delay(now, 1),
            self.tokens.delay(now, tokens),
            0.0,
        )

    def take(self, now: float, tokens: float, guessed: float = 0.0) -> Ticket:
        """Reserve a request that is sent now."""
        self.sent += 1
        self.counted += 1
        self._allowed -= 1
        self._left -= 1
        request_held = self.requests.add(now, 1)
        tokens_held = self.tokens.add(now, min(tokens, self.tokens.limit))
        return Ticket(
            now, tokens, request_held, tokens_held, guessed, self.tokens.held(now), self.counted
        )

    def answered(
        self, now: float, ticket: Ticket, prompt: int, completion: int, headers: RateHeaders
    ) -> None:
        """A request was answered: count what it used, and hear what the headers say."""
        self._streak = 0
        if ticket.sent <= self._first_answer:
            # The first ones are long on their way: connections are made, a library sets itself up.
            self._first_answer = min(self._first_answer, now)
            self.requests.restart(now, ticket.request_held)
            self.tokens.restart(now, ticket.tokens_held)
        used = prompt + completion
        self.tokens.settle(now, ticket.tokens_held, used)
        if ticket.tokens > 0:
            self.used_share += _LEARNING * (used / ticket.tokens - self.used_share)
        if ticket.guessed > 0 and prompt > 0:
            self._scale += _LEARNING * (prompt / ticket.guessed - self._scale)
        self._hear(now, ticket, headers)

    def rejected(
        self, now: float, ticket: Ticket, retry_after: float | None, headers: RateHeaders
    ) -> bool:
        """A request was answered 429: all wait.

        Args:
            now: When the reply came.
            ticket: The request's.
            retry_after: Seconds that it said, or None.
            headers: What else it said.

        Returns:
            Whether this began a cool-down; False where the one under way covers it.
        """
        self.requests.settle(now, ticket.request_held, 0)
        self.tokens.settle(now, ticket.tokens_held, 0)
        self.counted -= 1
        self._hear(now, ticket, headers)
        free = self.requests.limit - self.requests.held(now)
        if 0 < free - self._others.requests(now) < self.requests.limit * _NEARLY:
            self._others.see_requests(now, free)  # it was full, and what is not ours is theirs
        first = ticket.sent >= self._cooling_since
        if first:
            self._streak += 1
            self._cooling_since = now
        wait = retry_after
        remaining = headers.tokens_remaining
        if wait is None and remaining is not None and remaining < ticket.tokens:
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
            self.tokens.reserved = self._others.tokens(now) + limit * _TOKENS_FREE
        if math.isfinite(limit := self.requests.limit):
            others = self._others.requests(now)
            self.requests.reserved = others + (limit * _REQUESTS_FREE if others else 0.0)

    def _hear(self, now: float, ticket: Ticket, headers: RateHeaders) -> None:
        corrected = self.limits.corrected(headers.tokens_limit)
        if corrected is not self.limits:
            self.limits = corrected
            self.requests.limit = corrected.requests_per_minute or math.inf
            self.tokens.limit = corrected.tokens_per_minute or math.inf
        if headers.tokens_limit is not None and headers.tokens_remaining is not None:
            used = headers.tokens_limit - headers.tokens_remaining
            spare = max(headers.tokens_limit - self.tokens.limit, 0.0)  # that we leave anyway
            self._others.see_tokens(now, used - max(ticket.own, self.tokens.held(now)) - spare)
        if headers.day_remaining is not None:
            self._left = headers.day_remaining
            if headers.day_remaining < 1 and headers.day_reset:
                self._exhausted_until = now + headers.day_reset
            self._others.see_day(
                now, headers.day_remaining, sent=self.counted, sent_then=ticket.number
            )
