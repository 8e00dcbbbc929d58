"""A judge over HTTP as a step uses it: from a rubric and an answer to a reply that is a verdict."""

import os
from collections.abc import Callable
from dataclasses import replace

from cachedeval.evals.judging.errors import InvalidVerdictError
from cachedeval.evals.judging.prompt import Item, item_id, render_messages
from cachedeval.evals.judging.rubric import Rubric
from cachedeval.evals.judging.settings import JudgeSettings
from cachedeval.evals.judging.spec import JudgeSpec
from cachedeval.evals.judging.verdict import Verdict, parse_verdict, response_format
from cachedeval.services.chat import ChatReply, ChatRequest
from cachedeval.services.client import open_service

__all__ = ["JudgeClient"]


class JudgeClient:
    """Asks one judge for verdicts. Belongs to one event loop.

    Args:
        spec: The judge.
        settings: Its limits, retries and prices.

    Raises:
        InputError: The key is missing or malformed.
    """

    def __init__(self, spec: JudgeSpec, settings: JudgeSettings) -> None:
        limits = settings.limits_for(spec, os.environ)
        self._model = spec.model
        self._service = open_service(spec.service, os.environ, limits, settings.retry)

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
            ServiceError: There is none; its type says why.
        """
        item = Item(question, reference, response)

        def read(reply: ChatReply) -> Verdict:
            try:
                return parse_verdict(
                    reply.content, rubric.criteria, item, finish_reason=reply.finish_reason
                )
            except (ArithmeticError, RecursionError, ValueError) as error:
                why = type(error).__name__
            raise InvalidVerdictError(
                f"no verdict on item {item_id(*item)}: reading it: {why}", reply=reply.content
            )

        request = ChatRequest(
            model=self._model,
            messages=tuple(render_messages(rubric, question, reference, response)),
            max_completion_tokens=max_completion_tokens,
            temperature=temperature,
            seed=seed,
            response_format=response_format(rubric),
        )
        reply = await self._service.complete(request, read)
        # The reply was read as it came. It is stored, so the key must not be in it.
        stored = replace(reply, content=self._service.redact(reply.content))
        if stored != reply and not _same_scores(read, stored, reply):
            raise InvalidVerdictError(f"no verdict on item {item}: the reply repeats the API key")
        return stored

    def close(self) -> None:
        """Close the connections, from any thread."""
        self._service.close()


def _same_scores(read: Callable[[ChatReply], Verdict], one: ChatReply, other: ChatReply) -> bool:
    try:
        return read(one).scores == read(other).scores
    except InvalidVerdictError:
        return False
