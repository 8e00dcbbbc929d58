"""A load of judgements through the real clients, limits and retries, without the engine."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

from support.judge_verdicts import verdict

from cachedeval.evals.judging.options import JudgeOptions
from cachedeval.evals.judging.prompt import Item, render_messages
from cachedeval.evals.judging.rubric import Rubric, load_rubric
from cachedeval.evals.judging.spec import parse_judge
from cachedeval.evals.judging.verdict import Verdict, parse_verdict, response_format
from cachedeval.services.chat import ChatReply, ChatRequest
from cachedeval.services.client import ServiceClient
from cachedeval.services.clients import open_client
from cachedeval.services.errors import ServiceError
from cachedeval.services.limits import Limits
from cachedeval.services.retry import RetryPolicy

KEY = "csk-a-secret-of-the-tests"


@dataclass
class Load:
    """What became of a load.

    ``verdicts`` and ``failures`` are by the question's number.
    """

    seconds: float = 0.0
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    failures: dict[int, ServiceError] = field(default_factory=dict)
    replies: dict[int, ChatReply] = field(default_factory=dict)
    misjudged: int = 0
    """Verdicts that are not the one on their own question."""
    service: ServiceClient | None = None

    @property
    def kinds(self) -> Counter[str]:
        """The failures by kind."""
        return Counter(failure.kind for failure in self.failures.values())


def request_of(
    number: int, *, model: str, rubric: Rubric, max_completion_tokens: int, words: int
) -> tuple[ChatRequest, Item]:
    """Return the request that judges a question, and the item."""
    item = (f"Question {number}: what is it?", f"It is {number}.", "word " * words + str(number))
    request = ChatRequest(
        model=model,
        messages=tuple(render_messages(rubric, *item)),
        max_completion_tokens=max_completion_tokens,
        response_format=response_format(rubric),
        optional=JudgeOptions().optional,
    )
    return request, Item(*item)


async def judge_all(
    url: str,
    questions: int,
    *,
    limits: Limits,
    policy: RetryPolicy | None = None,
    judge_name: str = "cerebras:some-model",
    max_completion_tokens: int = 256,
    words: int = 20,
    rubric_name: str = "default",
) -> Load:
    """Judge questions, all at once as far as the limits go."""
    environ = {
        "CEREBRAS_API_KEY": KEY,
        "CEREBRAS_BASE_URL": url,
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": f"{url}/v1",
    }
    rubric = load_rubric(rubric_name)
    spec = parse_judge(judge_name).service
    client = open_client(spec, environ, max_concurrency=limits.max_concurrency)
    service = ServiceClient(client, limits, policy or RetryPolicy())
    load = Load(service=service)

    async def one(number: int) -> None:
        request, item = request_of(
            number,
            model=spec.model,
            rubric=rubric,
            max_completion_tokens=max_completion_tokens,
            words=words,
        )

        def read(reply: ChatReply) -> Verdict:
            return parse_verdict(reply.content, rubric.criteria, item)

        try:
            reply = await service.complete(request, read)
        except ServiceError as failure:
            load.failures[number] = failure
            return
        load.replies[number] = reply
        load.verdicts[number] = read(reply)
        expected = verdict(request.body())["scores"]
        load.misjudged += load.verdicts[number].scores != expected

    began = time.monotonic()
    try:
        await asyncio.gather(*(one(number) for number in range(questions)))
    finally:
        await client.aclose()
    load.seconds = time.monotonic() - began
    return load
