"""The rate limiter: requests and tokens a minute, calls at once, and cool-downs, for any step.

It holds no event loop: tasks of several loops in several threads may share one.
"""

import asyncio
import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from cachedeval.services.limits import Limits, RateHeaders
from cachedeval.services.pacing import Pacer, Sent

__all__ = ["AdaptiveSemaphore", "RateLimiter", "Reservation"]

_LESS = 0.75

_OPENING_REQUESTS, _OPENING_SECONDS, _OPENING_LOOKS = 4, 0.02, 3
"""How many requests are sent before the first reply, and how long and how often that is awaited.

A wrong key then costs a handful of requests, and a right one a twentieth of a second. The wait is
made of short ones, each begun after the last: while the first request imports what it needs,
nothing is sent and no time counts.
"""

_NOTHING = RateHeaders()


class _Waiter:
    """A task that waits, and the loop that it waits on."""

    __slots__ = ("future", "granted", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.granted = False

    def renew(self) -> None:
        """Be ready to be woken once more."""
        self.future = self.loop.create_future()

    def wake(self) -> bool:
        """Wake the task, from any thread; returns False if its loop is closed."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(_finish, self.future)
            return True
        return False


def _finish(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


class AdaptiveSemaphore:
    """A bound on calls at once that follows what the service can take, first come first served.

    An overloaded service takes a quarter of the places away; each call that succeeds gives one
    back, up to the maximum. A call keeps its place over all its retries, so that those that were
    had to wait continue first, and new calls wait.

    Args:
        maximum: The most calls at once.

    Thread safety: tasks of several event loops may share one.

    Example:
        >>> async def call(semaphore: AdaptiveSemaphore) -> None:
        ...     async with semaphore:
        ...         ...
    """

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.limit = float(maximum)
        self.in_use = 0
        self._waiting: deque[_Waiter] = deque()
        self._lock = threading.Lock()

    async def __aenter__(self) -> None:
        with self._lock:
            if not self._waiting and self.in_use < int(self.limit):
                self.in_use += 1
                return
            waiter = _Waiter()
            self._waiting.append(waiter)
        try:
            await waiter.future
        except asyncio.CancelledError:
            with self._lock:
                if waiter.granted:  # at the same moment
                    self.in_use -= 1
                else:
                    self._waiting.remove(waiter)
                self._grant()
            raise

    async def __aexit__(self, *exc_info: object) -> None:
        with self._lock:
            self.in_use -= 1
            self._grant()

    def grow(self) -> None:
        """Allow one more at once: a call succeeded."""
        with self._lock:
            self.limit = min(self.limit + 1, float(self.maximum))
            self._grant()

    def shrink(self) -> None:
        """Allow a quarter fewer at once: the service is overloaded."""
        with self._lock:
            self.limit = max(min(self.limit, self.in_use) * _LESS, 1.0)

    def _grant(self) -> None:
        while self._waiting and self.in_use < int(self.limit):
            waiter = self._waiting.popleft()
            if waiter.wake():
                waiter.granted = True
                self.in_use += 1


class Reservation:
    """What was reserved for one request. It counts in full until it is settled or rejected.

    Attributes:
        tokens: The tokens reserved.
    """

    def __init__(self, limiter: "RateLimiter", sent: Sent) -> None:
        self.tokens = sent.tokens
        self._limiter = limiter
        self._sent = sent

    def settle(self, tokens: float, headers: RateHeaders = _NOTHING) -> None:
        """Count the tokens that were used in place of those reserved.

        Args:
            tokens: What the request used, prompt and reply.
            headers: What the reply says about the account's limits.
        """
        self._limiter._settle(self._sent, tokens, headers)  # noqa: SLF001 -- its own

    def reject(self, retry_after: float | None = None, headers: RateHeaders = _NOTHING) -> None:
        """Make all calls wait, and allow fewer at once: the service answered 429.

        Args:
            retry_after: Seconds to wait as the service says, or None.
            headers: What the reply says about the account's limits.
        """
        self._limiter._reject(self._sent, retry_after, headers)  # noqa: SLF001 -- its own


class RateLimiter:
    """Keeps to a service's limits, for all that share it.

    Requests and tokens leave evenly, after a small burst, and within the sliding windows that the
    service counts in; what other clients of the account use is left to them; after a 429 all wait.

    Args:
        limits: What the service allows.
        clock: Seconds; replaced in tests.

    Thread safety: tasks of several event loops may share one.

    Example:
        >>> limiter = RateLimiter(Limits(requests_per_minute=60, tokens_per_minute=10_000))
        >>> async def call(prompt: str) -> int:
        ...     async with limiter.acquire(tokens=500) as reservation:
        ...         used = len(prompt)  # the request
        ...         reservation.settle(tokens=used)
        ...     return used
        >>> asyncio.run(call("hello"))
        5
    """

    def __init__(self, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.slots = AdaptiveSemaphore(limits.max_concurrency)
        self.pacer = Pacer(limits)
        self._clock = clock
        self._lock = threading.Lock()
        self._queue: list[tuple[bool, int, _Waiter]] = []
        self._number = itertools.count()
        self._looks = _OPENING_LOOKS

    @asynccontextmanager
    async def acquire(self, requests: float = 1, tokens: float = 0) -> AsyncIterator[Reservation]:
        """Wait for a place among the calls at once and for the rate; hold the place meanwhile.

        Args:
            requests: How many requests are sent.
            tokens: The most tokens that they use.

        Raises:
            QuotaExhaustedError: The day's budget is used up.
        """
        async with self.slots:
            yield await self.reserve(requests, tokens)

    async def reserve(
        self,
        requests: float = 1,
        tokens: float = 0,
        *,
        retry: bool = False,
        check: Callable[[], None] | None = None,
    ) -> Reservation:
        """Wait until a request may be sent, and count it as sent.

        Args:
            requests: How many requests are sent.
            tokens: The most tokens that they use.
            retry: Go before all that have not been sent yet.
            check: Raises an error if it must not be sent any more; called before each wait.

        Raises:
            QuotaExhaustedError: The day's budget is used up.
        """
        waiter = _Waiter()
        with self._lock:
            entry = (not retry, next(self._number), waiter)
            heapq.heappush(self._queue, entry)
        try:
            while True:
                delay = None
                with self._lock:
                    waiter.renew()
                    if self._queue[0] is entry:
                        if check is not None:
                            check()
                        delay = self._delay(tokens, requests)
                        if delay <= 0:
                            return Reservation(
                                self, self.pacer.take(self._clock(), tokens, requests)
                            )
                with suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await waiter.future
                if delay is not None:
                    with self._lock:
                        self._looks -= self._opening
        finally:
            with self._lock:
                self._leave(entry)

    def wake(self) -> None:
        """Look again at once: something is known about the service that was not known before."""
        with self._lock:
            self._looks = 0
            self._wake_first()

    def _settle(self, sent: Sent, tokens: float, headers: RateHeaders) -> None:
        with self._lock:
            self.pacer.settle(self._clock(), sent, tokens, headers)
        self.slots.grow()
        self.wake()

    def _reject(self, sent: Sent, retry_after: float | None, headers: RateHeaders) -> None:
        with self._lock:
            begun = self.pacer.reject(self._clock(), sent, retry_after, headers)
        if begun:
            self.slots.shrink()
        self.wake()

    def _delay(self, tokens: float, requests: float) -> float:
        delay = self.pacer.delay(self._clock(), tokens, requests)
        return max(delay, _OPENING_SECONDS) if self._opening else delay

    @property
    def _opening(self) -> bool:
        return self._looks > 0 and self.pacer.sent >= _OPENING_REQUESTS

    def _leave(self, entry: tuple[bool, int, _Waiter]) -> None:
        """Take an entry out of the queue, and wake the next one if it was the first."""
        if self._queue[0] is entry:
            heapq.heappop(self._queue)
            self._wake_first()
        elif entry in self._queue:
            self._queue.remove(entry)
            heapq.heapify(self._queue)

    def _wake_first(self) -> None:
        while self._queue and not self._queue[0][2].wake():
            heapq.heappop(self._queue)  # its loop ended without it
