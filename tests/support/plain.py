"""Plain data of every kind, and an equality of it that owes nothing to the encoding."""

import math
import struct
from collections import Counter, namedtuple
from dataclasses import dataclass
from enum import Enum, Flag, IntEnum
from typing import Any, NamedTuple

import msgspec
from hypothesis import strategies as st

from cachedeval.engine.encoding import Identified, Member, Output, Typed


class Colour(Enum):
    RED = "red"
    BLUE = 1


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Access(Flag):
    READ = 1
    WRITE = 2


@dataclass(frozen=True)
class Point:
    x: Any
    y: Any


@dataclass(frozen=True, slots=True)
class Slim:
    x: Any
    y: Any


class Pair(NamedTuple):
    x: Any
    y: Any


Old = namedtuple("Old", "x y")  # noqa: PYI024  the old way is still in use


class Struct(msgspec.Struct, frozen=True):
    x: Any
    y: Any


MANY = (Point, Slim, Pair, Old, Struct)

_SMALL: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    0.0,
    -0.0,
    1.0,
    math.nan,
    math.inf,
    (),
    frozenset(),
]
_SMALL += ["", "1", "é", b"", b"1", "\ud800", Colour.RED, Colour.BLUE, Level.LOW]
_SMALL += [Access.READ, Access.READ | Access.WRITE, Output("sha256:0")]
_SMALL += [Identified("model", "sha256:0")]
SMALL = st.sampled_from(_SMALL)
"""Few enough that two draws are often equal, or nearly."""

TEXT = st.text(st.characters(codec=None), max_size=8) | st.sampled_from(
    [
        "👩‍👩‍👧‍👦",
        "\ud83d\ude00",
        "😀",
        "e\u0301",
        "é",
        "\0",
        "x" * 254,
        "x" * 255,
        "x" * 256,
        "😀" * 100,
    ]
)
SCALARS = (
    SMALL
    | st.integers()
    | st.integers(-(2**200), 2**200)
    | st.sampled_from(
        [2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 127, 128, -128, -129, 255, 256]
    )
    | st.floats()
    | TEXT
    | st.binary(max_size=8)
    | st.binary(min_size=250, max_size=260)
)


def _hashable(scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=3).map(tuple)
            | st.frozensets(inner, max_size=3)
            | st.builds(lambda cls, x, y: cls(x, y), st.sampled_from(MANY), inner, inner)
        ),
        max_leaves=4,
    )


def _values(scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = _hashable(scalars)
    return st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.lists(inner, max_size=4).map(tuple)
            | st.dictionaries(keys, inner, max_size=4)
            | st.sets(keys, max_size=4)
            | st.frozensets(keys, max_size=4)
            | st.builds(lambda cls, x, y: cls(x, y), st.sampled_from(MANY), inner, inner)
        ),
        max_leaves=8,
    )


VALUES = _values(SCALARS)
NEAR = _values(SMALL)


def alike(value: Any) -> Any:  # noqa: C901, PLR0911  a case a kind
    """Return something that is equal for two values if and only if they are the same data."""
    match value:
        case None | bool():
            return ("constant", repr(value))
        case Enum():
            return ("member", _kind(value), value.name or "", alike(value.value))
        case Member():
            return ("member", value.kind, value.name, alike(value.value))
        case Typed():
            return ("class", value.kind, tuple((k, alike(v)) for k, v in value.fields.items()))
        case Output():
            return ("Output", value.digest)
        case Identified():
            return ("Identified", *value)
        case Point() | Slim() | Pair() | Old() | Struct():
            return ("class", _kind(value), (("x", alike(value.x)), ("y", alike(value.y))))
        case float():
            return ("float", "nan" if math.isnan(value) else struct.pack("<d", value))
        case int() | str() | bytes():
            return (type(value).__name__, value)
        case list() | tuple():
            return (type(value).__name__, tuple(alike(member) for member in value))
        case set() | frozenset():
            return (type(value).__name__, _bag(alike(member) for member in value))
        case dict():
            return ("dict", _bag((alike(key), alike(member)) for key, member in value.items()))
    raise AssertionError(type(value))


def _bag(members: Any) -> frozenset[Any]:
    return frozenset(Counter(members).items())  # two NaNs are two members


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
