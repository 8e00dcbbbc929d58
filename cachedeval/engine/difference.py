"""The difference of two values of plain data, field by field."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from cachedeval.engine.encoding import Coded, Identified, Member, Output, Typed, encode
from cachedeval.engine.errors import EncodingError

__all__ = ["ABSENT", "Difference", "differences", "short"]

_WIDTH = 60

_DIGEST = re.compile(r"\w+:[0-9a-f]+…?", re.ASCII)

ABSENT: Any = type("Absent", (), {"__repr__": lambda _: "(absent)"})()
"""The placeholder for a field that one of two values lacks."""


class Difference(NamedTuple):
    """One field that differs.

    Attributes:
        where: the path to the field, as in `adapter / files / adapters.safetensors`.
        was: the old value as short text.
        now: the new value as short text.

    Example:
        >>> print(Difference("sampling / temperature", "0.0", "0.7"))
        sampling / temperature: 0.0 → 0.7
    """

    where: str
    was: str
    now: str

    def __str__(self) -> str:
        return (
            f"{self.where}: {self.was} → {self.now}" if self.where else f"{self.was} → {self.now}"
        )


def differences(was: Any, now: Any, where: str = "") -> Iterator[Difference]:
    """Yield the innermost fields in which two values differ.

    Args:
        was: the old value; plain data.
        now: the new value; plain data.
        where: the path to both values, the prefix of each `Difference.where`.

    Example:
        >>> old = {"model": "m", "sampling": {"temperature": 0.0}}
        >>> new = {"model": "m", "sampling": {"temperature": 0.7}}
        >>> print(*differences(old, new))
        sampling / temperature: 0.0 → 0.7
    """
    try:
        yield from list(_differences(was, now, where))
    except RecursionError:
        yield Difference(where, *(f"{type(v).__name__}, too deep to compare" for v in (was, now)))


def _differences(was: Any, now: Any, where: str) -> Iterator[Difference]:
    if _same(was, now):
        return
    before, after = _fields(was), _fields(now)
    inner: list[Difference] = []
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            inside = f"{where} / {key}" if where else str(key)
            inner += _differences(before.get(key, ABSENT), after.get(key, ABSENT), inside)
    # A list and a tuple, or two classes, may differ although their members are equal.
    yield from inner or [Difference(where, *_show(was, now))]


def short(digest: str) -> str:
    """Return a digest's algorithm and first digits."""
    algorithm, _, rest = digest.partition(":")
    return f"{algorithm}:{rest[:8]}…"


def _same(was: Any, now: Any) -> bool:
    if was is ABSENT or now is ABSENT:
        return was is now
    try:
        return encode(was) == encode(now)
    except EncodingError:
        return False


def _fields(value: Any) -> Any:
    """Return a value that has named or numbered members as a dict of them."""
    if isinstance(value, Typed):
        return value.fields
    if isinstance(value, Coded):
        return _fields(value.data)
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return dict(enumerate(value)) or value
    return value


def _show(was: Any, now: Any) -> tuple[str, str]:
    """Return both values as short text, around the first place where they differ."""
    one, other = _text(was), _text(now)
    if one == other:  # the types differ, as those of two enums with equal names
        one, other = (f"{text} ({type(v).__name__})" for text, v in ((one, was), (other, now)))
    if len(one) <= _WIDTH and len(other) <= _WIDTH:
        return one, other
    start = next(
        (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )
    start = max(0, start - _WIDTH // 3)
    return _cut(one, start), _cut(other, start)


def _text(value: Any) -> str:
    if isinstance(value, (Output, Identified)):
        return short(value.digest)
    if isinstance(value, Member):
        return f"{value.kind.rpartition('.')[2]}.{value.name}"
    if isinstance(value, Typed):
        return f"{value.kind.rpartition('.')[2]}({', '.join(value.fields)})"
    if isinstance(value, Coded):
        data = value.data if type(value.data) is tuple else (value.data,)
        return f"{value.name.rpartition('.')[2]}({', '.join(map(repr, data))})"
    # Other text may contain control characters of a terminal, which `repr` escapes.
    return value if isinstance(value, str) and _DIGEST.fullmatch(value) else repr(value)


def _cut(text: str, start: int) -> str:
    head = "…" if start else ""
    tail = "…" if len(text) > start + _WIDTH else ""
    return f"{head}{text[start : start + _WIDTH]}{tail}"
