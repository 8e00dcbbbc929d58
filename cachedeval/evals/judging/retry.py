"""One judgement, over as many attempts as it takes and the policy allows."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    wait_exponential,
    wait_random,
)

from cachedeval.evals.judging.failures import BadRequest, BadVerdict, Failure, RateLimited, TimedOut
from cachedeval.evals.judging.policy import Retry
from cachedeval.evals.limiting.limits import RateHeaders
from cachedeval.evals.limiting.throttle import Throttle
from cachedeval.evals.providers import ChatProvider, ChatReply, ChatRequest

__all__ = ["Retry", "judge"]


async def judge(
    client: ChatProvider,
    throttle: Throttle,
    policy: Retry,
    request: ChatRequest,
    check: Callable[[ChatReply], object],
) -> ChatReply:
    """Ask a judge until its reply holds, within the service's limits.

    Args:
        client: Who is asked.
        throttle: The service's limits, shared by all calls to it.
        policy: How often and how long.
        request: What is asked.
        check: Raises `BadVerdict` for a reply that is no verdict.

    Raises:
        Failure: The last attempt's, with how many there were and the reply, if any, in it.
    """
    async with throttle.slot():
        judgement = _Judgement(client, throttle, policy)
        # One object a call: tasks that share one mix up their attempts.
        retrying = AsyncRetrying(
            retry=retry_if_exception(judgement.goes_on),
            wait=judgement.wait,
            stop=judgement.ends,
            reraise=True,
        )
        try:
            return await retrying(judgement.attempt, request, check)
        except Failure as failure:
            failure.attempts = judgement.attempts
            throttle.gave_up(failure)
            raise


class _Judgement:
    """The state of one judgement between its attempts."""

    def __init__(self, client: ChatProvider, throttle: Throttle, policy: Retry) -> None:
        self.client = client
        self.throttle = throttle
        self.policy = policy
        self.attempts = 0
        self.busy = 0.0
        self._failed: Counter[str] = Counter()
        self._exponential = wait_exponential(
            multiplier=policy.first_wait, max=policy.longest_wait
        ) + wait_random(0, policy.first_wait)

    async def attempt(
        self, request: ChatRequest, check: Callable[[ChatReply], object]
    ) -> ChatReply:
        """Ask once, or twice where the service turns ``response_format`` down."""
        self.attempts += 1
        if request.response_format is None or not self.client.takes_schema:
            return await self._ask(_plain(request), check)
        try:
            return await self._ask(request, check)
        except BadRequest as failure:
            try:
                reply = await self._ask(_plain(request), check)
            except BadRequest:
                raise failure from None  # it was not the schema
            self.client.takes_schema = False
            return reply

    def goes_on(self, error: BaseException) -> bool:
        """Whether another attempt follows this error."""
        if not isinstance(error, Failure) or error.final:
            return False
        self._failed[error.kind] += 1
        return (
            self._failed[error.kind] < error.most_attempts
            and self.attempts < self.policy.attempts
            and self.busy < self.policy.total
        )

    def wait(self, state: RetryCallState) -> float:
        """Seconds until the next attempt stands in line again."""
        failure = state.outcome.exception() if state.outcome else None
        if isinstance(failure, RateLimited | BadVerdict):
            return 0.0  # all wait, at the throttle; a bad verdict says nothing of the service
        if isinstance(failure, Failure) and failure.retry_after:  # 0 would be ten tries at once
            return failure.retry_after
        return self._exponential(state)

    def ends(self, state: RetryCallState) -> bool:
        """Whether the wait would be longer than the time that is left; it counts to it."""
        self.busy += state.upcoming_sleep
        return self.busy >= self.policy.total

    async def _ask(self, request: ChatRequest, check: Callable[[ChatReply], object]) -> ChatReply:
        throttle = self.throttle
        ticket = await throttle.reserve(
            request.messages, request.max_completion_tokens, again=self.attempts > 1
        )
        deadline = min(self.policy.deadline, self.policy.total - self.busy)
        began = time.monotonic()
        try:
            reply = await self._complete(request, max(deadline, 0.0))
        except RateLimited as failure:
            throttle.rejected(ticket, failure, RateHeaders.read(failure.headers))
            raise
        except Failure as failure:
            throttle.failed(failure)
            raise
        finally:
            self.busy += time.monotonic() - began
        throttle.answered(
            ticket, reply.prompt_tokens, reply.completion_tokens, RateHeaders.read(reply.headers)
        )
        try:
            check(reply)
        except BadVerdict as error:
            bad = error
        else:
            return reply
        bad.redact(self.client.redact)
        throttle.failed(bad)
        raise bad  # here, where what it arose from is not its context

    async def _complete(self, request: ChatRequest, deadline: float) -> ChatReply:
        try:
            async with asyncio.timeout(deadline):
                return await self.client.complete(request)
        except TimeoutError:
            pass
        raise TimedOut(f"{self.client.name} gave no reply in {deadline:g} s")


def _plain(request: ChatRequest) -> ChatRequest:
    return request if request.response_format is None else replace(request, response_format=None)
