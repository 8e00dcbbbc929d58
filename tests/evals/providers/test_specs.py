import subprocess
import sys

import pytest

from cachedeval.engine.errors import InputError
from cachedeval.evals.limiting.limits import Limits, cerebras_free_tier
from cachedeval.evals.providers import (
    ChatRequest,
    JudgeSpec,
    default_limits,
    is_loopback,
    open_provider,
    parse_judge,
    server_of,
)

LOCAL = {"CEREBRAS_BASE_URL": "http://127.0.0.1:8080", "OPENAI_BASE_URL": "http://localhost:1/v1"}


@pytest.mark.parametrize(
    ("given", "spec"),
    [
        ("cerebras:gpt-oss-120b", JudgeSpec("cerebras", "gpt-oss-120b")),
        ("openai:org/model:tag", JudgeSpec("openai", "org/model:tag")),
        ("mlx:./models/judge", JudgeSpec("mlx", "./models/judge")),
        ("exact", JudgeSpec("exact")),
        (" f1 ", JudgeSpec("f1")),
    ],
)
def test_a_judge_is_named(given: str, spec: JudgeSpec) -> None:
    assert parse_judge(given) == spec
    assert str(spec) == given.strip()
    assert spec.over_http == (spec.provider in ("cerebras", "openai"))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("", "no such judge"),
        ("gpt-4", "no such judge"),
        ("Cerebras:x", "no such judge"),
        ("anthropic:x", "give cerebras:MODEL, openai:MODEL, mlx:PATH, exact or f1"),
        ("cerebras", "which model"),
        ("openai: ", "which model"),
        ("mlx:", "which folder"),
        ("f1:x", "f1 takes no model"),
    ],
)
def test_or_it_is_said_what_is_wrong(given: str, why: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_judge(given)
    assert why in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("judge", "variable"), [("cerebras:m", "CEREBRAS_API_KEY"), ("openai:m", "OPENAI_API_KEY")]
)
@pytest.mark.parametrize("key", [{}, {"CEREBRAS_API_KEY": " ", "OPENAI_API_KEY": ""}])
def test_a_missing_key_is_named(judge: str, variable: str, key: dict[str, str]) -> None:
    with pytest.raises(InputError, match=f"set {variable}"):
        open_provider(parse_judge(judge), key)


async def test_a_server_on_this_machine_needs_no_key() -> None:
    provider = open_provider(parse_judge("openai:m"), LOCAL)
    await provider.aclose()


def test_a_judge_without_http_has_no_client() -> None:
    with pytest.raises(ValueError, match="f1 is not reached over HTTP"):
        open_provider(parse_judge("f1"), {})


def test_the_free_tiers_limits_are_those_of_the_service_alone() -> None:
    cerebras, openai = parse_judge("cerebras:m"), parse_judge("openai:m")
    assert default_limits(cerebras, {}) == cerebras_free_tier()
    assert default_limits(cerebras, LOCAL) == Limits()
    assert default_limits(openai, {}) == Limits()
    assert default_limits(openai, LOCAL).max_concurrency == 8


def test_servers() -> None:
    assert server_of(parse_judge("cerebras:m"), {}) == "https://api.cerebras.ai"
    assert (
        server_of(parse_judge("openai:m"), {"OPENAI_BASE_URL": ""}) == "https://api.openai.com/v1"
    )
    assert server_of(parse_judge("cerebras:m"), LOCAL) == "http://127.0.0.1:8080"
    assert is_loopback("http://[::1]:80/v1")
    assert not is_loopback("http://127.example.com")


def test_a_requests_body_has_what_was_set() -> None:
    request = ChatRequest(model="m", messages=({"role": "user", "content": "hi"},))
    assert request.body() == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "max_completion_tokens": 1024,
        "temperature": 0.0,
    }
    full = ChatRequest(
        model="m",
        messages=(),
        temperature=None,
        seed=0,
        response_format={"type": "text"},
        extra={"reasoning_effort": "low"},
    )
    assert full.body() == {
        "model": "m",
        "messages": [],
        "max_completion_tokens": 1024,
        "seed": 0,
        "response_format": {"type": "text"},
        "reasoning_effort": "low",
    }


def test_naming_a_judge_imports_no_client() -> None:
    code = (
        "import sys, cachedeval.evals.providers, cachedeval.evals.judging.settings,"
        " cachedeval.evals.judging.verdict, cachedeval.evals.judging.prompt, cachedeval.evals.judging.pricing,"
        " cachedeval.evals.providers.reference\n"
        "print([m for m in ('asyncio', 'cerebras', 'httpx', 'tenacity', 'aiolimiter')"
        " if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert out.stdout.strip() == "[]"
