"""The letter that an answer to a multiple-choice question commits to."""

import re
import unicodedata

__all__ = ["choice", "committed", "letter_of"]

_LETTER = r"(?:\\text\s?\{|\\mathrm\s?\{)?[(\[{]?(?:([A-Z])(?![\w'+#])|(?<=[(\[{])([a-z])(?=[)\]}]))[)\]}]*"
_NAMES = r"answer|choice|option|antwort|r\u00e9ponse|respuesta|risposta|resposta|\u7b54\u6848|\u043e\u0442\u0432\u0435\u0442|\u0627\u0644\u0625\u062c\u0627\u0628\u0629|\u7b54\u3048"
_BETWEEN = (
    r"(?:[\s:=>\"'$,-]|\\?boxed\s?\{|is\b|are\b|was\b|be\b|should\b|must\b|would\b|therefore\b"
    r"|definitely\b|probably\b|clearly\b|the\b|letter\b|option\b|choice\b|answer\b|correct\b"
    r"|ist\b|est\b|es\b|\u00e9\b|\u662f|\u4e3a|\u70ba|\u306f|\u0647\u064a\b|\u2013|\u2014|\uff1a){0,12}"
)
_STATED = rf"(?i:\b(?:{_NAMES})|\u7b54\u6848|\u7b54\u3048){_BETWEEN}{_LETTER}"
_BOXED = rf"\\boxed\s?\{{\s?(?:{_LETTER}|([a-z])\}})"
_CHOSEN = (
    r"(?i:\b(?:choose|select|pick|go with|choosing|selecting|would be|must be|conclude))"
    rf"\s{{1,3}}(?i:(?:option|choice|answer|letter)\s{{1,3}})?{_LETTER}"
)
_CALLED = (
    rf"(?<![\w'])(?:(?i:option|choice|answer)\s{{1,3}})?{_LETTER}\s{{1,3}}(?i:is|would be|seems)\s{{1,3}}"
    r"(?i:(?:the|my|clearly|definitely|therefore)\s{1,3}){0,2}(?i:correct|right|best|true|answer)\b"
)
_STATEMENTS = "|".join(f"(?:{form})" for form in (_STATED, _BOXED, _CHOSEN, _CALLED))
_ALSO = r"\s{0,3}(?:/|&|,|(?i:or|and|und|oder|ou|et|y|o)\b|\u6216|\u548c)\s{0,3}(?i:option\s|choice\s)?[(\[]?[A-Z](?![\w'])"
_FIRST = r"[\s#]*[\"'$]?\s?(?:[(\[]([A-Za-z])[)\]]|([A-Za-z])(?:[.):,\]](?=\s|$)|\s*(?:\n|$)))"
_LABELS = r"(?:^|\n|\s)[(\[]?([A-Z])[.)\]](?=\s)"
_ALONE = r"(?<![\w'.])([A-Z])(?![\w'+#])"
_DENIED = r"(?:\bnot|n't|n\u2019t|\bnor|\bneither|\bexcept)\s{1,3}(?i:option\s|choice\s)?[(\[]?$"
_WRONG = r"[)\]]?\s{1,3}(?:is|seems)\s{1,3}(?:not|wrong|incorrect|false)\b"
_A_WORD = r"\s(?!(?:or|and|und|oder|ou|et|y|o|is)\b)[^\W\d_]"
_DECORATION = str.maketrans("", "", "*_`~")


def choice(response: str, reference: str) -> float:
    """Return 1 where an answer commits to the letter of the reference, else 0.

    See `committed`.

    Args:
        response: The answer.
        reference: A letter, alone or as a label: ``B``, ``(b)``, ``B. Paris``.

    Example:
        >>> choice("A is tempting, but the answer is (B).", "B"), choice("A or B", "B")
        (1.0, 0.0)
    """
    letter = committed(response)
    return float(letter is not None and letter == letter_of(reference))


def letter_of(reference: str) -> str | None:
    """Return the letter that a reference is, or begins with as a label; None if it is no such.

    Example:
        >>> letter_of("(b)"), letter_of("B. Paris"), letter_of("Paris")
        ('B', 'B', None)
    """
    text = _plain(reference).strip()
    found = re.match(_FIRST, text) or re.fullmatch(r"\W*([A-Za-z])\W*", text)
    return _letter(found) if found else None


def committed(response: str) -> str | None:
    r"""Return the letter that an answer commits to; None where it commits to none, or to several.

    In this order:

    - the last statement of an answer: "the answer is (B)", "``\\boxed{B}``", "I choose B", "B is
      correct". One that names several letters ("A or B") commits to none;
    - a letter that the answer begins with as a label: "B", "(b)", "B. Paris", unless it repeats
      other labels too;
    - the only capital letter that stands alone. "I" does not count, nor does "A" before a word.

    Args:
        response: The answer.

    Example:
        >>> committed("B"), committed("The answer is not A but the answer is C."), committed("Paris")
        ('B', 'C', None)
    """
    text = _plain(response)
    stated = None
    for stated in re.finditer(_STATEMENTS, text):  # noqa: B007  the last
        pass
    if stated is not None:
        return None if re.match(_ALSO, text[stated.end() : stated.end() + 32]) else _letter(stated)
    labels = set(re.findall(_LABELS, text))
    first = re.match(_FIRST, text)
    if first is not None:
        letter = _letter(first)
        return letter if labels <= {letter} else None
    found = {letter[1] for letter in re.finditer(_ALONE, text) if _may_be_meant(letter)}
    return found.pop() if len(found) == 1 else None


def _may_be_meant(letter: "re.Match[str]") -> bool:
    """Return whether a capital letter is neither a word of English nor denied."""
    before, after = letter.string[max(0, letter.start() - 16) : letter.start()], letter.end()
    return not (
        letter[1] == "I"
        or (letter[1] == "A" and re.match(_A_WORD, letter.string[after : after + 8]))
        or re.search(_DENIED, before)
        or re.match(_WRONG, letter.string[after : after + 24])
    )


def _plain(text: str) -> str:
    """Return a text without emphasis and marks of writing directions, with plain letters."""
    text = unicodedata.normalize("NFKC", text.translate(_DECORATION))
    if text.isascii():
        return text
    return "".join(letter for letter in text if unicodedata.category(letter) != "Cf")


def _letter(found: "re.Match[str]") -> str:
    return next(group for group in found.groups() if group).upper()
