"""Metrics against the reference answer, which need no judge: exact match and token F1.

Normalisation and both metrics are SQuAD's (Rajpurkar et al. 2016, `evaluate-v1.1.py`): lower case,
no punctuation, no English articles, single spaces, tokens by space. What SQuAD's English lacks is
as in MLQA's (Lewis et al. 2020, `mlqa_evaluation_v1.py`): what Unicode says is punctuation is so
too, and in scripts without spaces each character is a token. Composed and decomposed letters are equal
(NFC). Articles of other languages stay.
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


def tokens(text: str) -> list[str]:
    """A text's tokens after normalisation; none for one of articles and punctuation alone."""
    lowered = unicodedata.normalize("NFC", text).lower()
    words = "".join(
        letter
        for letter in lowered
        if letter not in string.punctuation and not unicodedata.category(letter).startswith("P")
    )
    return re.sub(_SPACELESS, r" \1 ", re.sub(_ARTICLES, " ", words)).split()


def exact(response: str, reference: str) -> float:
    """1 where response and reference have the same tokens, else 0."""
    return float(tokens(response) == tokens(reference))


def f1(response: str, reference: str) -> float:
    """The harmonic mean of precision and recall over the tokens, from 0 to 1.

    Tokens count as often as they occur. Where either has none, it is 1 if both have none, else 0
    (as in SQuAD 2.0).
    """
    said, meant = Counter(tokens(response)), Counter(tokens(reference))
    if not said or not meant:
        return float(said == meant)
    shared = (said & meant).total()
    return 2 * shared / (said.total() + meant.total())
