"""The clients against a server over real HTTP, one request at a time."""

import asyncio
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from support.judge_http import Answer
from support.judge_load import KEY
from support.judge_server import JudgeServer

from cachedeval.services.chat import ChatClient, ChatReply, ChatRequest
from cachedeval.services.clients import open_client
from cachedeval.services.errors import (
    APIConnectionError,
    AuthenticationError,
    RateLimitError,
    ServiceError,
)
from cachedeval.services.http import SmallPools, http_client
from cachedeval.services.limits import RateHeaders
from cachedeval.services.secrets import Redactor
from cachedeval.services.spec import ServiceSpec

OPEN = Redactor([])
SPECS = {
    f"{spec}": spec
    for spec in (ServiceSpec("cerebras", "some-model"), ServiceSpec("openai", "some-model"))
}
JUDGES = list(SPECS)
ASK = ChatRequest(
    model="some-model", messages=({"role": "user", "content": "Item id: 00ff00ff"},), seed=3
)


def environ(url: str) -> dict[str, str]:
    return {
        "CEREBRAS_API_KEY": KEY,
        "CEREBRAS_BASE_URL": url,
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": f"{url}/v1",
    }


async def ask(judge: str, url: str, request: ChatRequest = ASK) -> ChatReply:
    client = open_client(SPECS[judge], environ(url))
    try:
        return await client.complete(request)
    finally:
        await client.aclose()


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with JudgeServer(api_key=KEY) as server:
        yield server


@pytest.mark.parametrize("judge", JUDGES)
async def test_asks_once_and_reads_the_reply(judge: str, server: JudgeServer) -> None:
    reply = await ask(judge, server.url)
    assert '"item_id": "00ff00ff"' in reply.content
    assert reply.prompt_tokens > 0
    assert reply.completion_tokens > 0
    assert reply.finish_reason == "stop"
    assert server.calls == 1
    got = server.requests[0]
    assert got.headers["authorization"] == f"Bearer {KEY}"
    assert got.body == ASK.body()


@pytest.mark.parametrize("judge", JUDGES)
async def test_opening_makes_no_connection(judge: str, server: JudgeServer) -> None:
    client = open_client(SPECS[judge], environ(server.url))
    await asyncio.sleep(0.1)
    assert server.connections == 0
    await client.aclose()


@pytest.mark.parametrize("judge", JUDGES)
async def test_what_the_service_says_of_its_limits_comes_along(judge: str) -> None:
    headers = {"x-ratelimit-remaining-tokens-minute": "12", "Retry-After": "7"}
    answer = Answer(429, {"message": "slow"}, headers)
    with JudgeServer(script=lambda _: answer) as server, pytest.raises(RateLimitError) as raised:
        await ask(judge, server.url)
    assert raised.value.retry_after == 7
    assert RateHeaders.read(raised.value.headers).tokens_remaining == 12


@pytest.mark.parametrize("judge", JUDGES)
async def test_no_server_is_listening(judge: str) -> None:
    with JudgeServer() as server:
        url = server.url
    with pytest.raises(APIConnectionError, match=r"127\.0\.0\.1"):
        await ask(judge, url)


@pytest.mark.parametrize("judge", JUDGES)
async def test_a_reply_without_usage_or_content(judge: str) -> None:
    answer = Answer(200, {"choices": [{"message": {"content": None}, "finish_reason": "length"}]})
    with JudgeServer(script=lambda _: answer) as server:
        reply = await ask(judge, server.url)
    assert replace(reply, headers={}) == ChatReply("", finish_reason="length")


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"choices": []}', b'{"choices": [{}]}', b"\xff", b"data: {}\n\n"]
)
async def test_what_is_no_completion_is_an_invalid_reply(judge: str, body: bytes) -> None:
    answer = Answer(200, body)
    with JudgeServer(script=lambda _: answer) as server, pytest.raises(ServiceError) as raised:
        await ask(judge, server.url)
    assert raised.value.kind == "invalid_reply"
    assert raised.value.max_attempts == 1


@pytest.mark.parametrize("judge", JUDGES)
async def test_the_key_is_nowhere_to_be_seen(
    judge: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CEREBRAS_LOG", raising=False)
    caplog.set_level(logging.DEBUG)
    seen = []
    client: ChatClient
    for status in (200, 400, 401, 429, 500):
        repeats_it = Answer(status, {"message": f"Incorrect API key provided: {KEY}"})
        with JudgeServer(script=lambda _, answer=repeats_it: answer) as server:  # type: ignore[misc] # the loop's own
            client = open_client(SPECS[judge], environ(server.url))
            with pytest.raises(ServiceError) as raised:
                await client.complete(ASK)
            await client.aclose()
        error: BaseException | None = raised.value
        while error is not None:
            seen += [str(error), repr(error), repr(vars(error))]
            error = error.__cause__
        seen += [repr(client), str(client), client.name]
    seen += [record.getMessage() for record in caplog.records]
    assert len(caplog.records) > 5
    assert not [text for text in seen if KEY in text or KEY[4:] in text]


async def test_the_sdk_is_not_retrying_by_itself() -> None:
    with JudgeServer(script=lambda _: 503) as server:
        with pytest.raises(ServiceError):
            await ask("cerebras:some-model", server.url)
        assert server.calls == 1


@pytest.mark.parametrize("judge", JUDGES)
async def test_connections_are_reused(judge: str, server: JudgeServer) -> None:
    client = open_client(SPECS[judge], environ(server.url), max_concurrency=25)
    for _ in range(4):
        await asyncio.gather(*(client.complete(ASK) for _ in range(25)))
    await client.aclose()
    assert server.calls == 100
    assert server.connections <= 35


async def test_many_requests_at_once_cost_little_each() -> None:
    with JudgeServer() as server:
        client = open_client(SPECS["openai:some-model"], environ(server.url), max_concurrency=100)
        began = time.process_time()
        for _ in range(3):
            await asyncio.gather(*(client.complete(ASK) for _ in range(100)))
        await client.aclose()
    # One pool of a hundred takes over 5 ms each; client and server together take 2.
    assert (time.process_time() - began) / 300 < 0.005


async def test_a_proxy_of_the_environment_is_used_but_not_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    away, here = (
        http_client("https://example.com", 4, OPEN),
        http_client("http://127.0.0.1:1", 4, OPEN),
    )
    assert not isinstance(away._transport, SmallPools)
    assert isinstance(here._transport, SmallPools)
    await away.aclose()
    await here.aclose()


@pytest.mark.parametrize("judge", JUDGES)
async def test_a_wrong_key(judge: str) -> None:
    with JudgeServer(api_key="another") as server, pytest.raises(AuthenticationError) as raised:
        await ask(judge, server.url)
    assert raised.value.fatal
    assert str(os.getpid()) not in str(raised.value)
