import pytest

from cachedeval.engine.errors import InputError
from cachedeval.evals.judging.spec import JudgeSpec, api_key_of, parse_judge


@pytest.mark.parametrize(
    ("given", "spec"),
    [
        ("cerebras:gpt-oss-120b", JudgeSpec("cerebras", "gpt-oss-120b")),
        ("openai:org/model:tag", JudgeSpec("openai", "org/model:tag")),
        ("mlx:./models/judge", JudgeSpec("mlx", "./models/judge")),
        (" openai:m ", JudgeSpec("openai", "m")),
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
        ("anthropic:x", "give cerebras:MODEL, openai:MODEL or mlx:PATH"),
        ("cerebras", "which model"),
        ("openai: ", "which model"),
        ("mlx:", "which folder"),
        ("f1", "no such judge"),
    ],
)
def test_otherwise_the_error_names_the_cause(given: str, why: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_judge(given)
    assert why in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_judge_without_http_has_no_service() -> None:
    with pytest.raises(ValueError, match="mlx:x is not reached over HTTP"):
        _ = parse_judge("mlx:x").service


def test_a_missing_key_is_named_with_what_needs_none() -> None:
    with pytest.raises(InputError, match=r"judge openai:m: no key; set OPENAI_API_KEY.*--judge f1"):
        api_key_of(parse_judge("openai:m"), {})
