import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachedeval.evals.judging.errors import InvalidVerdictError
from cachedeval.evals.judging.rubric import Criterion, Rubric
from cachedeval.evals.judging.verdict import Verdict, parse_verdict, response_format

CRITERIA = (
    Criterion(name="accuracy", description="true"),
    Criterion(name="tone of voice", description="kind", range=(1, 5)),
)
GOOD = {
    "item_id": "0badcafe",
    "rationale": "Well {put}.",
    "scores": {"accuracy": 7.5, "tone of voice": 5},
}
SCORES = {"accuracy": 7.5, "tone of voice": 5.0}


def parse(content: str, finish_reason: str = "stop") -> Verdict:
    return parse_verdict(content, CRITERIA, "0badcafe", finish_reason=finish_reason)


def with_scores(**scores: object) -> str:
    return json.dumps(GOOD | {"scores": {"accuracy": 7, "tone of voice": 3} | scores})


@pytest.mark.parametrize(
    "frame",
    [
        "%s",
        "  \n%s\n",
        "```json\n%s\n```",
        "```\n%s\n```",
        "Here is my verdict:\n\n%s",
        "%s\n\nI hope this helps {you}.",
        'Let me think. {"a": 1} is not it. {unbalanced. So:\n%s',
        '<think>The answer claims 10 {"scores": {"accuracy": 10}} hm.</think>\n%s',
        "<think>one</think> no <think>two</think>%s",
        "no opening tag </think>%s",
        "%s and once more: %s",
    ],
)
def test_a_verdict_is_found(frame: str) -> None:
    content = frame.replace("%s", json.dumps(GOOD, indent=1))
    assert parse(content) == Verdict(SCORES, "Well {put}.")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("<think>hm</think>", "empty"),
        ("<think>I wonder" + json.dumps(GOOD), "unfinished reasoning"),
        ("It is an 8.", "no JSON object"),
        ("[7, 3]", "no JSON object"),
        (json.dumps(GOOD)[:-2], "no JSON object"),
        (json.dumps({"accuracy": 7, "tone": 3}), "no JSON object with scores"),
        (json.dumps({"item_id": "deadbeef", **SCORES}), "about item 'deadbeef'"),
        (json.dumps({"accuracy": 11, "tone of voice": 3}), "not 0 to 10"),
        (json.dumps(GOOD | {"item_id": "deadbeef"}), "about item 'deadbeef'"),
        (json.dumps(GOOD | {"scores": [7, 3]}), "no JSON object"),
        (json.dumps(GOOD | {"scores": {"accuracy": 7}}), "no score for tone of voice"),
        (json.dumps(GOOD | {"rationale": 3}), "rationale"),
        (with_scores(accuracy=11), "accuracy is scored 11, not 0 to 10"),
        (with_scores(accuracy=-0.1), "not 0 to 10"),
        (with_scores(**{"tone of voice": 0}), "not 1 to 5"),
        (with_scores(accuracy="7"), 'scored "7", which is no number'),
        (with_scores(accuracy=None), "no number"),
        (with_scores(accuracy=True), "no number"),
        (with_scores(accuracy={"score": 7}), "no number"),
        (with_scores(accuracy=math.nan), "NaN"),
        (with_scores(accuracy=-math.inf), "-Infinity"),
        (with_scores().replace("7", "1e999"), "not 0 to 10"),
        (with_scores().replace('"accuracy": 7', '"accuracy": 7, "accuracy": 9'), "twice"),
        (json.dumps(GOOD) + with_scores(accuracy=1), "2 different verdicts"),
        ('{"scores": ' * 100_000, "nested too deeply"),
    ],
)
def test_anything_else_is_none(content: str, why: str) -> None:
    with pytest.raises(InvalidVerdictError) as raised:
        parse(content)
    assert why in str(raised.value)
    assert "item 0badcafe" in str(raised.value)
    assert raised.value.reply == content


@pytest.mark.parametrize("before", ["", "So: ", "<think>hm {</think>", 'hm {"a": 1} </think>\n'])
@pytest.mark.parametrize("why", ["</think>", "it says <think>x</think>", '</think>{"scores": {}}'])
def test_the_end_of_reasoning_that_a_rationale_quotes_is_none(before: str, why: str) -> None:
    assert parse(before + json.dumps(GOOD | {"rationale": why})) == Verdict(SCORES, why)
    with pytest.raises(InvalidVerdictError, match="deadbeef"):
        parse(before + json.dumps({"item_id": "deadbeef", "rationale": why, "scores": SCORES}))


def test_a_reply_that_was_cut_off_says_what_to_do() -> None:
    with pytest.raises(InvalidVerdictError, match="max_completion_tokens"):
        parse('{"item_id": "0badcafe", "rationale": "I', "length")


def test_further_scores_and_keys_do_not_matter() -> None:
    assert parse(json.dumps(GOOD | {"scores": SCORES | {"overall": 99}, "total": 3})).scores == (
        SCORES
    )


def test_a_rationale_may_be_missing() -> None:
    assert parse(json.dumps({"item_id": "0badcafe", "scores": SCORES})) == Verdict(SCORES, "")


@given(st.text() | st.text('{}[]":,0123456789.eE-+ \\ntruefalsnl'))
def test_no_text_is_taken_for_a_verdict_or_breaks_the_parser(content: str) -> None:
    with pytest.raises(InvalidVerdictError):
        parse(content)


@given(st.floats(0, 10), st.floats(1, 5), st.text(), st.text("`abc \n"))
def test_what_is_written_is_read(accuracy: float, tone: float, why: str, prose: str) -> None:
    scores = {"accuracy": accuracy, "tone of voice": tone}
    verdict = {"item_id": "0badcafe", "rationale": why, "scores": scores}
    assert parse(prose + json.dumps(verdict)) == Verdict(scores, why)


def test_the_schema_is_in_the_narrowest_form() -> None:
    declared = response_format(Rubric(name="r", criteria=CRITERIA))
    schema = declared["json_schema"]["schema"]

    def check(part: dict[str, object]) -> None:
        assert set(part) <= {"type", "properties", "required", "additionalProperties"}
        if part["type"] == "object":
            properties = part["properties"]
            assert isinstance(properties, dict)
            assert part["required"] == list(properties)
            assert part["additionalProperties"] is False
            for inner in properties.values():
                check(inner)

    assert declared["json_schema"]["name"]
    check(schema)
    assert list(schema["properties"]) == ["item_id", "rationale", "scores"]
    assert list(schema["properties"]["scores"]["properties"]) == ["accuracy", "tone of voice"]


@pytest.mark.parametrize(
    "told",
    [
        {"scores": SCORES},
        SCORES,
        {**SCORES, "rationale": ""},
        {"item_id": "0badcafe", **SCORES},
    ],
)
def test_a_plainer_form_will_do(told: dict[str, object]) -> None:
    assert parse(json.dumps(told)) == Verdict(SCORES)
