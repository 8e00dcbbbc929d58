import contextlib
import dataclasses
import datetime as dt
import enum
import itertools
import math
import struct
from collections import ChainMap, defaultdict
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.plain import NEAR, VALUES, Access, Colour, Level, Old, Pair, Point, Slim, alike

from cachedeval.engine.encoding import Identified, Output, decode, encode
from cachedeval.engine.errors import EncodingError


@given(VALUES)
def test_what_is_encoded_decodes_to_the_same(value: Any) -> None:
    assert alike(decode(encode(value))) == alike(value)


@given(st.tuples(VALUES, VALUES) | st.tuples(NEAR, NEAR))
def test_two_values_share_an_encoding_if_they_are_the_same(pair: tuple[Any, Any]) -> None:
    one, other = pair
    assert (encode(one) == encode(other)) == (alike(one) == alike(other))


@given(st.lists(NEAR, max_size=3), st.lists(NEAR, max_size=3))
def test_no_encoding_begins_another(ones: list[Any], others: list[Any]) -> None:
    joined = [b"".join(map(encode, values)) for values in (ones, others)]
    assert (joined[0] == joined[1]) == (alike(ones) == alike(others))


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _in_two_orders(value: dict[Any, Any]) -> st.SearchStrategy[list[list[Any]]]:
    items = list(value.items())
    return st.permutations(items).map(lambda other: [items, other])


@given(st.dictionaries(NEAR.filter(_hashable), NEAR, max_size=5).flatmap(_in_two_orders))
def test_the_order_of_a_dict_is_part_of_its_value(orders: list[list[Any]]) -> None:
    one, other = orders
    assert (encode(dict(one)) == encode(dict(other))) == (one == other)


def test_two_nans_are_two_keys() -> None:
    one, other = float("nan"), float("nan")
    assert encode({one: 1, other: 2}) != encode({other: 2, one: 1})
    assert encode({one: 1, other: 2}) != encode({one: 1})


@given(VALUES, st.binary(min_size=1, max_size=4))
def test_what_follows_an_encoding_is_refused(value: Any, rest: bytes) -> None:
    with pytest.raises(EncodingError):
        decode(encode(value) + rest)


@given(VALUES, st.data())
def test_a_part_of_an_encoding_is_refused(value: Any, data: st.DataObject) -> None:
    whole = encode(value)
    with pytest.raises(EncodingError):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary(max_size=40))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    _decodes_or_is_refused(data)


@given(VALUES, st.data())
def test_damaged_bytes_decode_or_are_refused(value: Any, data: st.DataObject) -> None:
    corrupt = bytearray(encode(value))
    at = data.draw(st.integers(0, len(corrupt) - 1))
    corrupt[at] ^= data.draw(st.integers(1, 255))
    _decodes_or_is_refused(bytes(corrupt))


def test_an_int_is_as_short_as_can_be() -> None:
    for value in [*range(-300, 300), *(s * 2**n for n in range(130) for s in (1, -1))]:
        assert decode(encode(value)) == value
        for shorter in range(1, encode(value)[1]):
            with pytest.raises(OverflowError):
                value.to_bytes(shorter, "big", signed=True)


def test_all_that_looks_alike_differs() -> None:
    values: list[Any] = [
        *[1, 1.0, True, "1", b"1", [1], (1,), {1}, frozenset({1}), {1: 1}, Level.LOW, Point(1, 1)],
        *[0, 0.0, -0.0, False, None, "", b"", [], (), {}, set(), frozenset(), math.nan, math.inf],
        *[("a", "bc"), ("ab", "c"), ("a", "b", "c"), ("a", ("bc",)), ["a", "bc"], "abc"],
        *[[[], []], [[[]]], [[]], "nan", "None", "sha256:0", Output("sha256:0")],
        *[
            Identified("", "sha256:0"),
            Identified("s", "ha256:0"),
            Pair(1, 1),
            Old(1, 1),
            Slim(1, 1),
        ],
        *["é", "e\u0301", "😀", "\ud83d\ude00", "\ud83d", Colour.BLUE, Colour.RED, "red"],
        *[Access.READ, Access.WRITE, Access.READ | Access.WRITE, Access(0), 2**64, -(2**64)],
        *["x" * 254, "x" * 255, "x" * 256, ["x"] * 254, ["x"] * 255, b"x" * 255],
    ]
    for one, other in itertools.combinations(values, 2):
        assert encode(one) != encode(other), (one, other)


def test_every_nan_is_the_same() -> None:
    quiet, payload, negative = (
        struct.unpack(">d", bytes.fromhex(bits))[0]
        for bits in ("7ff8000000000000", "7ff8000000000123", "fff8000000000000")
    )
    assert encode(quiet) == encode(payload) == encode(negative) == encode(math.nan)


class Zone(dt.tzinfo):
    def utcoffset(self, _: dt.datetime | None, /) -> dt.timedelta:
        return dt.timedelta(hours=1)

    def dst(self, _: dt.datetime | None, /) -> None:
        return None

    def tzname(self, _: dt.datetime | None, /) -> None:
        return None


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (print, "is code"),
        (lambda: None, "is code"),
        (int, "is code"),
        (object(), "pass plain data"),
        (memoryview(b"x"), "pass bytes(…)"),
        (ChainMap({}), "register a codec"),
        (defaultdict(lambda: 1), "use a built-in type"),
        (dt.datetime(2020, 1, 1, tzinfo=Zone()), "use datetime.timezone or zoneinfo.ZoneInfo"),
        (iter(()), "pass plain data"),
    ],
)
def test_what_cannot_be_encoded_is_refused_with_a_hint(value: Any, hint: str) -> None:
    with pytest.raises(EncodingError) as caught:
        encode(value)
    assert hint in str(caught.value)


class Text(str):
    __slots__ = ()


def test_a_subclass_of_plain_data_is_more_than_that() -> None:
    with pytest.raises(EncodingError, match=r"it is a str and more: pass str\(…\)"):
        encode(Text("x"))


def test_the_message_says_where() -> None:
    with pytest.raises(EncodingError) as caught:
        encode({"a": [1, Point((), {"b": {print}})]})
    assert str(caught.value).startswith("at ['a'][1].y['b']: a builtin_function")


def test_what_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(EncodingError, match="contains itself"):
        encode(loop)


def test_a_long_key_is_shortened_in_messages() -> None:
    with pytest.raises(EncodingError) as caught:
        encode({"k" * 10_000: object()})
    assert len(str(caught.value)) < 300


# No field is dropped in silence.


@dataclass
class Loose:
    x: int


@dataclass
class Grown(Loose):
    y: int = 0


class Undecorated(Loose):
    pass


@dataclass
class Listed(list[int]):
    x: int = 0


class Slots:
    __slots__ = ("hidden",)
    hidden: int


@dataclass
class OverSlots(Slots):
    x: int


class Wider(Pair):
    pass


class OpenStruct(msgspec.Struct, dict=True):
    x: int


class Plain(NamedTuple):
    x: int


@pytest.mark.parametrize("value", [Loose(1), Wider(1, 2), OpenStruct(1)])
def test_an_attribute_that_is_no_field_is_refused(value: Any) -> None:
    encode(value)
    value.more = 2
    with pytest.raises(EncodingError, match="carries 'more', which is not one of its fields"):
        encode(value)


def test_a_slot_that_is_no_field_is_refused() -> None:
    value = OverSlots(1)
    assert decode(encode(value)).fields == {"x": 1}
    value.hidden = 2
    with pytest.raises(EncodingError, match="carries 'hidden'"):
        encode(value)


def test_a_field_without_a_value_is_refused() -> None:
    value = Slim(1, 2)
    object.__delattr__(value, "y")
    with pytest.raises(EncodingError, match="has no value for 'y'"):
        encode(value)


def test_a_dataclass_that_is_a_list_is_refused() -> None:
    with pytest.raises(EncodingError, match=r"a list and more"):
        encode(Listed(1))


def test_a_subclass_has_its_own_fields() -> None:
    assert decode(encode(Grown(1, 2))).fields == {"x": 1, "y": 2}
    with pytest.raises(EncodingError, match="write @dataclass above it"):
        encode(Undecorated(1))


def test_classes_of_one_shape_differ_by_name() -> None:
    encodings = {encode(cls(1, 2)) for cls in (Point, Slim, Pair, Old)}
    assert len(encodings) == 4


def test_a_flag_without_a_name() -> None:
    assert decode(encode(Access(0))).name in {"", None}
    assert decode(encode(Access.READ | Access.WRITE)).value == 3


def test_an_enum_of_what_cannot_be_encoded() -> None:
    class Odd(enum.Enum):
        A = enum  # a module

    with pytest.raises(EncodingError, match="type module has no"):
        encode(Odd.A)


def test_a_dataclass_made_at_run_time() -> None:
    cls = dataclasses.make_dataclass("Made", [("x", int)])
    assert decode(encode(cls(3))).fields == {"x": 3}


def test_large_values() -> None:
    value = {"text": "x" * 3_000_000, "list": list(range(20_000)), "bytes": bytes(1_000_000)}
    assert decode(encode(value)) == value


def _decodes_or_is_refused(data: bytes) -> None:
    with contextlib.suppress(EncodingError):
        decode(data)
