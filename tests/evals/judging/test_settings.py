from pathlib import Path

import pytest

from cachedeval.engine.errors import InputError
from cachedeval.evals.judging.pricing import Price, load_prices
from cachedeval.evals.judging.settings import JudgeSettings, load_settings
from cachedeval.evals.judging.spec import parse_judge
from cachedeval.services.limits import Limits, cerebras_free_tier
from cachedeval.services.retry import RetryPolicy

FULL = """
[limits]
requests_per_minute = 1000
tokens_per_minute = 1_000_000
max_concurrency = 64
[retry]
timeout = 120
[prices."cerebras:my-model"]
input = 1
output = 2.5
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "judge.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_says_limits_retries_and_prices(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, FULL))
    assert settings.limits == Limits(
        requests_per_minute=1000, tokens_per_minute=1_000_000, max_concurrency=64
    )
    assert settings.retry == RetryPolicy(timeout=120)
    assert load_prices(settings.prices)["cerebras:my-model"].of(2_000_000, 1_000_000) == 4.5


def test_what_is_left_out_is_as_ever(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, "")) == JudgeSettings()
    spec = parse_judge("cerebras:m")
    assert JudgeSettings().limits_for(spec, {}) == cerebras_free_tier()
    assert load_settings(write(tmp_path, FULL)).limits_for(spec, {}).max_concurrency == 64


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[limit]", "unknown field `limit` (did you mean limits?)"),
        ("[limits]\nrequests_a_minute = 3", "(did you mean requests_per_minute?)"),
        ("[limits]\nrequests_per_minute = 0", "requests_per_minute is 0"),
        ("[retry]\nattempts = 'three'", "Expected `int`"),
        ('[prices."f1"]\ninput = -1\noutput = 0', "$.prices"),
    ],
)
def test_a_mistake_is_named_with_its_file(tmp_path: Path, text: str, why: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as raised:
        load_settings(path)
    assert str(raised.value).startswith(str(path))
    assert why in str(raised.value)


def test_a_missing_file() -> None:
    with pytest.raises(InputError, match=r"none\.toml: no such file"):
        load_settings("none.toml")


def test_known_prices_and_a_users_own_in_their_place() -> None:
    known = load_prices()
    assert known["cerebras:gpt-oss-120b"].of(1_000_000, 1_000_000) == pytest.approx(1.10)
    assert "cerebras:unheard-of" not in known
    own = {"cerebras:gpt-oss-120b": Price(input=0, output=0)}
    assert load_prices(own)["cerebras:gpt-oss-120b"].of(10**9, 10**9) == 0
    assert load_prices(own).keys() == known.keys()
