r"""The number that an answer ends with, compared with that of the reference.

The last number of the answer counts, as in the "flexible" match of GSM8K's harnesses (Cobbe et al.
2021), or what the answer marks as final: the last ``\boxed{…}`` or what follows ``####``. Numbers are
compared by value, exactly: ``1,000`` is ``1000.0``, and ``1/2`` is ``0.5``.
"""

import re
import unicodedata
from fractions import Fraction

__all__ = ["last_number", "numeric", "read_tolerance"]

_LONGEST = 400
"""Digits of a number, and the size of an exponent; a longer one is no answer to anything."""

_SPACES = "\u00a0\u2009\u202f"
"""Spaces that do not break: they separate thousands. A plain space separates numbers."""

_VULGAR = "\u00bc-\u00be\u2150-\u215e"
_WORD = r"[A-Za-z_]+(?:\d[\w.]*)?"
"""A word or a name such as H2O, v1.2 or x5, whose digits are no number."""

_NUMBER = (
    rf"{_WORD}|((?:\d+(?:[.,'\u2019_\u066b\u066c{_SPACES}]\d+)*|\.\d+)(?:[eE][+-]?\d+(?!\w))?"
    rf"|[{_VULGAR}])"
)
_OF_A_NAME = r"[A-Za-z]\s?\^\s?\{?\s?-?$"
_SIGN = (
    r"(?:(?<![\w)\]}])([-+])[$\u00a3\u00a5\u20ac\u20b9]?"
    r"|(?<=[=:(\[{])\s{0,3}([-+])\s{1,3}|^\s{0,3}([-+])\s{1,3})$"
)
_CURRENCY_SIGN = r"[$\u00a3\u00a5\u20ac\u20b9]([-+])$"
_TIMES = r"\s{0,3}(?:[x\u00d7*\u00b7\u22c5]|\\times|\\cdot)\s{0,3}"
_POWER = r"\s?(?:\^|\*\*)\s?\{?\s?([-+]?)"
_SLASH = r"\s?[/\u2044]\s?"
_MINUSES = str.maketrans(dict.fromkeys("\u2212\ufe63\uff0d\u2012\u2013", "-"))
_SUPERSCRIPTS = str.maketrans(
    "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079", "-0123456789"
)
_SUPERSCRIPT = r"\u207b?[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]{1,3}"


def numeric(response: str, reference: str, tolerance: str = "0") -> float:
    """Return 1 where the last numbers of both are equal, or closer than the tolerance, else 0.

    Args:
        response: The answer.
        reference: The right one.
        tolerance: The largest difference that counts as none, as in ``0.01``, or ``1%`` of the
            reference.

    Example:
        >>> numeric("So that is $1,234.50 in all.", "1234.5"), numeric("-5", "5")
        (1.0, 0.0)
        >>> numeric("about 3.14", "3.14159", "0.1%")
        1.0
    """
    said, meant = last_number(response), last_number(reference)
    if said is None or meant is None:
        return 0.0
    bound, relative = read_tolerance(tolerance)
    return float(abs(said - meant) <= (bound * abs(meant) if relative else bound))


def read_tolerance(text: str) -> tuple[Fraction, bool]:
    """Return a tolerance, and whether it is relative to the reference.

    Raises:
        ValueError: It is not a number of 0 or more, with or without ``%``.
    """
    number = text.strip().removesuffix("%")
    if not re.fullmatch(r"\d{1,9}(?:\.\d{1,12})?(?:[eE]-?\d{1,2})?|\.\d{1,12}", number, re.ASCII):
        raise ValueError(
            f"the tolerance {text!r} is not a number such as 0.01, or 1% for a relative one"
        )
    relative = text.strip().endswith("%")
    return Fraction(number) / (100 if relative else 1), relative


def last_number(text: str) -> Fraction | None:
    """Return the number that a text ends with or marks as its final answer; None if it has none.

    Example:
        >>> last_number("1/2 of 3 1/4"), last_number("1.5e3"), last_number("none")
        (Fraction(13, 4), Fraction(1500, 1), None)
    """
    text = _plain(_final(text))
    found = [
        number
        for number in re.finditer(_NUMBER, text)
        if number[1]
        and not re.search(_OF_A_NAME, text[max(0, number.start() - 8) : number.start()])
    ]
    return _read(text, found) if found else None


def _final(text: str) -> str:
    r"""Return what a text marks as its final answer: the last ``\boxed{…}``, or what follows ``####``."""
    start = text.rfind("\\boxed{")
    if start >= 0:
        depth, begin = 0, start + len("\\boxed")
        for position in range(begin, len(text)):
            depth += (text[position] == "{") - (text[position] == "}")
            if not depth:
                inside = text[begin + 1 : position]
                return inside if re.search(rf"\d|[{_VULGAR}]", inside) else text
        return text
    _, mark, after = text.rpartition("####")
    return after if mark and re.search(r"\d", after) else text


def _plain(text: str) -> str:
    """Return a text without the marks of LaTeX and of writing directions, with one kind of minus."""
    text = text.translate(_MINUSES)
    for mark, plain in (("{,}", ","), ("\\,", "\u202f"), ("\\!", ""), ("\\$", "$"), ("\\%", "%")):
        text = text.replace(mark, plain)
    if not text.isascii():
        text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    return text


def _read(text: str, found: list[re.Match[str]]) -> Fraction | None:
    """Return the value of the last number, which may be written as several."""
    value = _value(found[-1][0])
    if value is None:
        return None
    gaps = [
        "" if index == 0 else text[found[index - 1].end() : number.start()]
        for index, number in list(enumerate(found))[-3:]
    ]
    for form in (_with_vulgar, _with_power, _with_slash, _with_frac):
        read = form(text, found[-3:], gaps)
        if read is not None:
            count, value = read
            return _signed(text, found[-count].start(), value)
    return _signed(text, found[-1].start(), value)


_Read = tuple[int, Fraction | None]
"""How many numbers make up one, and its value; None where that is not to be had."""


def _with_vulgar(text: str, found: list[re.Match[str]], gaps: list[str]) -> _Read | None:
    """Read one like 1½."""
    del text
    if len(found) == 1 or found[-1][0].isdecimal() or unicodedata.category(found[-1][0][0]) != "No":
        return None
    whole, part = _whole(found[-2][0]), _value(found[-1][0])
    return None if whole is None or part is None or gaps[-1].strip(" ") else (2, whole + part)


def _with_power(text: str, found: list[re.Match[str]], gaps: list[str]) -> _Read | None:
    """Read one like 10³, 2^10 or 1.5e-3 with a power of ten."""
    end = found[-1].end()
    above = re.match(_SUPERSCRIPT, text[end : end + 4])
    raised = re.fullmatch(_POWER, gaps[-1])
    if above is not None:
        exponent = Fraction(int(above[0].translate(_SUPERSCRIPTS)))
        at = 1
    elif len(found) > 1 and raised is not None:
        exponent = _value(found[-1][0]) or Fraction(0)
        exponent, at = (-exponent if raised[1] == "-" else exponent), 2
    else:
        return None
    base = _value(found[-at][0])
    value = _raised(base, exponent)
    if base == 10 and len(found) > at and re.fullmatch(_TIMES, gaps[-at]):  # noqa: PLR2004
        factor = _value(found[-at - 1][0])
        return at + 1, None if factor is None or value is None else factor * value
    return at, value


def _with_slash(text: str, found: list[re.Match[str]], gaps: list[str]) -> _Read | None:
    """Read one like 1/2 or 3 1/2; a date such as 5/12/2024 is none."""
    del text
    if len(found) == 1 or not re.fullmatch(_SLASH, gaps[-1]):
        return None
    if len(found) > 2 and re.fullmatch(_SLASH, gaps[-2]):  # noqa: PLR2004
        return None
    value = _quotient(found)
    whole = _whole(found[-3][0]) if len(found) > 2 and gaps[-2] == " " else None  # noqa: PLR2004
    if whole is not None and value is not None and value < 1:
        return 3, whole + value
    return 2, value


def _with_frac(text: str, found: list[re.Match[str]], gaps: list[str]) -> _Read | None:
    r"""Read one like ``\frac{1}{2}``."""
    if len(found) == 1 or not re.fullmatch(r"\s?\}\s?\{\s?", gaps[-1]):
        return None
    start = found[-2].start()
    above = re.search(r"([-+]?)\\[dt]?frac\s?\{\s?([-+]?)$", text[max(0, start - 14) : start])
    if above is None:
        return None
    value = _quotient(found)
    # A sign within the braces is read with the number.
    return 2, -value if above[1] == "-" and value is not None else value


def _quotient(found: list[re.Match[str]]) -> Fraction | None:
    above, below = _value(found[-2][0]), _value(found[-1][0])
    return None if above is None or not below else above / below


def _raised(base: Fraction | None, exponent: Fraction) -> Fraction | None:
    if base is None or exponent.denominator != 1 or (not base and exponent < 0):
        return None
    digits = max(len(str(base.numerator)), len(str(base.denominator)))
    return Fraction(base**exponent) if abs(exponent) * digits <= 2 * _LONGEST else None


def _signed(text: str, start: int, value: Fraction | None) -> Fraction | None:
    if value is None:
        return None
    # In a cut text, the "^" of a pattern must not match.
    before = text[:start] if start <= 8 else f"x{text[start - 8 : start]}"  # noqa: PLR2004
    sign = re.search(_SIGN, before) or re.search(_CURRENCY_SIGN, before)
    return -value if sign is not None and "-" in sign.groups() else value


def _whole(written: str) -> Fraction | None:
    return Fraction(int(written)) if written.isdecimal() and len(written) <= _LONGEST else None


def _value(written: str) -> Fraction | None:
    """Return the value of one number as it is written; None where it is too long."""
    if len(written) > _LONGEST:
        return None
    if unicodedata.category(written[0]) == "No":
        above, _, below = unicodedata.normalize("NFKC", written).partition("\u2044")
        return Fraction(int(above), int(below)) if below else None
    if not written.isascii():
        written = "".join(str(int(c)) if c.isdecimal() else c for c in written)
    mantissa, _, exponent = re.sub("[eE]", "e", written).partition("e")
    if abs(int(exponent or 0)) > _LONGEST:
        return None
    mantissa = mantissa.replace("\u066b", ".").replace("\u066c", ",")
    mantissa = re.sub(rf"['\u2019_{_SPACES}]", "_", mantissa)
    whole, _, part = _split(mantissa)
    number = Fraction(int(f"{whole or 0}{part}"), 10 ** len(part))
    return number * Fraction(10) ** int(exponent or 0)


def _split(mantissa: str) -> tuple[str, str, str]:
    """Return the digits before and after the decimal mark.

    The last of two kinds of marks is the decimal one. A comma alone separates thousands where its
    groups allow that, and a point alone does not, unless there are several. Where neither reading
    is possible ("1,2,3", "192.168.0.1"), the last part is the last number.
    """
    grouped = r"[1-9]\d{0,2}(?:%s\d{2,3})*%s\d{3}|\d+"
    kinds = {letter for letter in mantissa if letter in ".,"}
    if len(kinds) == 2 or ("_" in mantissa and kinds):  # noqa: PLR2004
        mark = max(kinds, key=mantissa.rindex)
        whole, _, part = mantissa.rpartition(mark)
        others = "".join({letter for letter in whole if not letter.isdecimal()})
        if len(others) <= 1 and (
            not others or re.fullmatch(grouped % ((re.escape(others),) * 2), whole)
        ):
            return re.sub(r"\D", "", whole), mark, part
        return re.split(r"[.,_]", mantissa)[-1], "", ""
    for mark in ("_", ","):
        if mark in mantissa and re.fullmatch(grouped % (mark, mark), mantissa):
            return mantissa.replace(mark, ""), "", ""
    if mantissa.count(".") > 1 and re.fullmatch(grouped % (r"\.", r"\."), mantissa):
        return mantissa.replace(".", ""), "", ""
    for mark in (".", ","):
        if mantissa.count(mark) == 1 and "_" not in mantissa:
            whole, _, part = mantissa.partition(mark)
            return whole, mark, part
    return re.split(r"[.,_]", mantissa)[-1], "", ""
