"""A judge over HTTP as a step uses it: from a rubric and an answer to a reply that is a verdict."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from cachedeval.evals.judging.errors import InvalidVerdictError
from cachedeval.evals.judging.options import SCHEMA, without
from cachedeval.evals.judging.prompt import Item, item_id, render_messages
from cachedeval.evals.judging.rubric import Rubric
from cachedeval.evals.judging.settings import JudgeSettings
from cachedeval.evals.judging.spec import JudgeSpec
from cachedeval.evals.judging.verdict import Verdict, parse_verdict, response_format
from cachedeval.services.chat import ChatReply, ChatRequest
from cachedeval.services.client import open_service
from cachedeval.services.parameters import RefusedParameters
from cachedeval.services.usage import ServiceUsage

__all__ = ["JudgeClient"]


class JudgeClient:
    """Asks one judge for verdicts. Belongs to one event loop.

    Args:
        spec: The judge.
        settings: Its limits, retries and prices.
        environ: Where key and base URL are looked up: `os.environ`.
        optional: The parameters that are left out where the service refuses them.
        refused: Those that it refuses, as far as that is known.
        on_refused: Called with all of them when there are more.
        usage: Where to count what goes over the wire.

    Raises:
        InputError: The key is missing or malformed.
    """

    def __init__(
        self,
        spec: JudgeSpec,
        settings: JudgeSettings,
        environ: Mapping[str, str],
        *,
        optional: frozenset[str] = frozenset(),
        refused: frozenset[str] = frozenset(),
        on_refused: Callable[[frozenset[str]], None] | None = None,
        usage: ServiceUsage | None = None,
    ) -> None:
        self._model = spec.model
        self._optional = optional
        self._service = open_service(
            spec.service,
            environ,
            settings.limits_for(spec, environ),
            settings.retry,
            refused=RefusedParameters(refused, on_refused),
            usage=usage,
        )

    async def ask(
        self,
        rubric: Rubric,
        question: str,
        reference: str | None,
        response: str,
        parameters: Mapping[str, Any],
    ) -> tuple[ChatReply, dict[str, Any]]:
        """Return a reply that holds a verdict on the response, and the parameters that were sent.

        Args:
            rubric: What is scored.
            question: What was asked.
            reference: The right answer, where there is one.
            response: What was answered.
            parameters: As `JudgeOptions.parameters` returns them.

        Raises:
            ServiceError: There is none; its type says why.
        """
        item = Item(question, reference, response)

        def read(reply: ChatReply) -> Verdict:
            try:
                return parse_verdict(reply.content, rubric.criteria, item)
            except InvalidVerdictError as error:
                if reply.finish_reason == "length":
                    error.args = (f"{error} ({_cut(parameters)})",)
                raise
            except (ArithmeticError, RecursionError, ValueError) as error:
                why = type(error).__name__
            raise InvalidVerdictError(
                f"no verdict on item {item_id(*item)}: reading it: {why}", reply=reply.content
            )

        fields = dict(parameters)
        schema = fields.pop("response_format", None)
        request = ChatRequest(
            model=self._model,
            messages=tuple(render_messages(rubric, question, reference, response)),
            max_completion_tokens=fields.pop("max_completion_tokens", None),
            temperature=fields.pop("temperature", None),
            seed=fields.pop("seed", None),
            response_format=response_format(rubric) if schema == SCHEMA else schema,
            extra=fields,
            optional=self._optional,
        )
        reply = await self._service.complete(request, read)
        # The reply was read as it came. It is stored, so the key must not be in it.
        stored = replace(reply, content=self._service.redact(reply.content))
        if stored != reply and not _same_scores(read, stored, reply):
            raise InvalidVerdictError(
                f"no verdict on item {item_id(*item)}: the reply repeats the API key"
            )
        return stored, without(parameters, reply.left_out)

    def close(self) -> None:
        """Close the connections, from any thread."""
        self._service.close()


def _same_scores(read: Callable[[ChatReply], Verdict], one: ChatReply, other: ChatReply) -> bool:
    try:
        return read(one).scores == read(other).scores
    except InvalidVerdictError:
        return False


def _cut(parameters: Mapping[str, Any]) -> str:
    bound = parameters.get("max_completion_tokens")
    at = "" if bound is None else f" at {bound:,} tokens"
    return (
        f"the reply was cut off{at}: raise --judge-max-tokens, or max_completion_tokens in the"
        " [judge] table of the settings"
    )
