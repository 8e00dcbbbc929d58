"""Metrics against the reference answer, which need no judge: exact match and token F1.

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

__all__ = ["exact", "f1", "tokens"]

# Compiled at the first use: that takes 2 ms, and most runs have another judge.
_ARTICLES = r"\b(a|an|the)\b"
_SPACELESS = (
    "(["
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3040-\u30ff\u31f0-\u31ff"  # Hiragana, Katakana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "])"
)

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
    return re.sub(_SPACELESS, r" \1 ", re.sub(_ARTICLES, " ", words)).split()


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
