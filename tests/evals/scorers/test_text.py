import random
import re
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachedeval.evals.scorers.text import contains, exact, f1, rouge_l, tokens

PIECES = st.sampled_from([
    "a", "A", "an", "the", "The", "x", "Paris", "paris", "5", "-", "+", ".", ",", "?", "!", "'", '"',
    "\u201c", "\u201d", "\u2019", "\u00ab", "\u00bb", "\u3002", "\u6771", "\U0001f642", "e\u0301",
    "\u00e9", "\u03a3", "\u0130", " ", "  ", "\n", "#", "%", "$", "_", "\u200b",
])  # fmt: skip
TEXT = st.text() | st.lists(PIECES).map("".join)
BLANK = st.text(" \t\n\u00a0\u3000")
PUNCTUATION = st.text("?!.,;:-_'\"()[]{}\u3002\u201c\u201d\u2026 ")
WORDS = st.text(string.ascii_letters + string.digits, min_size=2)


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
    ("response", "reference"),
    [
        ("The Eiffel Tower.", "eiffel tower"),
        ("PARIS", "Paris"),
        ("  Paris\n", "Paris"),
        ("New  York\tCity", "New York City"),
        ("\u201cParis\u201d", '"Paris"'),
        ('"Paris."', "Paris"),
        ('The answer".', 'The answer".'),
        ("'Paris'.", "paris"),
        ("«Paris»", "Paris"),
        ("東京。", "東京"),
        ("「東京」", "東京"),
        ("don\u2019t", "don't"),
        ("e\u0301te\u0301", "été"),
        ("a cat", "cat"),
        ("An hour", "hour"),
        ("The 1990s", "1990s"),
        ("A.", "a"),
        ("The", "the."),
        ('"-5"', "-5"),
        ("-5.", "-5"),
        ("C++.", "c++"),
        ("+", " + "),
        ("?", "?"),
        ("U.S.", "U.S"),
        ("\U0001f642", "\U0001f642"),
    ],
)
def test_what_a_reader_takes_for_the_same_answer(response: str, reference: str) -> None:
    assert exact(response, reference) == exact(reference, response) == 1
    assert f1(response, reference) == f1(reference, response) == 1


@pytest.mark.parametrize(
    ("response", "reference"),
    [
        ("", ""),
        ("", "A"),
        (" ", " "),
        ("\u00a0", "the"),
        (".", "A"),
        ('""', "A"),
        ('"."', "."),
        ("?", "!"),
        ("...", "."),
        ("The", "A"),
        ("A", "B"),
        ("A", "A, B"),
        ("A B", "B"),
        ("A + B", "+ B"),
        ("A5", "5"),
        ("a 5", "5"),
        ("The The", "The"),
        ("the a", "a"),
        ("an apple and a pear", "apple and pear"),
        ("-5", "5"),
        ("+5", "5"),
        ("\u22125", "5"),
        ("-0", "0"),
        ("1.0", "10"),
        ("1.0", "1"),
        (".5", "5"),
        ("0.5", "05"),
        ("1e-5", "1e5"),
        ("12", "1/2"),
        ("½", "1/2"),
        ("½", "12"),
        ("1,000", "1000"),
        ("1,5", "15"),
        ("1.000", "1,000"),
        ("10:30", "1030"),
        ("2-3", "23"),
        ("x<5", "x>5"),
        ("x=5", "x!=5"),
        ("x_1", "x1"),
        ("x^2", "x2"),
        ("x\u00b2", "x2"),
        ("H\u2082O", "H2O"),
        ("a*b", "ab"),
        ("(1, 2)", "[1, 2]"),
        ("[0, 1)", "[0, 1]"),
        ("5!", "5"),
        ("~p", "p"),
        ("!p", "p"),
        ("C++", "C"),
        ("C#", "C"),
        ("F#", "F"),
        ("A+", "A"),
        ("B-", "B"),
        (".NET", "NET"),
        ("$5", "5"),
        ("5€", "5"),
        ("$5", "€5"),
        ("50%", "50"),
        ("5 km", "5"),
        ("5°", "5"),
        ("5'", "5"),
        ('5"', "5'"),
        ("v1.0", "v10"),
        ("1.10", "1.1"),
        ("a.b", "ab"),
        ("a.b", "a b"),
        ("a/b", "ab"),
        ("git add .", "git add"),
        ("cd ..", "cd"),
        ("#1", "1"),
        ("@a", "a"),
        ("don't", "dont"),
        ("it's", "its"),
        ("re-sign", "resign"),
        ("`ls`", "ls"),
        ('"a" and "b"', 'a" and "b'),
        ("Paris?", "Paris"),
        ("yes, no", "yes no"),
        ("Paris \U0001f642", "Paris"),
        ("\U0001f44d\U0001f3fd", "\U0001f44d"),
        ("东京", "東京"),
        ("東京都", "東京"),
        ("ガ", "カ"),
        ("\uff15", "5"),
        ("straße", "strasse"),
        ("cafe", "café"),
        ("le chat", "chat"),
    ],
)
def test_what_is_another_answer_or_none(response: str, reference: str) -> None:
    assert exact(response, reference) == exact(reference, response) == 0


@pytest.mark.parametrize(
    ("response", "reference", "value"),
    [
        ("The Eiffel Tower.", "eiffel tower", 1.0),
        ("The answer is 42", "42", 2 * (1 / 3) / (1 + 1 / 3)),  # {answer, is, 42} against {42}
        ("no", "yes", 0.0),
        ("a b b", "b b c", 2 * 2 / (2 + 3)),  # "a" is an article; b counts twice
        ("東京", "东京", 0.5),
        ("-5", "5", 1.0),  # SQuAD's, signs or not
        ("", "x", 0.0),
        ("?", "x", 0.0),
        # From here on neither side has a token, or one has none: as `exact`.
        ("", "", 0.0),
        ("", "A", 0.0),
        ("", "the", 0.0),
        ("A", "A", 1.0),
        ("A.", "A", 1.0),
        ("An", "A", 0.0),
        ("x", "the", 0.0),
        ("?", "!", 0.0),
        ("?", "?", 1.0),
        ("+", "-", 0.0),
    ],
)
def test_f1(response: str, reference: str, value: float) -> None:
    assert f1(response, reference) == pytest.approx(value)
    assert f1(reference, response) == pytest.approx(value)


def squad_tokens(text: str) -> list[str]:
    """Normalise and split as the official `evaluate-v1.1.py` does."""
    lowered = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", lowered).split()).split()


def squad_f1(prediction: str, truth: str) -> float:
    """`f1_score` of the official script, line by line."""
    said, meant = squad_tokens(prediction), squad_tokens(truth)
    same = sum((Counter(said) & Counter(meant)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(said), same / len(meant)
    return (2 * precision * recall) / (precision + recall)


def test_f1_is_the_official_scripts_on_3000_random_pairs() -> None:
    draw = random.Random(11)
    words = ["a", "An", "the", "The", "cat", "cats", "Paris", "U.S.", "3.5", "-5", "don't", "C++"]
    words += ["été", "мир", "(b)", "B", "re-do", "$5", "x<5", "theatre", "\t", "?", "&"]
    compared = 0
    while compared < 3000:
        one, other = (" ".join(draw.choices(words, k=draw.randint(0, 9))) for _ in "ab")
        if squad_tokens(other):
            assert f1(one, other) == pytest.approx(squad_f1(one, other)), (one, other)
            compared += 1


@given(TEXT, TEXT)
def test_both_are_symmetric_and_between_0_and_1(one: str, other: str) -> None:
    assert exact(one, other) == exact(other, one) in {0, 1}
    assert 0 <= f1(one, other) == f1(other, one) <= 1


@given(TEXT, TEXT)
def test_an_answer_is_itself_unless_it_is_blank(text: str, other: str) -> None:
    assert exact(text, text) == f1(text, text) == bool(text.strip())
    if exact(text, other):
        assert f1(text, other) == 1


@given(BLANK, TEXT)
def test_a_blank_answer_scores_nothing(blank: str, reference: str) -> None:
    assert exact(blank, reference) == f1(blank, reference) == 0


@given(PUNCTUATION, TEXT | PUNCTUATION)
def test_punctuation_scores_only_against_itself(answer: str, reference: str) -> None:
    if answer.split() != reference.split():
        plain = str.maketrans("\u201c\u201d", '""')
        same = answer.translate(plain).split() == reference.translate(plain).split()
        assert exact(answer, reference) == f1(answer, reference) == float(same)


@given(WORDS, st.sampled_from("+-*/=<>%$€#&|^~@_!?,;:()[]\\"))
def test_a_symbol_more_is_another_answer(word: str, symbol: str) -> None:
    assert exact(symbol + word, word) == exact(word + symbol, word) == 0
    assert exact(f"{word}{symbol}{word}", f"{word}{word}") == 0
    assert exact(f"{word}.{word}", f"{word}{word}") == 0


@given(WORDS, BLANK, BLANK, st.sampled_from(['"%s"', "'%s'", "%s.", "the %s", "An %s", '"%s."']))
def test_a_frame_changes_nothing(word: str, left: str, right: str, frame: str) -> None:
    if word.lower() in {"an", "the"}:
        word += word
    assert exact(left + frame.replace("%s", word) + right, word.upper()) == 1


def test_exact_minds_the_order_and_f1_does_not() -> None:
    assert exact("dog bites man", "man bites dog") == 0
    assert f1("dog bites man", "man bites dog") == 1


@pytest.mark.parametrize(
    ("response", "reference", "score"),
    [
        ("The capital is Paris.", "Paris", 1),
        ("15", "5", 0),
        ("-5", "5", 0),
        ("it is 5.", "5", 1),
        ("5.2", "5", 0),
        ("5", "5.", 1),
        ("1,000 km", "1,000", 1),
        ("1,000", "000", 0),
        ("v5", "5", 0),
        ("don't stop", "don't", 1),
        ("parisian", "Paris", 0),
        ("\u6771\u4eac\u306f\u65e5\u672c", "\u6771\u4eac", 1),
        ("\u0915\u093f \u0924\u093e\u092c", "\u0915", 0),
        (
            "\u0915\u093f\u0924\u093e\u092c \u0905\u091a\u094d\u091b\u0940",
            "\u0915\u093f\u0924\u093e\u092c",
            1,
        ),
        ("C++ is", "C++", 1),
        ("C++ is", "C", 1),
        ("C# x", "C#", 1),
        ("New\nYork City", "new york", 1),
        ("x", "", 0),
        ("", "", 0),
        ("3-5", "5", 1),
        (
            "\u200f\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645\u200f",
            "\u0645\u0631\u062d\u0628\u0627",
            1,
        ),
        ("He said \u201cyes\u201d", "yes", 1),
        ("A", "A", 1),
        ("an Apple", "apple", 1),
        ("cafe\u0301 noir", "caf\xe9", 1),
        ("it's .5 now", ".5", 1),
        ("0.5", ".5", 0),
        ("50%", "50%", 1),
        ("(5)", "5", 1),
        ("the U.S. is", "U.S.", 1),
        ("x=-5", "-5", 1),
        ("a_b", "a", 0),
        ("na\xefve", "na", 0),
    ],
)
def test_what_an_answer_contains(response: str, reference: str, score: float) -> None:
    assert contains(response, reference) == score


@given(TEXT, WORDS)
def test_an_answer_contains_a_word_wherever_it_stands(text: str, word: str) -> None:
    if word.lower() not in {"an", "the"}:
        assert contains(f"{text} {word} {text}", word) == 1
        assert contains(f"x{word}", word) == contains(f"{word}x", word) == 0


@pytest.mark.parametrize(
    ("response", "reference", "value"),
    # The values of `rouge_score` 0.1.2 without stemming.
    [
        ("the cat sat on the mat", "the cat was on the mat", 0.8333333333333334),
        ("The Quick-brown fox!", "the quick brown fox", 1.0),
        ("a b c d", "d c b a", 0.25),
        ("police killed the gunman", "police kill the gunman", 0.75),
        ("3.5% of them", "3 5 of us", 0.75),
        ("", "x", 0.0),
        ("one two three four five", "two four six", 0.5),
        # Beyond ASCII, which it drops.
        ("\u00e9t\u00e9 chaud", "\u00e9t\u00e9 froid", 0.5),
        ("\u6771\u4eac", "\u4eac\u90fd", 0.5),
    ],
)
def test_rouge_l(response: str, reference: str, value: float) -> None:
    pytest.importorskip("rapidfuzz")
    assert rouge_l(response, reference) == pytest.approx(value)
