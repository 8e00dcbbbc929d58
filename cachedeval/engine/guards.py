"""What a closure has read, to see at each call of its node whether it has changed.

Names and attributes are compared by identity, plain data by its encoding, and other objects that may
change by the identity of their parts. So a closure that has not changed costs little at a call.
"""

import types
from collections.abc import Callable, Mapping
from typing import Any

from cachedeval.engine.encoding import encode
from cachedeval.engine.errors import EncodingError

__all__ = ["ABSENT", "Guards", "changeable", "content"]

ABSENT: Any = object()
"""Stands for a name without a value."""

_ATOMS = frozenset({str, int, float, bool, bytes, type(None)})


class Guards:
    """What a closure read, to see at each call whether it has changed."""

    def __init__(self) -> None:
        self.items: list[tuple[Mapping[str, Any], str, Any]] = []
        """Names in modules, and what they were."""
        self.cells: list[tuple[types.CellType, Any]] = []
        self.codes: list[tuple[Any, tuple[Any, ...]]] = []
        self.spaces: list[tuple[Mapping[str, Any], tuple[str, ...], tuple[Any, ...]]] = []
        """Namespaces of classes and modules that count as a whole."""
        self.data: list[tuple[Any, bytes]] = []
        """Plain data, with the encodings of what it was."""
        self.objects: list[tuple[Any, list[tuple[str, Any]]]] = []
        """Other objects that may change, with what they consisted of."""
        self.checks: list[Callable[[], bool]] = []

    def hold(self) -> bool:
        """Return whether everything is as it was."""
        for names, name, value in self.items:
            if names.get(name, ABSENT) is not value:
                return False
        for cell, value in self.cells:
            if content(cell) is not value:
                return False
        for function, parts in self.codes:
            if any(a is not b for a, b in zip(changeable(function), parts, strict=True)):
                return False
        for space, keys, values in self.spaces:
            if tuple(space) != keys or any(
                a is not b for a, b in zip(space.values(), values, strict=True)
            ):
                return False
        try:
            return (
                all(encode(value) == was for value, was in self.data)
                and all(_same(_parts(value), was) for value, was in self.objects)
                and all(check() for check in self.checks)
            )
        except (EncodingError, RecursionError):
            return False

    def note_class(self, cls: type) -> None:
        """Note a class: its attributes, bases and metaclass."""
        self.note_space(vars(cls))
        bases, kind = cls.__bases__, type(cls)
        self.checks.append(lambda: cls.__bases__ is bases and type(cls) is kind)

    def note_space(self, space: Mapping[str, Any]) -> None:
        """Note a namespace that counts as a whole."""
        self.spaces.append((space, tuple(space), tuple(space.values())))


def content(cell: types.CellType) -> Any:
    """Return the value of a cell, or `ABSENT`."""
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return ABSENT


def changeable(function: Any) -> tuple[Any, ...]:
    """Return the parts of a function that an assignment may replace."""
    return function.__code__, function.__defaults__, function.__kwdefaults__


def _parts(value: Any) -> list[tuple[str, Any]] | None:
    from cachedeval.engine.parts import OpaqueError, take_apart

    try:
        return take_apart(value).parts
    except OpaqueError:
        return None


def _same(value: Any, was: Any) -> bool:
    """Return whether two values are identical, but for new containers with identical members."""
    if value is was:
        return True
    kind = type(value)
    if kind is not type(was):
        return False
    if kind in _ATOMS:
        return encode(value) == encode(was)
    if kind is dict:
        value, was = [*value.items()], [*was.items()]
    elif kind is not list and kind is not tuple:
        return False
    return len(value) == len(was) and all(map(_same, value, was))
