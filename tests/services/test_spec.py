import subprocess
import sys

import pytest

from cachedeval.engine.errors import InputError
from cachedeval.services.clients import open_client
from cachedeval.services.limits import Limits, cerebras_free_tier
from cachedeval.services.spec import ServiceSpec, base_url_of, default_limits, is_loopback

SPECS = {"cerebras:m": ServiceSpec("cerebras", "m"), "openai:m": ServiceSpec("openai", "m")}
LOCAL = {"CEREBRAS_BASE_URL": "http://127.0.0.1:8080", "OPENAI_BASE_URL": "http://localhost:1/v1"}


@pytest.mark.parametrize(
    ("judge", "variable"), [("cerebras:m", "CEREBRAS_API_KEY"), ("openai:m", "OPENAI_API_KEY")]
)
@pytest.mark.parametrize("key", [{}, {"CEREBRAS_API_KEY": " ", "OPENAI_API_KEY": ""}])
def test_a_missing_key_is_named(judge: str, variable: str, key: dict[str, str]) -> None:
    with pytest.raises(InputError, match=f"set {variable}"):
        open_client(SPECS[judge], key)


async def test_a_server_on_this_machine_needs_no_key() -> None:
    provider = open_client(SPECS["openai:m"], LOCAL)
    await provider.aclose()


def test_the_free_tiers_limits_are_those_of_the_service_alone() -> None:
    cerebras, openai = SPECS["cerebras:m"], SPECS["openai:m"]
    assert default_limits(cerebras, {}) == cerebras_free_tier()
    assert default_limits(cerebras, LOCAL) == Limits()
    assert default_limits(openai, {}) == Limits()
    assert default_limits(openai, LOCAL).max_concurrency == 8


def test_servers() -> None:
    assert base_url_of(SPECS["cerebras:m"], {}) == "https://api.cerebras.ai"
    assert base_url_of(SPECS["openai:m"], {"OPENAI_BASE_URL": ""}) == "https://api.openai.com/v1"
    assert base_url_of(SPECS["cerebras:m"], LOCAL) == "http://127.0.0.1:8080"
    assert is_loopback("http://[::1]:80/v1")
    assert not is_loopback("http://127.example.com")


def test_naming_a_judge_imports_no_client() -> None:
    code = (
        "import sys, cachedeval.services.spec, cachedeval.services.retry, cachedeval.evals.judging.settings,"
        " cachedeval.evals.judging.verdict, cachedeval.evals.judging.prompt, cachedeval.evals.judging.pricing,"
        " cachedeval.evals.judging.spec, cachedeval.evals.judging.errors\n"
        "print([m for m in ('asyncio', 'cerebras', 'httpx', 'cachedeval.services.limiter')"
        " if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert out.stdout.strip() == "[]"
