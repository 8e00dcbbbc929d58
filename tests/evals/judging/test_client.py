"""A judge as a step meets it: the real client and the real SDK, against a server on loopback."""

import asyncio
import os
from collections.abc import Iterator

import pytest
from support.judge_http import Answer, Received, completion
from support.judge_server import JudgeServer

from cachedeval.engine.errors import InputError
from cachedeval.evals.judging.client import JudgeClient
from cachedeval.evals.judging.errors import InvalidVerdictError
from cachedeval.evals.judging.options import JudgeOptions
from cachedeval.evals.judging.prompt import Item, render_messages
from cachedeval.evals.judging.rubric import load_rubric
from cachedeval.evals.judging.settings import JudgeSettings
from cachedeval.evals.judging.spec import parse_judge
from cachedeval.evals.judging.verdict import parse_verdict, response_format
from cachedeval.services.chat import ChatReply

RUBRIC = load_rubric("default")
ITEM = ("Why?", "So.", "Because.")
PARAMETERS = JudgeOptions(max_completion_tokens=99).parameters(seed=3)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    with JudgeServer() as server:
        monkeypatch.setenv("CEREBRAS_BASE_URL", server.url)
        monkeypatch.setenv("CEREBRAS_API_KEY", "key")
        yield server


async def ask(client: JudgeClient) -> ChatReply:
    reply, sent = await client.ask(RUBRIC, *ITEM, PARAMETERS)
    assert sent == PARAMETERS
    return reply


def opened() -> JudgeClient:
    return JudgeClient(parse_judge("cerebras:m"), JudgeSettings(), os.environ)


async def closed(client: JudgeClient) -> None:
    client.close()
    assert client._service._closing is not None
    await client._service._closing


async def test_it_asks_what_the_rubric_says_and_returns_a_verdict(server: JudgeServer) -> None:
    client = opened()
    reply = await ask(client)
    await closed(client)
    verdict = parse_verdict(reply.content, RUBRIC.criteria, Item(*ITEM))
    assert len(verdict.scores) == 4
    assert reply.prompt_tokens > 0
    (sent,) = server.requests
    assert sent.body["messages"] == render_messages(RUBRIC, *ITEM)
    assert sent.body["response_format"] == response_format(RUBRIC)
    told = ("model", "temperature", "seed", "max_completion_tokens")
    assert [sent.body[name] for name in told] == ["m", 0.0, 3, 99]


async def test_a_reply_without_a_verdict_is_asked_for_again_and_never_returned(
    server: JudgeServer,
) -> None:
    def prose(got: Received) -> Answer:
        return Answer(200, completion(got, "I like it."))

    server.script = lambda got: prose(got) if got.number == 0 else None
    client = opened()
    reply = await ask(client)
    assert server.calls == 2
    assert "scores" in reply.content
    server.script = prose
    with pytest.raises(InvalidVerdictError) as raised:
        await ask(client)
    assert raised.value.reply == "I like it."
    await closed(client)


def test_it_is_closed_from_another_thread_or_after_its_loop(server: JudgeServer) -> None:
    async def main() -> JudgeClient:
        client = opened()
        await ask(client)
        await asyncio.to_thread(client.close)
        return client

    client = asyncio.run(main())
    client.close()
    assert server.calls == 1


async def test_without_a_key_it_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CEREBRAS_API_KEY", raising=False)
    with pytest.raises(InputError, match="CEREBRAS_API_KEY"):
        opened()
