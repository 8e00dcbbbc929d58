import datetime as dt
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from support.plain import VALUES, Colour, alike

from cachedeval.engine.difference import ABSENT, differences, short
from cachedeval.engine.encoding import Identified, Member, Output, Typed, decode, encode


def told(was: Any, now: Any) -> list[str]:
    return list(map(str, differences(was, now)))


@given(VALUES, VALUES)
def test_two_values_differ_if_there_is_a_difference(one: Any, other: Any) -> None:
    one, other = decode(encode(one)), decode(encode(other))
    assert bool(told(one, other)) == (alike(one) != alike(other))


@pytest.mark.parametrize(
    ("was", "now", "wanted"),
    [
        (1, 2, ["1 → 2"]),
        ({"a": 1}, {"a": 2}, ["a: 1 → 2"]),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, ["a / b / 1: 2 → 3"]),
        ({"a": 1}, {"b": 1}, ["a: 1 → (absent)", "b: (absent) → 1"]),
        ({"a": None}, {}, ["a: None → (absent)"]),
        ([1], [1, 2], ["1: (absent) → 2"]),
        ([], [1], ["[] → [1]"]),
        ([1], (1,), ["[1] → (1,)"]),
        ({"a": {1: "x"}}, {"a": {True: "x"}}, ["a: {1: 'x'} → {True: 'x'}"]),
        (Typed("m.P", {"x": 1}), Typed("m.Q", {"x": 1}), ["P(x) → Q(x)"]),
        ({"c": Member("m.C", "A", 1)}, {"c": Member("m.C", "B", 1)}, ["c: C.A → C.B"]),
        ({"a": 1}, {"a": True}, ["a: 1 → True"]),
        ({"a": 0.0}, {"a": -0.0}, ["a: 0.0 → -0.0"]),
        (
            {"f": {"w.safetensors": "xxh3:1f"}, "scale": 20},
            {"f": {"w.safetensors": "xxh3:9c"}, "scale": 10},
            ["f / w.safetensors: xxh3:1f → xxh3:9c", "scale: 20 → 10"],
        ),
        ({"a": "x"}, {"a": 1}, ["a: 'x' → 1"]),
        ({"a": "So:\x1b[2J"}, {"a": "So:\n"}, ["a: 'So:\\x1b[2J' → 'So:\\n'"]),
        ({"o": Output("sha256:0123456789")}, {"o": 1}, ["o: sha256:01234567… → 1"]),
        (
            {"o": Identified("m", "sha256:0123456789")},
            {"o": Identified("m", "sha256:ab")},
            ["o: sha256:01234567… → sha256:ab…"],
        ),
        (Typed("m.P", {"x": 1, "y": 2}), Typed("m.P", {"x": 1, "y": 3}), ["y: 2 → 3"]),
        ({"p": Typed("m.P", {"x": 1})}, {"p": 1}, ["p: P(x) → 1"]),
    ],
)
def test_the_innermost_fields_are_reported(was: Any, now: Any, wanted: list[str]) -> None:
    assert told(was, now) == wanted


def test_lookalikes_are_distinguished_by_type() -> None:
    class Text(str):
        __slots__ = ()

    assert told({"a": 1}, {"a": Text("1")}) == ["a: 1 → '1'"]
    assert told("1", Text("1")) == ["'1' (str) → '1' (Text)"]


def test_long_texts_are_quoted_around_the_first_difference() -> None:
    was, now = "x" * 500 + "A" + "y" * 500, "x" * 500 + "B" + "y" * 500
    (line,) = told({"text": was}, {"text": now})
    assert len(line) < 150
    assert "xA" in line
    assert "xB" in line
    (line,) = told({"text": "same " * 30}, {"text": "same " * 30 + "and more"})
    assert "and more" in line


def test_absent_is_no_value() -> None:
    assert told(ABSENT, ABSENT) == []
    assert told(ABSENT, None) == ["(absent) → None"]


def test_an_enum_is_compared_by_its_parts() -> None:
    one, other = (decode(encode(colour)) for colour in Colour)
    assert told({"c": one}, {"c": other}) != []


def test_short() -> None:
    assert short("sha256:0123456789abcdef") == "sha256:01234567…"


def test_values_with_codecs() -> None:
    def shown(was: Any, now: Any) -> list[str]:
        return [str(d) for d in differences(decode(encode(was)), decode(encode(now)))]

    assert shown(dt.date(2024, 1, 2), dt.date(2024, 1, 3)) == [
        "date('2024-01-02') → date('2024-01-03')"
    ]
    assert shown({"n": Counter("aab")}, {"n": Counter("ab")}) == ["n / a: 2 → 1"]
    assert shown(Counter(a=1), {"a": 1}) == ["Counter({'a': 1}) → {'a': 1}"]
