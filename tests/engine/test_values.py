import contextlib
import enum
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.plain import NEAR, VALUES, Colour, Level, Point, alike

from cachedeval import EncodingError
from cachedeval.engine.encoding import Identified, Output, encode
from cachedeval.engine.values import Codec, payload_digest

ANY = Codec()


def holds_classes(value: Any) -> bool:
    if isinstance(value, (Output, Identified)):
        return False
    if isinstance(value, enum.Enum):
        return True
    if isinstance(value, dict):
        return any(map(holds_classes, [*value.keys(), *value.values()]))
    if isinstance(value, (list, tuple, set, frozenset)):
        return hasattr(value, "_fields") or any(map(holds_classes, value))
    return hasattr(value, "x")


@given(VALUES)
def test_plain_data_comes_back_as_it_is(value: Any) -> None:
    if holds_classes(value):
        with pytest.raises(EncodingError, match="annotate the node with the type"):
            ANY.dump(value)
    else:
        assert alike(ANY.load(ANY.dump(value))) == alike(value)


PLAIN = NEAR.filter(lambda value: not holds_classes(value))


@given(st.lists(st.tuples(st.text(max_size=5), PLAIN), max_size=5, unique_by=lambda item: item[0]))
def test_a_dict_comes_back_in_its_order(items: list[tuple[str, Any]]) -> None:
    payload = ANY.dump(dict(items))
    assert list(ANY.load(payload)) == [name for name, _ in items]
    assert payload == ANY.dump(dict(items))
    assert (payload == ANY.dump(dict(reversed(items)))) == (len(items) < 2)


@given(st.lists(st.text(max_size=5), unique=True))
def test_equal_sets_have_equal_payloads(members: list[str]) -> None:
    for codec in (ANY, Codec(dict[str, set[str]])):
        payload = codec.dump({"S": set(members)})
        assert payload == codec.dump({"S": {*members[::-1]}})
        assert codec.load(payload) == {"S": set(members)}


@dataclass
class Inner:
    name: str
    value: int


@dataclass
class Outer:
    inner: Inner
    tags: tuple[str, ...]
    table: dict[str, list[float]]
    level: Level = Level.LOW


class Shade(enum.StrEnum):
    DARK = "dark"


class Verdict(msgspec.Struct, frozen=True):
    scores: dict[str, float]
    rationale: str = ""


class Pair(NamedTuple):
    x: int
    y: str


class Typed(TypedDict):
    x: int


@dataclass(frozen=True)
class Key:
    x: int


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (Inner, Inner("a", 1)),
        (Inner, Inner("a", 10**30)),
        (Inner, Inner("\ud800", 1)),
        (Outer, Outer(Inner("é", -1), ("a", "b"), {"k": [1.5, math.inf]}, Level.HIGH)),
        (Outer, Outer(Inner("\ud800", 2**70), ("\udfff",), {"k": []})),
        (Verdict, Verdict({"accuracy": 7.5}, "…")),
        (list[Verdict], [Verdict({}), Verdict({"a": math.nan})]),
        (Pair, Pair(1, "x")),
        (tuple[int, str], (1, "x")),
        (tuple[int, ...], (1, 2**80)),
        (set[str], {"a", "b"}),
        (frozenset[int], frozenset({1, 2**80})),
        (Typed, {"x": 1}),
        (Shade, Shade.DARK),
        (list[Level], [Level.LOW, Level.HIGH]),
        (int | None, None),
        (Literal["a", "b"], "b"),
        (dict[int, str], {2: "b", 1: "a"}),
        (bytes, b"\0\xff"),
        (float, math.nan),
        (None, None),
        (list, [1, (2,), {3}]),
        (dict[str, Any], {"a": (1, 2)}),
        (dict[Key, int], {Key(1): 2**70}),
        (Colour, Colour.BLUE),
        (Inner | Verdict, Verdict({"a": 1.0})),
        (list[int] | tuple[str, ...] | Inner | Outer, [Inner("a", 1)][0]),
        (list[int] | tuple[str, ...], ("a",)),
    ],
)
def test_what_is_declared_comes_back_as_that(declared: Any, value: Any) -> None:
    codec = Codec(declared)
    back = codec.load(codec.dump(value))
    assert type(back) is type(value)
    assert encode(back) == encode(value)


@pytest.mark.parametrize(
    ("declared", "value", "back"),
    [(float, 1, 1.0), (list[float], [1, 0.5], [1.0, 0.5]), (str, Shade.DARK, "dark")],
)
def test_what_is_equal_to_the_declared_type_will_do(declared: Any, value: Any, back: Any) -> None:
    codec = Codec(declared)
    loaded = codec.load(codec.dump(value))
    assert (type(loaded), loaded) == (type(back), back)


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (int, "1"),
        (int, 1.5),
        (int, True),
        (str, None),
        (list[int], (1, 2)),
        (tuple[int, ...], [1, 2]),
        (Inner, Verdict({})),
        (Any, Point(1, 2)),
        (Any, Colour.RED),
        (Any, {"deep": [Verdict({})]}),
        (Any, object()),
        (Any, lambda: None),
        (object, {1: object()}),
        (Inner, Inner("a", "not an int")),  # type: ignore[arg-type]
    ],
)
def test_what_would_not_come_back_is_refused(declared: Any, value: Any) -> None:
    with pytest.raises(EncodingError):
        Codec(declared).dump(value)


class Custom:
    pass


@dataclass
class Holder:
    inner: list[Custom]


@pytest.mark.parametrize(
    "declared",
    [
        *[Custom, list[Custom], dict[str, Custom | None], tuple[int, Custom], Holder, list[Holder]],
        *[Callable[[int], int], Iterator[int], type, type[int], contextlib.ExitStack],
    ],
)
def test_a_type_that_cannot_be_stored_is_refused_at_once(declared: Any) -> None:
    with pytest.raises(EncodingError, match="cannot be stored"):
        Codec(declared)


def test_a_value_with_something_inside_that_cannot_be_stored_says_where() -> None:
    with pytest.raises(EncodingError, match=r"at \['a'\]\[1\]: a value of type object"):
        ANY.dump({"a": [1, object()]})


@given(st.binary(max_size=30))
def test_any_payload_loads_or_is_refused(payload: bytes) -> None:
    for codec in (ANY, Codec(Verdict), Codec(dict[str, int])):
        with contextlib.suppress(EncodingError):
            codec.load(payload)


@pytest.mark.parametrize(
    "payload", [b"", b"x", b"m", b"c", b"m\xc1", b"m\xabxxxxxxxxxx\x80", b"m" + b"\x91" * 100_000]
)
def test_bad_payloads(payload: bytes) -> None:
    with pytest.raises(EncodingError):
        ANY.load(payload)


def test_deep_values_load_or_are_refused_when_they_are_stored() -> None:
    deep: Any = 1
    for _ in range(150):
        deep = [deep]
    assert ANY.load(ANY.dump(deep)) == deep
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(EncodingError, match="nested too deeply"):
        ANY.dump(deep)
    while isinstance(deep, list):  # by hand: its own end would recurse too
        deep = deep.pop()


def test_a_digest_is_that_of_the_payload() -> None:
    assert payload_digest(b"") == (
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
