"""Keys: what is refused before it is sent, and what never shows in any output."""

import base64
import json
import logging
import traceback
from collections.abc import Callable, Iterable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.raw_server import RawRequest, RawServer, http

from cachedeval.engine.errors import InputError
from cachedeval.services.chat import ChatRequest
from cachedeval.services.clients import open_client
from cachedeval.services.errors import ServiceError
from cachedeval.services.http import secrets_of
from cachedeval.services.secrets import Redactor, check_key
from cachedeval.services.spec import ServiceSpec, api_key_of

KEY = 'csk-7Qf/2+x"R9\\vLm4Tz8Kw1Bn6'
SPECS = {"cerebras:m": ServiceSpec("cerebras", "m"), "openai:m": ServiceSpec("openai", "m")}
ASK = ChatRequest(model="m", messages=({"role": "user", "content": "hi"},))


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("sk-aaaaaaaa\nsk-bbbbbbbb", "line break"),
        ("sk-aaaaaaaa\r\nsk-bbbbbbbb", "line break"),
        ("sk-aaaa\u2028aaaa", "line break"),
        ("sk-aaaaaaaa\n", "before or after"),
        (" sk-aaaaaaaa", "before or after"),
        ("\u00a0sk-aaaaaaaa", "before or after"),
        ("'sk-aaaaaaaa'", "quotes"),
        ('"sk-aaaaaaaa"', "quotes"),
        ("\u201csk-aaaaaaaa\u201d", "quotes"),
        ("sk-aaaa aaaa", "a space in"),
        ("sk-aaaa\x00aaaa", "control"),
        ("sk-aaaa\x1b[0m", "control"),
        ("sk-aaaa\u200baaaa", "control"),
        ("sk\u2013aaaaaaaa", "not ASCII"),
        ("sk-aaaaä", "not ASCII"),
    ],
)
def test_a_malformed_key_is_refused_by_its_variable(key: str, why: str) -> None:
    for spec in SPECS.values():
        variable = spec.key_variable
        with pytest.raises(InputError, match=why) as raised:
            api_key_of(spec, {variable: key})
        assert variable in str(raised.value)
        assert "aaaa" not in str(raised.value)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", ["x", "none", "sk-proj-aBc_123.x~y+z/w=", "EMPTY"])
def test_other_keys_pass(key: str) -> None:
    check_key(key, "OPENAI_API_KEY")


@given(st.text(max_size=30))
def test_whatever_passes_can_be_sent_as_a_header(key: str) -> None:
    try:
        check_key(key, "KEY")
    except InputError as error:
        assert len(key) < 5 or key not in str(error)  # noqa: PT017
        return
    assert all(" " < char < "\x7f" for char in key)


FORMS = [
    KEY,
    json.dumps(KEY)[1:-1],
    json.dumps(json.dumps(KEY))[1:-1],
    repr(KEY),
    repr(f"Bearer {KEY}".encode()),
    "".join(f"\\u{ord(char):04x}" for char in KEY),
    "".join(f"\\u{ord(char):04X}" for char in KEY),
    quote(KEY, safe=""),
    "".join(f"%{ord(char):02x}" for char in KEY),
    "".join(f"&#{ord(char)};" for char in KEY),
    "".join(f"&#x{ord(char):x};" for char in KEY),
    KEY[:11] + "\n" + KEY[11:],
    KEY[:9] + "\\n" + KEY[9:],
    '" + "'.join([KEY[:10], KEY[10:20], KEY[20:]]),
    base64.b64encode(KEY.encode()).decode(),
    base64.b64encode(f"Bearer {KEY}".encode()).decode(),
    base64.urlsafe_b64encode(f"x{KEY}yz".encode()).decode(),
    KEY.encode().hex(),
    KEY[::-1],
    KEY[:14],
    KEY[-9:],
    KEY[6:15],
    f"{KEY[:6]}***{KEY[-4:]}",
    f"{KEY[:8]}…{KEY[-4:]}",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("around", ["{}", "Incorrect API key: {}. See the docs.", "a{}b", "({})"])
def test_a_key_is_redacted_in_every_form(form: str, around: str) -> None:
    shown = Redactor([KEY])(around.format(form))
    assert "[redacted]" in shown
    assert form not in shown
    assert not any(KEY[at : at + 8] in shown for at in range(len(KEY) - 7))


@given(
    st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), min_size=8),
    st.text(),
    st.text(),
)
def test_no_eight_characters_of_a_key_are_left(key: str, before: str, after: str) -> None:
    shown = Redactor([key])(before + key + after)
    mark = "[redacted]"
    left = shown.replace(mark, "\0")
    assert not any(key[at : at + 8] in left for at in range(len(key) - 7))


@pytest.mark.parametrize(
    "said", ["sk-ab***cd", "sk-ab...cd", "org-a1b2c3d4e5f6", "Bearer abc12345"]
)
def test_what_looks_like_anybodys_key_is_redacted(said: str) -> None:
    assert Redactor([])(f"Wrong key {said}.").removesuffix(".") == "Wrong key [redacted]"


@pytest.mark.parametrize("key", ["", "x", "1", "none", "EMPTY", "7654321"])
def test_a_placeholder_is_a_word_like_any_other(key: str) -> None:
    text = f'{{"scores": {{"exactness": 1}}, "rationale": "none, {key}"}}'
    assert Redactor([key])(text) == text
    assert Redactor([key]).whole(text) == text


@pytest.mark.parametrize(
    "piece", ["1", "\\", "a-", "*", "&#x0", "c", "csk-7Qf", "\\u00", " ", "Bearer ", ".", "sk-ab"]
)
@pytest.mark.timeout(60)
def test_redacting_a_long_text_is_linear(piece: str) -> None:
    text = piece * (1_500_000 // len(piece))  # quadratic patterns take an hour
    assert KEY not in Redactor([KEY])(text)


def test_texts_without_the_key_stay_what_they_are() -> None:
    text = "Rate limit reached for model gpt-oss-120b: 3 of 5 requests a minute (try in 12.5 s)."
    assert Redactor([KEY])(text) == text


def test_passwords_of_urls_and_proxies_are_secrets_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:proxy-password@proxy:3128")
    redact = Redactor(secrets_of("", "https://user:hunter2hunter2@host/v1"))
    shown = redact("hunter2hunter2 proxy-password dXNlcjpodW50ZXIyaHVudGVyMg==")
    assert shown == "[redacted] [redacted] [redacted]"
    assert "proxy" not in repr(redact)


def _completion(content: str, **more: object) -> bytes:
    choice = {"message": {"content": content}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], **more}).encode()


def _echoes() -> dict[str, Callable[[RawRequest], Iterable[bytes]]]:
    def answer(body: str, status: str, **headers: str) -> Callable[[RawRequest], Iterable[bytes]]:
        def with_key(request: RawRequest) -> Iterable[bytes]:
            key = request.authorization
            escaped = json.dumps(key)[1:-1]
            every = "".join(f"\\u{ord(char):04x}" for char in key)
            encoded = base64.b64encode(key.encode()).decode()
            said = body.replace("KEY", escaped).replace("EVERY", every).replace("B64", encoded)
            told = {name: value.replace("KEY", key) for name, value in headers.items()}
            return http(said.encode(), status.replace("KEY", key), **told)

        return with_key

    statuses = ("400", "401", "402", "403", "404", "413", "422", "429", "500", "503", "307", "418")
    table = {
        f"{status} {form}": answer(body, f"{status} KEY", x_echo="KEY", location="http://KEY/")
        for status in statuses
        for form, body in {
            "json": '{"error": {"message": "bad key KEY / EVERY / B64", "code": "KEY"}}',
            "flat": '{"message": "KEY", "type": "KEY", "KEY": ["KEY"]}',
            "html": "<html><title>KEY</title>KEY</html>",
            "text": "KEY",
            "empty": "",
        }.items()
    }
    table |= {
        "200 error": answer('{"error": {"message": "KEY EVERY"}}', "200 KEY"),
        "200 error code": answer('{"error": {"message": "KEY", "code": 401}}', "200 OK"),
        "200 html": answer("<html><title>KEY</title></html>", "200 OK", x_echo="KEY"),
        "200 truncated": answer('{"choices": [{"message": {"content": "KEY', "200 OK"),
        "200 refusal": answer('{"choices": [{"message": {"refusal": "KEY"}}]}', "200 OK"),
        "200 wrong type": answer('{"choices": "KEY"}', "200 OK"),
        "encoding": answer("KEY", "200 OK", content_encoding="KEY"),
        "gzip": answer("KEY", "200 OK", content_encoding="gzip"),
        "not http": lambda request: [f"{request.authorization}\r\n\r\n".encode()],
        "bad header": lambda request: [
            f"HTTP/1.1 200 OK\r\n{request.authorization}\r\n\r\n".encode()
        ],
        "bad length": answer("", "200 OK", content_length="KEY"),
        "closed": lambda _: [],
    }
    return table


ECHOES = _echoes()


def all_of(error: BaseException) -> Iterable[str]:
    """Yield everything that can be seen of an error and of those that it arose from."""
    seen: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or one in seen:
            continue
        seen.append(one)
        todo += [one.__cause__, one.__context__]
        yield from (str(one), repr(one), repr(one.args), repr(vars(one)))
    trace = traceback.TracebackException.from_exception(error, capture_locals=True)
    trace.stack[:] = [frame for frame in trace.stack if frame.filename != __file__]
    yield "".join(trace.format())


@pytest.mark.parametrize("judge", ["cerebras:m", "openai:m"])
@pytest.mark.parametrize("echo", ECHOES)
async def test_a_key_echoed_by_the_server_is_never_shown(
    judge: str, echo: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with RawServer(ECHOES[echo]) as server:
        environ = {
            "CEREBRAS_API_KEY": KEY,
            "CEREBRAS_BASE_URL": server.url,
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": f"{server.url}/v1",
        }
        client = open_client(SPECS[judge], environ)
        with pytest.raises(ServiceError) as raised:
            await client.complete(ASK)
        await client.aclose()
    assert any(KEY in request.authorization for request in server.requests)
    seen = [repr(client), str(client), client.name, *all_of(raised.value)]
    seen += [record.getMessage() + (record.exc_text or "") for record in caplog.records]
    assert not [
        text[max(0, text.find(KEY[at : at + 8]) - 60) :][:200]
        for text in seen
        for at in range(len(KEY) - 7)
        if KEY[at : at + 8] in text or KEY[::-1] in text
    ]
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 800


async def test_credentials_of_a_url_are_sent_and_not_shown() -> None:
    password = "p4ssw0rd-of-nginx"  # noqa: S105  the test's
    with RawServer(lambda request: http(request.authorization.encode(), "500 No")) as server:
        url = server.url.replace("http://", f"http://me:{password}@") + "/v1"
        client = open_client(SPECS["openai:m"], {"OPENAI_BASE_URL": url})
        with pytest.raises(ServiceError) as raised:
            await client.complete(ASK)
        await client.aclose()
    encoded = base64.b64encode(f"me:{password}".encode()).decode()
    assert server.requests[0].authorization == f"Basic {encoded}"
    assert not [t for t in all_of(raised.value) if password in t or encoded in t]


@pytest.mark.parametrize("key", ["x", "1", "none", "content"])
async def test_a_reply_is_read_before_it_is_redacted(key: str) -> None:
    said = json.dumps({"scores": {"exactness": 1}, "rationale": f"none of it; {key}"})
    with RawServer(lambda _: http(_completion(said))) as server:
        environ = {"OPENAI_API_KEY": key, "OPENAI_BASE_URL": f"{server.url}/v1"}
        client = open_client(SPECS["openai:m"], environ)
        reply = await client.complete(ASK)
        await client.aclose()
    assert reply.content == said


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("OPENAI_BASE_URL", "localhost:8080/v1", "begins with neither"),
        ("OPENAI_BASE_URL", "api.example.com", "begins with neither"),
        ("OPENAI_BASE_URL", "https://", "no host"),
        ("OPENAI_BASE_URL", "http://host:port/v1", "no number"),
        ("OPENAI_BASE_URL", "http://host /v1", "a space"),
        ("OPENAI_BASE_URL", "http://ho\nst/v1", "line break"),
        ("NO_PROXY", "localhost,[::1]", "brackets"),
        ("SSL_CERT_FILE", "/nowhere/at-all.pem", "does not exist"),
        ("ALL_PROXY", "socks5://127.0.0.1:1080", "socksio"),
    ],
)
def test_an_environment_that_cannot_work_is_named(variable: str, value: str, why: str) -> None:
    environ = {"OPENAI_API_KEY": "sk-aaaaaaaa", variable: value}
    with pytest.raises(InputError, match=why) as raised:
        api_key_of(SPECS["openai:m"], environ)
    assert variable in str(raised.value)


@pytest.mark.parametrize("judge", SPECS)
@pytest.mark.parametrize(
    "wrong",
    [
        {"HTTPS_PROXY": "gopher://me:hunter2hunter2@proxy:70"},
        {"URL": "https://me:hunter2hunter2@xn--a/v1"},
    ],
)
def test_a_client_that_cannot_be_opened_is_one_line_without_passwords(
    judge: str, wrong: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SPECS[judge]
    environ = {spec.key_variable: KEY, spec.url_variable: wrong.get("URL", "https://example.com")}
    if "HTTPS_PROXY" in wrong:
        monkeypatch.setenv("HTTPS_PROXY", wrong["HTTPS_PROXY"])
    with pytest.raises(InputError, match=spec.url_variable) as raised:
        open_client(spec, environ)
    assert raised.value.fatal
    shown = "".join(traceback.format_exception(raised.value))
    assert "hunter2" not in shown
    assert KEY not in shown
    assert str(raised.value).isprintable()
