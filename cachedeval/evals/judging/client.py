"""A judge over HTTP as a step meets it: the provider's client behind its limits and retries."""

import asyncio
import os
from dataclasses import replace

from cachedeval.evals.judging.failures import BadVerdict
from cachedeval.evals.judging.prompt import item_id, render_messages
from cachedeval.evals.judging.retry import judge
from cachedeval.evals.judging.rubric import Rubric
from cachedeval.evals.judging.settings import JudgeSettings
from cachedeval.evals.judging.verdict import Verdict, parse_verdict, response_format
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
        item = item_id(question, reference, response)

        def read(content: str, finish_reason: str) -> Verdict:
            try:
                return parse_verdict(content, rubric.criteria, item, finish_reason=finish_reason)
            except (ArithmeticError, RecursionError, ValueError) as error:
                why = type(error).__name__
            raise BadVerdict(f"no verdict on item {item}: reading it: {why}", reply=content)

        def check(reply: ChatReply) -> None:
            read(reply.content, reply.finish_reason)

        request = ChatRequest(
            model=self._spec.model,
            messages=tuple(render_messages(rubric, question, reference, response)),
            max_completion_tokens=max_completion_tokens,
            temperature=temperature,
            seed=seed,
            response_format=response_format(rubric),
        )
        reply = await judge(self._provider, self._throttle, self._policy, request, check)
        # The reply is stored. It was read as it came, and is kept without what nobody may see.
        kept = self._provider.redact.whole(reply.content)
        if kept == reply.content:
            return reply
        failure = BadVerdict(f"no verdict on item {item}: the reply repeats the API key")
        try:
            same = (
                read(kept, reply.finish_reason).scores
                == read(reply.content, reply.finish_reason).scores
            )
        except BadVerdict:
            same = False
        if not same:
            raise failure
        return replace(reply, content=kept)

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
