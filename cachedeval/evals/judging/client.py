"""A judge over HTTP as a step meets it: the provider's client behind its limits and retries."""

import asyncio
import os

from cachedeval.evals.judging.prompt import Item, render_messages
from cachedeval.evals.judging.retry import judge
from cachedeval.evals.judging.rubric import Rubric
from cachedeval.evals.judging.settings import JudgeSettings
from cachedeval.evals.judging.verdict import parse_verdict, response_format
from cachedeval.evals.limiting.throttle import Throttle
from cachedeval.evals.providers import ChatReply, ChatRequest, JudgeSpec, open_provider

__all__ = ["JudgeClient"]


class JudgeClient:
    """Asks one judge for verdicts. Belongs to the event loop that it is opened on.

    Args:
        spec: the judge.
        settings: its limits, retries and prices.

    Raises:
        InputError: the key is missing.
    """

    def __init__(self, spec: JudgeSpec, settings: JudgeSettings) -> None:
        limits = settings.limits_for(spec, os.environ)
        self._loop = asyncio.get_running_loop()
        self._spec = spec
        self._policy = settings.retry
        self._throttle = Throttle(limits)
        self._provider = open_provider(spec, os.environ, max_concurrency=limits.max_concurrency)

    async def ask(
        self,
        rubric: Rubric,
        question: str,
        reference: str | None,
        response: str,
        *,
        temperature: float | None,
        max_completion_tokens: int,
        seed: int | None,
    ) -> ChatReply:
        """Return a reply that holds a verdict on the response.

        Raises:
            Failure: there is none; its type says why.
        """
        item = Item(question, reference, response)

        def check(reply: ChatReply) -> None:
            parse_verdict(reply.content, rubric.criteria, item, finish_reason=reply.finish_reason)

        request = ChatRequest(
            model=self._spec.model,
            messages=tuple(render_messages(rubric, question, reference, response)),
            max_completion_tokens=max_completion_tokens,
            temperature=temperature,
            seed=seed,
            response_format=response_format(rubric),
        )
        return await judge(self._provider, self._throttle, self._policy, request, check)

    def close(self) -> None:
        """Give the connections back, from whichever thread."""
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._loop:
            self._closing = here.create_task(self._provider.aclose())
        elif not self._loop.is_closed():
            closing = asyncio.run_coroutine_threadsafe(self._provider.aclose(), self._loop)
            closing.result(timeout=5)
