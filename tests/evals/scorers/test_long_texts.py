"""Answers of 200,000 characters, made of what each scorer looks for: quadratic time would be minutes."""

from collections.abc import Callable

import pytest

from cachedeval.evals.scorers.choice import committed
from cachedeval.evals.scorers.numeric import last_number
from cachedeval.evals.scorers.structured import equals_json, tool_call
from cachedeval.evals.scorers.text import contains, exact, f1

SCORERS: dict[str, tuple[Callable[[str], object], list[str]]] = {
    "choice": (
        committed,
        ["answer ", "answer is the ", "A or ", "(A) ", "\\boxed{"],
    ),
    "contains": (
        lambda text: contains(text, text[:100_000] + " x"),
        ["ab ", "1.", "'a", "\u0915\u093f"],
    ),
    "exact": (lambda text: exact(text, text + "x"), ["'.'", '"', "a ", "\u201c"]),
    "f1": (lambda text: f1(text, text[::-1]), ["a b ", "\u6771"]),
    "json": (lambda text: equals_json(text, "1"), ["[", '{"a":', "```\n", "9"]),
    "numeric": (
        last_number,
        ["1,", "1/", "10^", "\\frac{1}{", "\\boxed{", "\u00bd", "####", "-", "."],
    ),
    "tool_call": (lambda text: tool_call(text, '{"name": "f"}'), ["<tool_call>", " ", "["]),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", SCORERS)
def test_a_long_answer_is_scored_in_linear_time(name: str) -> None:
    score, units = SCORERS[name]
    for unit in units:
        score(unit * (200_000 // len(unit)))


@pytest.mark.timeout(60)
def test_rouge_l_of_long_texts_takes_a_moment() -> None:
    pytest.importorskip("rapidfuzz")
    from cachedeval.evals.scorers.text import rouge_l  # noqa: PLC0415

    text = " ".join(f"w{n % 977}" for n in range(40_000))
    assert rouge_l(text, text) == 1
    assert 0 < rouge_l(text, " ".join(text.split()[::-1])) < 1
