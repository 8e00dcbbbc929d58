"""A service as a step uses it: the provider's client behind rate limiter, retries, circuit breaker."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    wait_exponential,
    wait_random,
)

from cachedeval.engine.log import logger
from cachedeval.services.chat import ChatClient, ChatReply, ChatRequest
from cachedeval.services.clients import open_client
from cachedeval.services.errors import (
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    InternalServerError,
    InvalidContentError,
    RateLimitError,
    ServiceError,
)
from cachedeval.services.limiter import RateLimiter
from cachedeval.services.limits import Limits, RateHeaders
from cachedeval.services.parameters import FirstReply, RefusedParameters
from cachedeval.services.retry import RetryPolicy
from cachedeval.services.spec import ServiceSpec
from cachedeval.services.usage import ServiceUsage

__all__ = [
    "CircuitBreaker",
    "PromptEstimate",
    "RetryState",
    "ServiceClient",
    "open_service",
]

_UNANSWERED = 20
"""After so many calls without any reply ever, there is no service: the rest are not tried."""

_WRONG_ENDPOINT = 3
"""After so many calls that say that this is no such service, and no reply ever, the run ends."""

_OVERLOADED = (503, 529)

_PASSING = (InternalServerError, APIConnectionError, APITimeoutError)
"""Errors that are retried over minutes, which a user should know of."""

_LONG_WAIT = 10.0
"""Seconds that a 429 asks to wait from which on a user should know of it."""

_BYTES_PER_TOKEN = 3.0
_TOKENS_PER_MESSAGE = 8
"""A first estimate of a prompt's tokens, on the high side for English; replies correct it."""

_UNBOUNDED = 2048
"""Tokens that are reserved for a reply without a bound."""

_LEARNING = 0.2

Check = Callable[[ChatReply], object]
"""Raises `InvalidContentError` for a reply that the caller cannot use."""


class CircuitBreaker:
    """Stops all further calls once it is known that every one of them would fail.

    Args:
        patience: How many calls may end without any reply ever before that is known.
    """

    def __init__(self, patience: int = _UNANSWERED) -> None:
        self._patience = patience
        self._open: ServiceError | None = None
        self._replied = self._completed = False
        self._unanswered = self._wrong = 0

    def check(self) -> None:
        """Do nothing while calls may be made.

        Raises:
            ServiceError: The breaker is open. The error has the type and the message of the one
                that opened it.
        """
        cause = self._open
        if cause is None:
            return
        message = str(cause)
        if not cause.fatal:
            message += "; it never answered, so this was not sent"
        again = type(cause)(message, status=cause.status)
        again.final = True
        again.fatal = cause.fatal
        raise again

    def succeeded(self) -> None:
        """Record that a completion arrived."""
        self._replied = self._completed = True

    def attempt_failed(self, error: ServiceError) -> None:
        """Record the error of one attempt."""
        self._replied = self._replied or error.status is not None
        if error.fatal:
            self._open = self._open or error

    def call_failed(self, error: ServiceError) -> None:
        """Record the error that a call ended with, after its last attempt."""
        if not self._replied:
            self._unanswered += 1
            if self._unanswered >= self._patience:
                self._open = self._open or error
        if error.wrong_endpoint and not self._completed:
            self._wrong += 1
            if self._wrong >= _WRONG_ENDPOINT:
                error.fatal = True
                self._open = self._open or error


class PromptEstimate:
    """Estimates a prompt's tokens from its bytes, and learns from the replies."""

    def __init__(self) -> None:
        self._scale = 1.0

    def tokens(self, messages: Sequence[Mapping[str, str]]) -> int:
        """Return the estimate, as the service is likely to count."""
        return math.ceil(_plain_estimate(messages) * self._scale)

    def learn(self, messages: Sequence[Mapping[str, str]], counted: int) -> None:
        """Correct the estimate by what the service counted; 0 means that it did not say."""
        plain = _plain_estimate(messages)
        if plain > 0 and counted > 0:
            self._scale += _LEARNING * (counted / plain - self._scale)


def _plain_estimate(messages: Sequence[Mapping[str, str]]) -> float:
    content = sum(len(message["content"].encode()) for message in messages)
    return content / _BYTES_PER_TOKEN + _TOKENS_PER_MESSAGE * len(messages)


class RetryState:
    """The attempts of one call, and when tenacity makes the next one.

    Args:
        policy: How often and how long the call is retried.

    Attributes:
        attempts: How many there were.
        busy: Seconds that they took, with the waits between them.
        last: The error of the last one, or None.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy = policy
        self.attempts = 0
        self.busy = 0.0
        self.last: ServiceError | None = None
        self._failed: Counter[str] = Counter()
        self._backoff = wait_exponential(
            multiplier=policy.wait_initial, max=policy.wait_max
        ) + wait_random(0, policy.wait_initial)

    def retrying(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> AsyncRetrying:
        """Return what makes the attempts; one object a call, since it holds the call's state."""
        return AsyncRetrying(
            sleep=sleep,
            retry=retry_if_exception(self.should_retry),
            wait=self.wait,
            stop=self.stop,
            reraise=True,
        )

    @property
    def timeout(self) -> float:
        """Seconds that the next attempt may take."""
        return max(min(self.policy.timeout, self.policy.total_timeout - self.busy), 0.0)

    def should_retry(self, error: BaseException) -> bool:
        """Say whether another attempt may follow an error."""
        if not isinstance(error, ServiceError):
            return False
        self.last = error
        self._failed[error.kind] += 1
        return (
            not error.final
            and self._failed[error.kind] < error.max_attempts
            and self.attempts < self.policy.attempts
        )

    def wait(self, state: RetryCallState) -> float:
        """Return the seconds until the next attempt."""
        error = self.last
        if isinstance(error, RateLimitError | InvalidContentError):
            return 0.0  # all wait, at the rate limiter; bad content says nothing of the service
        if error is not None and error.retry_after:  # 0 would be all attempts at once
            return error.retry_after
        return self._backoff(state)

    def stop(self, state: RetryCallState) -> bool:
        """Say whether the next wait would go over the total time; it counts towards it."""
        self.busy += state.upcoming_sleep
        return self.busy >= self.policy.total_timeout


class ServiceClient:
    """Completes chats, within the service's limits and over as many attempts as it takes.

    Args:
        client: The provider's client.
        limits: What the service allows.
        policy: How often and how long a call is retried.
        refused: The optional parameters that the service is known to refuse.
        usage: Where to count what goes over the wire.

    Belongs to one event loop.
    """

    def __init__(
        self,
        client: ChatClient,
        limits: Limits,
        policy: RetryPolicy,
        *,
        refused: RefusedParameters | None = None,
        usage: ServiceUsage | None = None,
    ) -> None:
        self.client = client
        self.limiter = RateLimiter(limits)
        self.usage = ServiceUsage() if usage is None else usage
        self.refused = RefusedParameters() if refused is None else refused
        self.breaker = CircuitBreaker(max(_UNANSWERED, limits.max_concurrency))
        self._policy = policy
        self._estimate = PromptEstimate()
        self._first = FirstReply()
        self._noticed: set[str] = set()
        self._closing: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def redact(self, text: str) -> str:
        """Return a text without the secrets that are sent to the service, else unaltered."""
        return self.client.redact.whole(text)

    async def complete(self, request: ChatRequest, check: Check = bool) -> ChatReply:
        """Ask until a reply passes the check.

        Args:
            request: What is asked.
            check: Raises `InvalidContentError` for a reply that cannot be used.

        Raises:
            ServiceError: The last attempt's, with the number of attempts and the reply, if any.
        """
        self._loop = asyncio.get_running_loop()
        state = RetryState(self._policy)
        retrying = state.retrying()
        async with self.limiter.slots:  # held over all attempts
            if request.optional:
                await self._first.wait()
            try:
                return await retrying(self._attempt, request, check, state)
            except ServiceError as error:
                error.attempts = state.attempts
                self.breaker.call_failed(error)
                self.limiter.wake()
                raise

    def close(self) -> None:
        """Close the connections, from any thread."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return  # nothing was sent, or the connections ended with their loop
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is loop:
            self._closing = loop.create_task(self.client.aclose())
        else:
            closing = asyncio.run_coroutine_threadsafe(self.client.aclose(), loop)
            closing.result(timeout=5)

    async def _attempt(self, request: ChatRequest, check: Check, state: RetryState) -> ChatReply:
        """Ask once, and again without the optional parameters that the service refuses."""
        state.attempts += 1
        last = state.last
        if isinstance(last, InvalidContentError) and last.correction:
            # With its number, so that no two requests are the same.
            request = request.corrected(f"(Try {state.attempts}) {last.correction}")
        asked = request.without(request.optional & self.refused.names)
        refusal: BadRequestError | None = None
        tried: frozenset[str] = frozenset()
        try:
            while True:
                try:
                    reply = await self._ask(asked, check, state)
                except BadRequestError as error:
                    names = self.refused.refused_by(error, asked)
                    if not names:
                        raise refusal or error from None  # it was for something else
                    if error.parameter is not None:
                        self.refused.add(names)
                    refusal = refusal or error
                    tried |= names
                    asked = asked.without(names)
                except InvalidContentError:
                    self.refused.add(tried)
                    raise
                else:
                    self.refused.add(tried)
                    left_out = frozenset(request.parameters().keys() - asked.parameters().keys())
                    return replace(reply, left_out=left_out)
        finally:
            self._first.arrived()

    async def _ask(self, request: ChatRequest, check: Check, state: RetryState) -> ChatReply:
        reservation = await self.limiter.reserve(
            tokens=self._estimate.tokens(request.messages)
            + (request.max_completion_tokens or _UNBOUNDED),
            retry=state.attempts > 1,
            check=self.breaker.check,
        )
        self.usage.requests += 1
        began = time.monotonic()
        try:
            reply = await self._send(request, state)
        except ServiceError as error:
            self._count(error.tokens)
            if any(error.tokens):
                self.usage.reject(*error.tokens)
            self._failed(error)
            self._notice(error, state)
            if isinstance(error, RateLimitError):
                reservation.reject(error.retry_after, RateHeaders.read(error.headers))
            raise
        finally:
            state.busy += time.monotonic() - began
        self.breaker.succeeded()
        self.refused.took(request)
        self._count((reply.prompt_tokens, reply.completion_tokens))
        self._estimate.learn(request.messages, reply.prompt_tokens)
        reservation.settle(
            reply.prompt_tokens + reply.completion_tokens, RateHeaders.read(reply.headers)
        )
        try:
            check(reply)
        except InvalidContentError as error:
            rejected = error
        else:
            return reply
        self.usage.reject(reply.prompt_tokens, reply.completion_tokens)
        rejected.redact(self.client.redact)
        self._failed(rejected)
        raise rejected  # outside of the handler, so that what caused it is not its context

    async def _send(self, request: ChatRequest, state: RetryState) -> ChatReply:
        timeout = state.timeout
        try:
            async with asyncio.timeout(timeout):
                return await self.client.complete(request)
        except TimeoutError:
            pass
        if timeout < self._policy.timeout and state.last is not None:
            # Only the rest of the total time was left: what went wrong is what did before.
            state.last.final = True
            raise state.last
        raise APITimeoutError(f"{self.client.name} gave no reply in {timeout:g} s")

    def _count(self, tokens: tuple[int, int]) -> None:
        self.usage.prompt_tokens += tokens[0]
        self.usage.completion_tokens += tokens[1]

    def _notice(self, error: ServiceError, state: RetryState) -> None:
        """Say once for each kind of failure that calls are retried."""
        long = isinstance(error, RateLimitError) and (error.retry_after or 0) >= _LONG_WAIT
        if not (isinstance(error, _PASSING) or long) or error.kind in self._noticed:
            return
        policy = self._policy
        attempts = min(policy.attempts, error.max_attempts)
        if error.final or state.attempts >= attempts:
            return
        self._noticed.add(error.kind)
        logger().warning(
            "%s; trying again, up to %d times and %g s for each call",
            error,
            attempts,
            policy.total_timeout,
        )

    def _failed(self, error: ServiceError) -> None:
        self.usage.failures[error.kind] = self.usage.failures.get(error.kind, 0) + 1
        self.breaker.attempt_failed(error)
        if error.status in _OVERLOADED:
            self.limiter.slots.shrink()
        self.limiter.wake()


def open_service(
    spec: ServiceSpec,
    environ: Mapping[str, str],
    limits: Limits,
    policy: RetryPolicy,
    *,
    refused: RefusedParameters | None = None,
    usage: ServiceUsage | None = None,
) -> ServiceClient:
    """Open a service. Nothing is sent yet, and no connection is made.

    Args:
        spec: The service and its model.
        environ: Where key and base URL are looked up: `os.environ`.
        limits: What the service allows.
        policy: How often and how long a call is retried.
        refused: The optional parameters that the service is known to refuse.
        usage: Where to count what goes over the wire.

    Raises:
        InputError: The key is missing or malformed, or the base URL is.
    """
    client = open_client(spec, environ, max_concurrency=limits.max_concurrency)
    return ServiceClient(client, limits, policy, refused=refused, usage=usage)
