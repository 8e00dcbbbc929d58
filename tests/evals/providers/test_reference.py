import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachedeval.evals.providers.reference import exact, f1, tokens


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The  Cat, a dog & an owl!", ["cat", "dog", "owl"]),
        ("U.S.A.", ["usa"]),
        ("theatre analysis", ["theatre", "analysis"]),
        ("L\u2019été à Paris", ["lété", "à", "paris"]),
        ("e\u0301te\u0301", ["été"]),
        ("¿Qué? «sí»", ["qué", "sí"]),
        ("東京は日本の首都。", ["東", "京", "は", "日", "本", "の", "首", "都"]),
        ("GPT模型3个", ["gpt", "模", "型", "3", "个"]),
        ("ПРИВЕТ, мир", ["привет", "мир"]),
        ("3 + 4 = 7", ["3", "4", "7"]),
        ("…!?", []),
        ("The a an", []),
        ("", []),
    ],
)
def test_tokens(text: str, words: list[str]) -> None:
    assert tokens(text) == words


@pytest.mark.parametrize(
    ("response", "reference", "value"),
    [
        ("The Eiffel Tower.", "eiffel tower", 1.0),
        ("The answer is 42", "42", 2 * (1 / 3) / (1 + 1 / 3)),  # {answer, is, 42} against {42}
        ("no", "yes", 0.0),
        ("a b b", "b b c", 2 * 2 / (2 + 3)),  # "a" is an article; b counts twice
        ("東京", "东京", 0.5),
        ("", "", 1.0),
        ("", "x", 0.0),
        ("x", "the", 0.0),
        ("?", "!", 1.0),
    ],
)
def test_f1(response: str, reference: str, value: float) -> None:
    assert f1(response, reference) == pytest.approx(value)
    assert f1(reference, response) == pytest.approx(value)


@given(st.text(), st.text())
def test_f1_is_1_where_exact_is_and_between_0_and_1_elsewhere(one: str, other: str) -> None:
    assert 0 <= f1(one, other) <= 1
    assert exact(one, one) == f1(one, one) == 1
    if exact(one, other):
        assert f1(one, other) == 1


def test_exact_minds_the_order_and_f1_does_not() -> None:
    assert exact("dog bites man", "man bites dog") == 0
    assert f1("dog bites man", "man bites dog") == 1
