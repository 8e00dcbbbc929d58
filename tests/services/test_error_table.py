"""The table of failures, row by row, through the real clients against a real server.

Each row says what the service answers to every question, how a report counts it, how often each of
the questions is asked, and whether the run ends.
"""

import asyncio
import json
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator

import pytest
from support.judge_http import Answer, Received, completion
from support.judge_load import judge_all
from support.judge_server import JudgeServer
from support.judge_verdicts import verdict_text
from support.raw_server import RawRequest, RawServer, http

from cachedeval.services.chat import ChatReply, ChatRequest
from cachedeval.services.clients import open_client
from cachedeval.services.errors import ServiceError
from cachedeval.services.limits import Limits
from cachedeval.services.retry import RetryPolicy
from cachedeval.services.spec import ServiceSpec

pytestmark = pytest.mark.slow

SPECS = {"cerebras:m": ServiceSpec("cerebras", "m"), "openai:m": ServiceSpec("openai", "m")}
JUDGES = list(SPECS)
POLICY = RetryPolicy(attempts=3, timeout=1.0, wait_initial=0.001, wait_max=0.002, total_timeout=8.0)
ASK = ChatRequest(model="m", messages=({"role": "user", "content": "hi"},))
HTML = b"<!doctype html><html><head><title>Sign in to the guest network</title></head></html>"


def said(message: str, **more: object) -> bytes:
    return json.dumps({"error": {"message": message, **more}}).encode()


def answered(**choice: object) -> bytes:
    whole = {"finish_reason": "stop", "message": {"content": "x"}, **choice}
    return json.dumps({"choices": [whole]}).encode()


ONCE, RETRIED, TWICE = 1, 3, 2
QUESTIONS = 6

# name: answer, kind, attempts of each question, ends the run, words in the message
Row = tuple[Answer, str, int, bool, str]
TABLE: dict[str, Row] = {
    "400": (Answer(400, said("no such field")), "bad_request", TWICE, False, "no such field"),
    "400 too long": (
        *(Answer(400, said("long", code="context_length_exceeded")), "prompt_too_long"),
        *(ONCE, False, "long"),
    ),
    "400 key": (
        Answer(400, said("bad key", code="invalid_api_key")), "unauthorised", ONCE, True, "bad key",
    ),
    "400 filter": (
        Answer(400, said("filtered", code="content_filter")), "refused", ONCE, False, "filtered",
    ),
    "401": (Answer(401, said("who are you")), "unauthorised", ONCE, True, "who are you"),
    "402": (Answer(402, said("pay")), "payment_required", ONCE, True, "pay (add credit"),
    "403": (Answer(403, said("not you")), "unauthorised", ONCE, True, "not you"),
    "404": (Answer(404, HTML), "not_found", ONCE, True, "'Sign in to the guest network'"),
    "404 model": (
        Answer(404, said("The model `m` does not exist")), "no_such_model", ONCE, True, "`m`",
    ),
    "408": (Answer(408, said("slow")), "timed_out", RETRIED, False, "slow"),
    "413": (Answer(413, b""), "prompt_too_long", ONCE, False, "413"),
    "422": (Answer(422, said("what")), "bad_request", TWICE, False, "what"),
    "429": (Answer(429, said("easy")), "rate_limited", RETRIED, False, "easy"),
    "429 code": (
        Answer(429, said("easy", code="rate_limit_exceeded", type="insufficient_quota")),
        *("rate_limited", RETRIED, False, "easy"),
    ),
    "429 quota": (
        Answer(429, said("You exceeded your current quota", code="insufficient_quota")),
        *("payment_required", ONCE, True, "You exceeded your current quota"),
    ),
    "429 quota by type": (
        Answer(429, said("quota", type="insufficient_quota", code=None)),
        *("payment_required", ONCE, True, "quota"),
    ),
    "500": (Answer(500, said("oh")), "server_error", RETRIED, False, "oh"),
    "501": (Answer(501, said("not here")), "bad_request", TWICE, False, "not here"),
    "502 page": (Answer(502, HTML), "server_error", RETRIED, False, "'Sign in"),
    "503": (Answer(503, b"busy"), "server_error", RETRIED, False, "busy"),
    "307": (
        Answer(307, b"", {"location": "https://elsewhere.example/v1"}),
        *("redirected", ONCE, True, "https://elsewhere.example/v1"),
    ),
    "301": (Answer(301, HTML, {"location": "/x"}), "redirected", ONCE, True, "Sign in"),
    "200 error": (Answer(200, said("it broke")), "invalid_reply", ONCE, False, "it broke"),
    "200 error text": (
        Answer(200, b'{"error": "it broke"}'), "invalid_reply", ONCE, False, "it broke",
    ),
    "200 error and choices": (
        Answer(200, b'{"error": {"message": "cut"}, "choices": []}'),
        *("invalid_reply", ONCE, False, "cut"),
    ),
    "200 error in the choice": (
        Answer(200, answered(error={"message": "upstream", "code": 502})),
        *("server_error", RETRIED, False, "upstream"),
    ),
    "200 error 401": (Answer(200, said("key", code=401)), "unauthorised", ONCE, True, "key"),
    "200 error 429": (Answer(200, said("easy", code=429)), "rate_limited", RETRIED, False, "easy"),
    "200 error quota": (
        Answer(200, said("broke", code="insufficient_quota")),
        *("payment_required", ONCE, True, "broke"),
    ),
    "200 page": (Answer(200, HTML), "invalid_reply", ONCE, True, "'Sign in to the guest network'"),
    "200 text": (Answer(200, b"It works!"), "invalid_reply", ONCE, True, "It works!"),
    "200 nothing": (Answer(200, b""), "invalid_reply", ONCE, True, "nothing"),
    "200 list": (Answer(200, b"[]"), "invalid_reply", ONCE, True, "base URL"),
    "200 stream": (Answer(200, b"data: {}\n\n"), "invalid_reply", ONCE, True, "data:"),
    "200 no choice": (Answer(200, b'{"choices": []}'), "invalid_reply", ONCE, True, "no choice"),
    "200 begun": (
        Answer(200, answered()[:30]), "connection_failed", RETRIED, False, "broke off",
    ),
    "200 refusal": (
        Answer(200, answered(message={"refusal": "I won't"})), "refused", ONCE, False, "I won't",
    ),
    "200 no verdict": (Answer(200, answered()), "bad_verdict", RETRIED, False, "verdict"),
}  # fmt: skip


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("row", TABLE)
def test_a_row_of_the_table(row: str, judge: str) -> None:
    answer, kind, attempts, ends, words = TABLE[row]
    with JudgeServer(script=lambda _: answer) as server:
        limits = Limits(max_concurrency=1, minute=0.001)
        done = asyncio.run(
            judge_all(server.url, QUESTIONS, limits=limits, policy=POLICY, judge_name=judge)
        )
    assert done.kinds == {kind: QUESTIONS}
    assert {failure.fatal for failure in list(done.failures.values())[3:]} == {ends}
    if ends:
        assert server.calls <= 3  # one learns it for all; of what may be chance, three do
    else:
        assert server.calls == attempts * QUESTIONS
    for failure in done.failures.values():
        assert words in str(failure)
        assert "\n" not in str(failure)
        assert "<" not in str(failure)


@pytest.mark.parametrize("judge", JUDGES)
def test_a_service_that_has_answered_is_not_given_up_for_a_page(judge: str) -> None:
    page = Answer(200, HTML)
    with JudgeServer(script=lambda got: page if 0 < got.number < 8 else None) as server:
        limits = Limits(max_concurrency=1)
        done = asyncio.run(
            judge_all(server.url, 10, limits=limits, policy=POLICY, judge_name=judge)
        )
    assert (len(done.verdicts), done.kinds) == (3, {"invalid_reply": 7})
    assert server.calls == 10


@pytest.mark.parametrize("judge", JUDGES)
def test_a_redirect_is_not_followed_with_the_key(judge: str) -> None:
    with (
        JudgeServer() as other,
        JudgeServer(
            script=lambda _: Answer(307, b"", {"location": f"{other.url}/v1/chat/completions"})
        ) as server,
    ):
        done = asyncio.run(
            judge_all(server.url, 1, limits=Limits(), policy=POLICY, judge_name=judge)
        )
    assert done.kinds == {"redirected": 1}
    assert other.connections == 0


async def ask(judge: str, url: str) -> ChatReply:
    environ = {
        "CEREBRAS_API_KEY": "csk-0123456789",
        "CEREBRAS_BASE_URL": url,
        "OPENAI_BASE_URL": f"{url}/v1",
    }
    client = open_client(SPECS[judge], environ)
    try:
        async with asyncio.timeout(20):
            return await client.complete(ASK)
    finally:
        await client.aclose()


VERDICT = '{"scores": {"a": 1}}'


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": [{"type": "text", "text": VERDICT}]}, VERDICT),
        ({"content": [{"type": "text", "text": '{"scores": '}, {"text": '{"a": 1}}'}]}, VERDICT),
        ({"content": [VERDICT]}, VERDICT),
        ({"content": [{"type": "thinking", "thinking": "hm"}, {"text": VERDICT}]}, VERDICT),
        ({"content": [{"type": "image_url", "image_url": {"url": "x"}}]}, ""),
        ({"content": None, "reasoning_content": VERDICT}, VERDICT),
        ({"content": "", "reasoning": VERDICT}, VERDICT),
        ({"content": " \n", "reasoning_content": None, "reasoning": VERDICT}, VERDICT),
        ({"content": VERDICT, "reasoning_content": "hm"}, VERDICT),
        ({"content": VERDICT, "refusal": None, "tool_calls": []}, VERDICT),
        ({"content": None, "reasoning_content": {"odd": 1}}, ""),
        ({"content": 5}, ""),
        ({}, ""),
    ],
)
async def test_a_messages_text_is_read_in_every_form(
    message: dict[str, object], text: str, judge: str
) -> None:
    with JudgeServer(script=lambda _: Answer(200, answered(message=message))) as server:
        assert (await ask(judge, server.url)).content == text


async def test_a_thought_that_was_cut_off_is_no_reply() -> None:
    cut = answered(message={"content": None, "reasoning": VERDICT}, finish_reason="length")
    with JudgeServer(script=lambda _: Answer(200, cut)) as server:
        reply = await ask("openai:m", server.url)
    assert (reply.content, reply.finish_reason) == ("", "length")


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ("null", (0, 0)),
        ("[]", (0, 0)),
        ('{"prompt_tokens": -5, "completion_tokens": -1000000000000000000}', (0, 0)),
        ('{"prompt_tokens": 1000000000000000000, "completion_tokens": 3}', (0, 3)),
        ('{"prompt_tokens": ' + "9" * 400 + ', "completion_tokens": 3}', (0, 3)),
        ('{"prompt_tokens": 1e999, "completion_tokens": 3.0}', (0, 3)),
        ('{"prompt_tokens": "5", "completion_tokens": true}', (0, 0)),
        ('{"prompt_tokens": 5, "completion_tokens": 7, "details": {"a": [1]}}', (5, 7)),
    ],
)
async def test_a_count_that_is_none_costs_no_verdict(
    usage: str, counted: tuple[int, int], judge: str
) -> None:
    body = answered(message={"content": VERDICT})[:-1] + b', "usage": ' + usage.encode() + b"}"
    with JudgeServer(script=lambda _: Answer(200, body)) as server:
        try:
            reply = await ask(judge, server.url)
        except ServiceError as failure:  # a number that JSON readers refuse
            assert "1e999" in usage
            assert failure.kind == "invalid_reply"  # noqa: PT017
            return
    assert (reply.content, reply.prompt_tokens, reply.completion_tokens) == (VERDICT, *counted)


CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"


def endless(head: bytes, piece: bytes) -> Callable[[RawRequest], Iterator[bytes]]:
    def pieces(_: RawRequest) -> Iterator[bytes]:
        yield head
        while True:
            yield piece

    return pieces


def packed(megabytes: int) -> bytes:
    pack = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(pack.compress(b" " * 2**20) for _ in range(megabytes)) + pack.flush()


def fixed(pieces: Iterable[bytes]) -> Callable[[RawRequest], Iterable[bytes]]:
    return lambda _: pieces


def deep(levels: int) -> bytes:
    return b'{"error": ' + b"[" * levels + b"]" * levels + b"}"


HOSTILE: dict[str, tuple[Callable[[RawRequest], Iterable[bytes]], str]] = {
    "endless body": (endless(CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n"), "invalid_reply"),
    "a gigabyte": (
        endless(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n", b" " * 65536),
        "invalid_reply",
    ),
    "endless error": (
        endless(CHUNKED.replace(b"200 OK", b"500 No"), b"10000\r\n" + b" " * 65536 + b"\r\n"),
        "invalid_reply",
    ),
    "gzip bomb": (fixed(http(packed(1000), content_encoding="gzip")), "invalid_reply"),
    "gzip bomb 500": (fixed(http(packed(1000), "500 No", content_encoding="gzip")), "invalid_reply"),
    "brotli": (fixed(http(b"x", content_encoding="br")), "invalid_reply"),
    "long message": (
        fixed(http(answered(message={"content": "A" * 2_000_000}))), "invalid_reply",
    ),
    "deep": (fixed(http(b"[" * 200_000)), "invalid_reply"),
    "deep 400": (fixed(http(b"[" * 200_000, "400 No")), "bad_request"),
    "deep 500": (fixed(http(b"[" * 200_000, "500 No")), "server_error"),
    "deep error": (fixed(http(deep(50_000))), "invalid_reply"),
    "deep error 400": (fixed(http(deep(20_000), "400 No")), "bad_request"),
    "not UTF-8": (fixed(http(answered().replace(b'"x"', b'"\xff\xfe\xc0"'))), "invalid_reply"),
    "bad header": (
        fixed([b"HTTP/1.1 200 OK\r\nx-\x00bad: \xff\r\nfoo bar\r\ncontent-length: 0\r\n\r\n"]),
        "invalid_reply",
    ),
    "not HTTP": (fixed([b"SSH-2.0-OpenSSH_9.6\r\n\r\n"]), "invalid_reply"),
    "huge head": (
        fixed([b"HTTP/1.1 200 OK\r\n", *[b"x-a: " + b"a" * 1000 + b"\r\n"] * 500]),
        "invalid_reply",
    ),
    "truncated": (
        fixed([b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\nconnection: close\r\n\r\n{", b""]),
        "",
    ),
    "closes": (fixed([]), "connection_failed"),
    "escapes": (
        fixed(http(said("\x1b]0;owned\x07\x1b[2J\x9b31m\u202epay"), "402 Pay")),
        "payment_required",
    ),
}  # fmt: skip


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("name", [name for name, (_, kind) in HOSTILE.items() if kind])
async def test_a_hostile_reply_is_bounded_and_reported_in_one_line(name: str, judge: str) -> None:
    answer, kind = HOSTILE[name]
    await_import = open_client(
        SPECS[judge], {"CEREBRAS_API_KEY": "csk-0123456789", "OPENAI_API_KEY": "0123456789"}
    )
    await await_import.aclose()  # what it imports is not counted below
    tracemalloc.start()
    try:
        with RawServer(answer) as server, pytest.raises(ServiceError) as raised:
            await ask(judge, server.url)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert raised.value.kind == kind
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 500
    assert peak < 40 * 2**20  # the reply several times over, and nothing near what was sent


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize(
    "answer",
    [
        endless(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", b""),
        endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["nothing comes", "continue for ever"],
)
def test_a_reply_that_never_ends_is_left_at_the_deadline(
    answer: Callable[[RawRequest], Iterable[bytes]], judge: str
) -> None:
    def slowly(request: RawRequest) -> Iterator[bytes]:
        for piece in answer(request):
            time.sleep(0 if piece else 0.05)
            yield piece

    policy = RetryPolicy(attempts=1, timeout=0.5)
    with RawServer(slowly) as server:
        done = asyncio.run(
            judge_all(server.url, 2, limits=Limits(), policy=policy, judge_name=judge)
        )
    assert done.kinds == {"timed_out": 2}


@pytest.mark.parametrize(
    "headers",
    [
        {
            "x-ratelimit-limit-tokens-minute": "1e-300",
            "x-ratelimit-remaining-tokens-minute": "0",
            "x-ratelimit-reset-tokens-minute": "1e12",
        },
        {"x-ratelimit-remaining-requests-day": "-1", "x-ratelimit-reset-requests-day": "1e12"},
        {"x-ratelimit-limit-tokens-minute": "-5", "x-ratelimit-remaining-tokens-minute": "nan"},
    ],
)
def test_headers_that_make_no_sense_stall_nothing(headers: dict[str, str]) -> None:
    def script(got: Received) -> Answer:
        return Answer(200, completion(got, verdict_text(got.body)), headers)

    with JudgeServer(script=script) as server:
        done = asyncio.run(judge_all(server.url, 10, limits=Limits(), policy=POLICY))
    assert len(done.verdicts) == 10


@pytest.mark.parametrize(
    ("status", "headers", "kind", "calls"),
    [
        (429, {"retry-after": "1e9"}, "budget_exhausted", 1),
        (503, {"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, "server_error", 1),
        (503, {"retry-after": "-5"}, "server_error", 3),
        (503, {"retry-after": "nan"}, "server_error", 3),
        (503, {"retry-after-ms": "1", "retry-after": "99"}, "server_error", 3),
        (429, {"retry-after-ms": "1", "retry-after": "1e9"}, "rate_limited", 3),
    ],
)
def test_an_absurd_wait_is_ignored(
    status: int, headers: dict[str, str], kind: str, calls: int
) -> None:
    answer = Answer(status, {"message": "later"}, headers)
    with JudgeServer(script=lambda _: answer) as server:
        done = asyncio.run(
            judge_all(server.url, 1, limits=Limits(max_concurrency=1), policy=POLICY)
        )
    assert done.kinds == {kind: 1}
    assert server.calls == calls
