import json
from typing import Any

import pytest

from cachedeval.evals.scorers.patterns import check_pattern, matches
from cachedeval.evals.scorers.structured import (
    check_schema,
    equals_json,
    fits_schema,
    parse_json,
    tool_call,
    tool_calls,
)

ADD: dict[str, Any] = {"name": "add", "arguments": {"x": 1, "y": [2, True]}}
CALL = json.dumps(ADD)


@pytest.mark.parametrize(
    ("response", "reference", "score"),
    [
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}', 1),
        ("[1, 2]", "[2, 1]", 0),
        ("1", "1.0", 1),
        ("1", "true", 0),
        ("0", "false", 0),
        ("1", '"1"', 0),
        ("null", "0", 0),
        ("null", "null", 1),
        ('{"a": null}', "{}", 0),
        ('```json\n{"a": [1]}\n```', '{"a": [1]}', 1),
        ('~~~\n{"a": [1]}\n~~~\n', '{"a": [1]}', 1),
        ('Here it is: {"a": 1}', '{"a": 1}', 0),
        ('{"a": 1} {"a": 1}', '{"a": 1}', 0),
        ('{"a": 1, "a": 1}', '{"a": 1}', 0),  # a name twice: readers differ
        ("NaN", "null", 0),
        ("1e999", "1e308", 0),
        ('"\\u00e9"', '"é"', 1),
        ('"e\u0301"', '"é"', 0),
        ("1234567890123456789", "1234567890123456788", 0),
        ("", "{}", 0),
        ("{}", None, 1),
        ("{", None, 0),
    ],
)
def test_json_is_compared_by_value(response: str, reference: str | None, score: float) -> None:
    assert equals_json(response, reference) == score


def test_a_reference_that_is_not_json_is_an_error() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        equals_json("{}", "Paris")


def test_deep_nesting_is_no_crash() -> None:
    for depth in (900, 5_000, 100_000):
        text = "[" * depth + "]" * depth
        try:
            parse_json(text)
        except ValueError as error:
            assert "nested too deeply" in str(error)  # noqa: PT017
            assert equals_json(text, "[]") == 0
        else:
            assert equals_json(text, text) == 1


def test_a_schema_is_fitted_or_not() -> None:
    pytest.importorskip("jsonschema")
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
    assert fits_schema('{"a": 1}', schema) == 1
    assert fits_schema('{"a": "1"}', schema) == fits_schema("{", schema) == 0
    assert fits_schema('"2026-11-30"', {"pattern": r"^\d{4}-\d\d-\d\d$"}) == 1
    with pytest.raises(ValueError, match="no JSON schema"):
        check_schema({"type": "no type"})
    with pytest.raises(ValueError, match="refers to what is not in it"):
        fits_schema("1", {"$ref": "http://127.0.0.1:9/schema.json"})


@pytest.mark.parametrize(
    "text",
    [
        CALL,
        f"```json\n{CALL}\n```",
        f"I will add.\n<tool_call>\n{CALL}\n</tool_call><|im_end|>",
        f"[TOOL_CALLS][{CALL}]</s>",
        "<|python_tag|>"
        + json.dumps({"name": "add", "parameters": ADD["arguments"]})
        + "<|eom_id|>",
        json.dumps({"function": {"name": "add", "arguments": json.dumps(ADD["arguments"])}}),
        json.dumps({"tool_calls": [{"type": "function", "function": ADD}]}),
        json.dumps([{"id": "1", "type": "function", "function": ADD}]),
    ],
)
def test_a_tool_call_is_read_in_the_forms_that_models_write(text: str) -> None:
    assert tool_calls(text) == [("add", ADD["arguments"])]
    assert tool_call(text, CALL) == {"tool_call": 1, "name": 1}


@pytest.mark.parametrize(
    ("response", "score", "name"),
    [
        ('{"name": "add", "arguments": {"y": [2.0, true], "x": 1}}', 1, 1),
        ('{"name": "add", "arguments": {"x": 1, "y": [2, 1]}}', 0, 1),
        ('{"name": "add", "arguments": {"x": 1}}', 0, 1),
        ('{"name": "sub", "arguments": {"x": 1, "y": [2, true]}}', 0, 0),
        ("add(1, 2)", 0, 0),
        ("", 0, 0),
        ("<tool_call>not json</tool_call>", 0, 0),
        (f"<tool_call>{CALL}</tool_call><tool_call>{CALL}</tool_call>", 0, 0),
    ],
)
def test_name_and_arguments_must_be_equal(response: str, score: float, name: float) -> None:
    assert tool_call(response, CALL) == {"tool_call": score, "name": name}


def test_the_order_of_several_calls_does_not_matter() -> None:
    one, two = '{"name": "f", "arguments": {"n": 1}}', '{"name": "f", "arguments": {"n": 2}}'
    assert tool_call(f"[{one}, {two}]", f"[{two}, {one}]")["tool_call"] == 1
    assert tool_call(f"[{one}, {one}]", f"[{two}, {one}]") == {"tool_call": 0, "name": 1}


@pytest.mark.parametrize(
    ("response", "reference", "pattern", "score"),
    [
        ("The answer is 5.", "5", r"answer is (\S+?)\.", 1),
        ("The answer is 4. No, the answer is 5.", "5", r"answer is (\d)", 1),
        ("The answer is 4. No, the answer is 5.", "4", r"answer is (\d)", 0),
        ("#### Paris", "paris", r"#### (.*)", 1),
        ("nothing", "5", r"(\d)", 0),
        ("x", "5", r"(\d)?", 0),
        ("2026-11-30", None, r"^\d{4}", 1),
        ("ΣΊΣΥΦΟΣ", "σίσυφος", r"(?i)(σίσυφος)", 1),
    ],
)
def test_what_a_pattern_finds_last(
    response: str, reference: str | None, pattern: str, score: float
) -> None:
    assert matches(response, reference, pattern) == score


def test_a_pattern_is_checked_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_pattern("(a)") is True
    assert check_pattern("a") is False
    with pytest.raises(ValueError, match=r"is invalid: .*unterminated"):
        check_pattern("(a")
    monkeypatch.setattr("cachedeval.evals.scorers.patterns._SECONDS", 0.05)
    with pytest.raises(TimeoutError, match=r"the pattern '\(a\+\)\+\$' takes more than"):
        matches("a" * 50_000 + "b", "a", "(a+)+$")
    pytest.importorskip("jsonschema")
    with pytest.raises(TimeoutError):
        fits_schema(json.dumps("a" * 50_000 + "b"), {"pattern": "^(a+)+$"})
