"""The gate that every request to a service passes, and no cache hit does."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from aiolimiter import AsyncLimiter

from cachedeval.evals.judging.failures import Failure
from cachedeval.evals.limiting.limits import Limits, RateHeaders
from cachedeval.evals.limiting.pace import Pace, Ticket, guess_tokens
from cachedeval.evals.limiting.slots import Slots

__all__ = ["Spent", "Throttle"]

_OPENING_REQUESTS, _OPENING_SECONDS, _OPENING_LOOKS = 4, 0.02, 3
"""How many requests go out before the first reply, and how long and how often it is waited for.

A wrong key then costs a handful of requests, and a right one a twentieth of a second. The wait is
made of short ones, each begun after the last: while the first request imports what it needs,
nothing is sent and no time counts.
"""

_BURST_SHARE, _BURST_REQUESTS = 1 / 12, 5
"""What may go out at once: five seconds' worth of a minute, and never less than five requests."""


_UNANSWERED = 20
"""After so many judgements without any reply ever, there is no one there: the rest are not tried."""

_UNFIT = 3
"""After so many judgements that show that no fitting service is there, the run ends."""

_OVERLOADED = (503, 529)


@dataclass(slots=True)
class Spent:
    """What went over the wire, failed attempts included.

    Attributes:
        requests: Requests sent.
        prompt_tokens: Tokens in, as the replies say.
        completion_tokens: Tokens out.
        failures: Failed attempts by kind.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failures: dict[str, int] = field(default_factory=dict)


class Throttle:
    """One service's limits, shared by all calls to it.

    Two things hold a request back. aiolimiter's leaky buckets set the pace: requests and tokens
    leave evenly, after a small burst. The windows of `Pace` know what is left: what was sent
    within the last minute, what others use, and until when all must wait after a 429.

    Args:
        limits: What the service permits.
        clock: Seconds; replaced in tests.

    Belongs to one event loop.
    """

    def __init__(self, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.pace = Pace(limits)
        self.slots = Slots(limits.max_concurrency)
        self.spent = Spent()
        self._ended: Failure | None = None
        self._replied = False
        self._unanswered = 0
        self._completed = False
        self._unfit = 0
        self._clock = clock
        self._gate, self._line = asyncio.Lock(), asyncio.Lock()
        self._changed = asyncio.Event()
        self._looks = _OPENING_LOOKS
        self._limits_of_buckets: Limits | None = None
        self._request_bucket: AsyncLimiter | None = None
        self._token_bucket: AsyncLimiter | None = None

    def slot(self) -> AbstractAsyncContextManager[None]:
        """A place among the calls under way, kept over the retries of one call."""
        return self.slots.take()

    async def reserve(
        self, messages: Sequence[dict[str, str]], max_completion_tokens: int, *, again: bool = False
    ) -> Ticket:
        """Wait until a request may be sent, and count it as sent.

        Args:
            messages: The prompt.
            max_completion_tokens: What the reply may have at the most.
            again: A retry: it goes before those who have not been sent yet.

        Raises:
            BudgetExhausted: Not today.
            Failure: The one that ended the run, where one did.
        """
        async with contextlib.nullcontext() if again else self._line, self._gate:
            tokens = self.pace.reserved(messages, max_completion_tokens)
            await self._even_out(tokens)
            while (delay := self._delay(tokens)) > 0:
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._changed.wait()
                self._looks -= self._opening
            self.spent.requests += 1
            return self.pace.take(self._clock(), tokens, guess_tokens(messages))

    def answered(self, ticket: Ticket, prompt: int, completion: int, headers: RateHeaders) -> None:
        """A request was answered, well or badly: what it used, and what the headers say."""
        self.pace.answered(self._clock(), ticket, prompt, completion, headers)
        self._replied = self._completed = True
        self.spent.prompt_tokens += prompt
        self.spent.completion_tokens += completion
        self.slots.grow()
        self._wake()

    def rejected(self, ticket: Ticket, failure: Failure, headers: RateHeaders) -> None:
        """A request was answered 429: all wait, and fewer go on at once afterwards."""
        if self.pace.rejected(self._clock(), ticket, failure.retry_after, headers):
            self.slots.shrink()
        self.failed(failure)

    def failed(self, failure: Failure) -> None:
        """An attempt failed. Where every other would fail alike, nothing more is sent."""
        kinds = self.spent.failures
        kinds[failure.kind] = kinds.get(failure.kind, 0) + 1
        self._replied = self._replied or failure.status is not None
        if failure.status in _OVERLOADED:
            self.slots.shrink()
        if failure.fatal:
            self._end(failure)
        self._wake()

    def gave_up(self, failure: Failure) -> None:
        """A judgement ended without a verdict."""
        if not self._replied:
            self._unanswered += 1
            if self._unanswered >= max(_UNANSWERED, self.slots.most):
                self._end(failure)
        if failure.unfit and not self._completed:
            self._unfit += 1
            if self._unfit >= _UNFIT:
                failure.fatal = True
                self._end(failure)

    def _end(self, failure: Failure) -> None:
        self._ended = self._ended or failure

    def _wake(self) -> None:
        self._looks = 0
        self._changed.set()

    def _delay(self, tokens: float) -> float:
        if self._ended is not None:
            said = str(self._ended)
            if not self._ended.fatal:
                said += "; it never answered, so this was not sent"
            again = type(self._ended)(said, status=self._ended.status)
            again.final = True
            again.fatal = self._ended.fatal
            raise again
        delay = self.pace.delay(self._clock(), tokens)
        return max(delay, _OPENING_SECONDS) if self._opening else delay

    @property
    def _opening(self) -> bool:
        return self._looks > 0 and self.pace.sent >= _OPENING_REQUESTS

    async def _even_out(self, tokens: float) -> None:
        limits = self.pace.limits
        if limits is not self._limits_of_buckets:
            self._limits_of_buckets = limits
            self._request_bucket = _bucket(
                limits.requests_per_minute, limits.minute, _BURST_REQUESTS
            )
            self._token_bucket = _bucket(limits.tokens_per_minute, limits.minute, 0)
        if (bucket := self._request_bucket) is not None:
            await bucket.acquire()
        if (bucket := self._token_bucket) is not None:
            await bucket.acquire(min(tokens * self.pace.used_share, bucket.max_rate))


def _bucket(limit: float | None, minute: float, least: float) -> AsyncLimiter | None:
    """A bucket that leaks ``limit`` a minute and takes a small burst at once."""
    if limit is None:
        return None
    burst = max(limit * _BURST_SHARE, min(limit, least), 1.0)
    return AsyncLimiter(burst, burst / limit * minute)
