"""What a regular expression finds in an answer.

A pattern may take time that grows exponentially with the text, and the text is a model's. Python's
own module cannot be stopped, so the search is by the package `regex`, which can.
"""

import re
from functools import lru_cache
from typing import Any

from cachedeval.evals.scorers.text import exact

__all__ = ["check_pattern", "matches", "searched"]

_SECONDS = 2.0
"""The most that a search may take; one that is not exponential takes milliseconds."""


def check_pattern(pattern: str) -> bool:
    """Return whether a pattern has a group.

    Raises:
        ValueError: It is no pattern.
    """
    try:
        return re.compile(pattern).groups > 0
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"the pattern {pattern!r} is invalid: {error}") from None


def matches(response: str, reference: str | None, pattern: str) -> float:
    r"""Return 1 where the last match of a pattern is the reference, else 0.

    What the first group matched is compared with the reference by `exact`. A pattern without a
    group is compared with nothing: it is 1 where the pattern matches anywhere.

    Args:
        response: The answer.
        reference: The right one; a pattern without a group needs none.
        pattern: The regular expression.

    Raises:
        TimeoutError: The search takes too long.

    Example:
        >>> matches("The answer is 4. No: the answer is 5.", "5", r"answer is (\d+)")
        1.0
        >>> matches("2026-11-30", None, r"^\d{4}-\d\d-\d\d$")
        1.0
    """
    found = None
    compiled = _compiled(pattern)
    try:
        for found in compiled.finditer(response, timeout=_SECONDS, concurrent=True):  # noqa: B007  the last
            pass
    except TimeoutError:
        raise TimeoutError(_too_long(pattern, response)) from None
    if found is None:
        return 0.0
    if not compiled.groups:
        return 1.0
    return exact(found[1] or "", reference or "")


def searched(pattern: str, text: str) -> bool:
    """Return whether a pattern matches somewhere in a text.

    Raises:
        TimeoutError: The search takes too long.
    """
    try:
        return _compiled(pattern).search(text, timeout=_SECONDS, concurrent=True) is not None
    except TimeoutError:
        raise TimeoutError(_too_long(pattern, text)) from None


def _too_long(pattern: str, text: str) -> str:
    return (
        f"the pattern {pattern!r} takes more than {_SECONDS:.0f} s on a text of {len(text):,} "
        "characters: write it without nested repetitions such as (a+)+"
    )


@lru_cache(64)
def _compiled(pattern: str) -> Any:
    import regex  # noqa: PLC0415  only this scorer needs it

    return regex.compile(pattern)
