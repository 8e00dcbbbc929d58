"""Scorers that compare texts: exact match, token F1, containment and ROUGE-L.

`f1` is SQuAD's (Rajpurkar et al. 2016, `evaluate-v1.1.py`): lower case, no punctuation, no English
articles, single spaces, tokens by space. What SQuAD's English lacks is as in MLQA's (Lewis et al.
2020, `mlqa_evaluation_v1.py`): what Unicode says is punctuation is so too, and in scripts without
spaces each character is a token. Composed and decomposed letters are equal (NFC). Articles of other
languages stay.

That normalisation drops signs, decimal points, operators, and each "a": to it, ``-5`` is ``5`` and
an answer of one letter may be nothing. So `exact` has its own, which changes only what no reader
would take for another answer; see there.

Nothing scores without content: an empty answer is worth 0 against every reference.
"""

import re
import string
import unicodedata
from collections import Counter

__all__ = ["contains", "exact", "f1", "rouge_l", "tokens"]

# Compiled at the first use: that takes 2 ms, and most runs have another judge.
_ARTICLES = r"\b(a|an|the)\b"
_SPACELESS = (
    "["
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3040-\u30ff\u31f0-\u31ff"  # Hiragana, Katakana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "]"
)

_UNIT = (
    rf"{_SPACELESS}"
    r"|(?:(?<![\w)\]])[-+\u2212](?=[.,]?\d))?(?:(?<![\w.])\.(?=\d))?"
    rf"(?:(?!{_SPACELESS})\w|(?<=\d)[.,](?=\d)|(?<=[^\W\d_])'(?=[^\W\d_]))+"
    r"|\S"
)
"""A word, a number with its sign, a character of a script without spaces, or another character."""

_STOPS = (".", "\u3002")
_QUOTES = (
    ('"', '"'),
    ("'", "'"),
    ("\u00ab", "\u00bb"),
    ("\u300c", "\u300d"),
    ("\u300e", "\u300f"),
)
_PLAIN_QUOTES = str.maketrans("\u201c\u201d\u201e\u2018\u2019\u201a", "\"\"\"'''")
# "a" is also a letter, a variable and a grade, so more than one letter must follow it.
_LEADING_ARTICLE = r"(?:(?:an|the) (?=\S)|a (?=[^\W\d_]{2}))(?!(?:a|an|the)(?:\W|$))"


def tokens(text: str) -> list[str]:
    """Return a text's tokens after SQuAD's normalisation.

    Args:
        text: Any text.

    Returns:
        The tokens; none for a text of articles and punctuation alone.

    Example:
        >>> tokens("The Eiffel Tower.")
        ['eiffel', 'tower']
    """
    words = "".join(letter for letter in _lowered(text) if not _is_punctuation(letter))
    return re.sub(_SPACELESS, r" \g<0> ", re.sub(_ARTICLES, " ", words)).split()


def exact(response: str, reference: str) -> float:
    """Return 1 where both are the same answer, else 0; 0 for a blank response.

    The same are answers that differ only in

    - upper and lower case, and how letters with accents are composed (NFC);
    - white space around them, or its kind and amount within;
    - a full stop right behind the last word;
    - quotation marks around the whole, and typographic for plain quotation marks and apostrophes;
    - one English article in front, where something else follows (after "a": a word of two
      letters or more).

    Nothing else is dropped: signs, decimal points, operators, units, currencies, ``%``, ``!``,
    ``?`` and commas count, in numbers too (``1,000`` is not ``1000``, ``1.0`` is not ``1``).
    Punctuation alone is equal only to itself.

    Args:
        response: The answer.
        reference: The right one.

    Example:
        >>> exact("The Eiffel Tower.", "eiffel tower"), exact("5", "-5"), exact("", "A")
        (1.0, 0.0, 0.0)
    """
    said = _same(response)
    return float(bool(said) and said == _same(reference))


def f1(response: str, reference: str) -> float:
    """Return the harmonic mean of precision and recall over the tokens, from 0 to 1.

    Tokens count as often as they occur. Where the reference has no token ("A", "?"), it is
    `exact`; where only the response has none, it is 0.

    Args:
        response: The answer.
        reference: The right one.

    Example:
        >>> f1("Paris, France", "Paris")
        0.6666666666666666
    """
    said, meant = Counter(tokens(response)), Counter(tokens(reference))
    if not meant:
        return exact(response, reference)
    shared = (said & meant).total()
    return 2 * shared / (said.total() + meant.total())


def contains(response: str, reference: str) -> float:
    """Return 1 where the reference occurs in the response, else 0.

    Both are compared as by `exact`, word by word: the reference occurs only as whole words and
    numbers, with their signs. ``5`` does not occur in ``15``, ``-5``, ``5.2`` or ``v5``.

    Args:
        response: The answer.
        reference: The right one.

    Example:
        >>> contains("The capital of France is Paris, of course.", "paris")
        1.0
        >>> contains("It is 15.", "5"), contains("", "A")
        (0.0, 0.0)
    """
    meant = _units(_same(reference))
    # Between separators, a search for a text is one for whole units, in linear time.
    said = "\0".join(
        ["", *_units(" ".join(_lowered(response).translate(_PLAIN_QUOTES).split())), ""]
    )
    return float(bool(meant) and "\0".join(["", *meant, ""]) in said)


def rouge_l(response: str, reference: str) -> float:
    """Return ROUGE-L: the F1 of the longest common subsequence of the words.

    As in `rouge_score` without stemming (Lin 2004): lower case, letters and digits alone, recall
    and precision weighted equally. Letters beyond ASCII count too, and in scripts without spaces
    each character is a word.

    Args:
        response: The answer.
        reference: The right one.

    Example:
        >>> rouge_l("the cat sat on the mat", "the cat was on the mat")  # doctest: +SKIP
        0.8333333333333334
    """
    from rapidfuzz.distance import LCSseq  # noqa: PLC0415  an extra

    said, meant = _words(response), _words(reference)
    if not said or not meant:
        return 0.0
    # As numbers: hashes of strings differ from process to process.
    known = {word: number for number, word in enumerate(dict.fromkeys([*said, *meant]))}
    shared = LCSseq.similarity([known[word] for word in said], [known[word] for word in meant])
    return float(2 * shared / (len(said) + len(meant)))


def _words(text: str) -> list[str]:
    return re.findall(rf"{_SPACELESS}|(?:(?!{_SPACELESS})[^\W_])+", _lowered(text))


def _units(text: str) -> list[str]:
    """Return the words, numbers and symbols of a text."""
    if text.isascii():
        return [unit[0] for unit in re.finditer(_UNIT, text)]
    text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    spans: list[tuple[int, int]] = []
    for found in re.finditer(_UNIT, text):
        start, end = found.span()
        if spans and spans[-1][1] == start:
            # A mark, such as a vowel of Hindi, belongs to the letters around it.
            before, first = (unicodedata.category(text[at])[0] for at in (start - 1, start))
            if first == "M" or (before == "M" and first in "LN"):
                start = spans.pop()[0]
        spans.append((start, end))
    return [text[start:end] for start, end in spans]


def _lowered(text: str) -> str:
    return unicodedata.normalize("NFC", text).lower()


def _is_punctuation(letter: str) -> bool:
    """Tell whether SQuAD, or Unicode, takes a character for punctuation."""
    return letter in string.punctuation or unicodedata.category(letter).startswith("P")


def _same(text: str) -> str:
    """Return the text that all spellings of an answer have in common; "" for a blank one.

    It takes away only what `tokens` takes away too. So answers that are the same have the same
    tokens, and an `f1` of 1.
    """
    left = " ".join(_lowered(text).translate(_PLAIN_QUOTES).split())
    article = True
    while True:
        shorter = _without_frame(left)
        if shorter is None and article:
            article = False  # one alone
            shorter = re.sub(rf"^{_LEADING_ARTICLE}", "", left, count=1)
        if shorter is None or shorter == left or not _has_content(shorter):
            return left
        left = shorter


def _without_frame(text: str) -> str | None:
    """Return a text without the full stop at its end, or the quotation marks around it."""
    if text.endswith(_STOPS) and text[-2:-1] not in {"", " ", *_STOPS}:  # "...", "git add ."
        return text[:-1]
    for opening, closing in _QUOTES:
        inside = text[1:-1]
        if text == f"{opening}{inside}{closing}" and not {opening, closing} & set(inside):
            return inside.strip()
    return None


def _has_content(text: str) -> bool:
    return any(not letter.isspace() and unicodedata.category(letter)[0] != "P" for letter in text)
