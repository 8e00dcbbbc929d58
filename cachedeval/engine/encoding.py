"""The canonical encoding: one value, one string of bytes, and no two values the same.

Each value is a tag of one byte, a length or a count where its size is not fixed, and its content.
So `1`, `1.0`, `True` and `"1"` differ, and `("a", "bc")` and `("ab", "c")` do. The order of a dict is part
of its value, since a function can observe it; the order of a set is not: its members are sorted by
their own encodings.

| tag | value | content |
| --- | --- | --- |
| `N` `T` `F` | None, True, False | none |
| `i` | int | length, two's complement, big-endian, as short as can be |
| `f` | float | IEEE 754 binary64, big-endian; every NaN is the quiet one |
| `s` | str | length, UTF-8 (a lone surrogate as its three bytes) |
| `b` | bytes | length, bytes |
| `l` `t` | list, tuple | count, members |
| `S` `Z` | set, frozenset | count, members sorted by encoding |
| `d` | dict | count, key and value in turn, in the dict's order |
| `e` | enum member | class, name, value |
| `c` | dataclass, msgspec struct, named tuple | class, count, field name and value in turn |
| `o` | the output of another step | its digest |
| `r` | what is known by its identity (a model, a file) | label, digest |

A length or a count is one byte up to 254, beyond that the byte 255 and eight bytes. A class is its
module and qualified name. Anything else raises `EncodingError`: never `repr`, `str` or pickle.
"""

import math
import struct
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, NamedTuple, cast

import msgspec

from cachedeval.engine.errors import EncodingError
from cachedeval.engine.process import importing

__all__ = [
    "ENCODERS",
    "LONG",
    "Identified",
    "Member",
    "Output",
    "TooDeepError",
    "Typed",
    "decode",
    "encode",
    "encode_noting_sets",
    "extra_of",
    "fields_of",
    "refusal",
    "too_deep",
]


class Output(msgspec.Struct, frozen=True):
    """Stands in a recipe for the output of an upstream call."""

    digest: str


class Identified(NamedTuple):
    """Stands in a recipe for what is known by its identity: a resource, a file."""

    label: str
    digest: str


class Typed(NamedTuple):
    """What a dataclass, a struct or a named tuple decodes to."""

    kind: str
    """Module and qualified name of the class."""
    fields: dict[str, Any]

    def __hash__(self) -> int:
        return hash((self.kind, *self.fields))


class Member(NamedTuple):
    """What an enum's member decodes to."""

    kind: str
    """Module and qualified name of the enum."""
    name: str
    value: Any


_Encoder = Callable[[Any, list[bytes]], None]

LONG = 255
"""The byte that announces a length of eight bytes."""

_SHORT_LENGTHS = [bytes((n,)) for n in range(LONG)]
_SHORT_STR = [b"s" + length for length in _SHORT_LENGTHS]
_NAN = struct.pack(">d", math.nan)
_DOUBLE = struct.Struct(">d")


class TooDeepError(EncodingError, RecursionError):
    """The value is nested deeper than the stack allows; on an emptier one it may not be."""


def encode(value: Any) -> bytes:
    """Return the canonical encoding of a value.

    Raises:
        EncodingError: the value, or something inside it, has none; the message says where.
    """
    return b"".join(_parts(value))


def encode_noting_sets(value: Any) -> tuple[bytes, bool]:
    """Return what `encode` does, and whether there may be sets inside the value.

    Raises:
        EncodingError: as `encode`.
    """
    parts = _parts(value)
    # A text "S" looks the same. What is asked then takes the longer way, with the same result.
    return b"".join(parts), b"S" in parts or b"Z" in parts


def _parts(value: Any) -> list[bytes]:
    out: list[bytes] = []
    try:
        ENCODERS[type(value)](value, out)
    except RecursionError:
        raise too_deep(value) from None
    return out


def too_deep(value: Any) -> TooDeepError:
    """Return the error for a value whose encoding met a `RecursionError`."""
    return TooDeepError(
        f"a value of type {type(value).__name__} cannot be encoded: it contains itself, or is "
        "nested too deeply; flatten it"
    )


def _length(n: int) -> bytes:
    return _SHORT_LENGTHS[n] if n < LONG else b"\xff" + n.to_bytes(8, "big")


def _put_none(_: None, out: list[bytes]) -> None:
    out.append(b"N")


def _put_bool(value: bool, out: list[bytes]) -> None:  # noqa: FBT001  the value is what is encoded
    out.append(b"T" if value else b"F")


def _put_int(value: int, out: list[bytes]) -> None:
    if 0 <= value < _MANY:
        out.append(_NUMBERS[value])
    else:
        _put_any_int(value, out)


def _put_any_int(value: int, out: list[bytes]) -> None:
    # One bit more than the magnitude needs is the sign's; ~ makes -128 as short as 127.
    magnitude = value if value >= 0 else ~value
    raw = value.to_bytes(magnitude.bit_length() // 8 + 1, "big", signed=True)
    out += (b"i", _length(len(raw)), raw)


_MANY = 1024
"""Ints from 0 on whose encodings are kept: most that steps are given are small."""


class _Numbers(dict[int, bytes]):
    def __missing__(self, value: int) -> bytes:
        out: list[bytes] = []
        _put_any_int(value, out)
        self[value] = encoded = b"".join(out)
        return encoded


_NUMBERS = _Numbers()


def _put_float(value: float, out: list[bytes]) -> None:
    out += (b"f", _NAN if value != value else _DOUBLE.pack(value))  # noqa: PLR0124  NaN alone


def _put_str(value: str, out: list[bytes]) -> None:
    try:
        raw = value.encode()
    except UnicodeEncodeError:
        raw = value.encode("utf-8", "surrogatepass")
    n = len(raw)
    out += (_SHORT_STR[n], raw) if n < LONG else (b"s", _length(n), raw)


def _put_bytes(value: bytes, out: list[bytes]) -> None:
    out += (b"b", _length(len(value)), value)


def _put_list(value: list[Any], out: list[bytes]) -> None:
    out += (b"l", _length(len(value)))
    _put_members(value, out)


def _put_tuple(value: tuple[Any, ...], out: list[bytes]) -> None:
    out += (b"t", _length(len(value)))
    _put_members(value, out)


def _put_members(value: list[Any] | tuple[Any, ...], out: list[bytes]) -> None:
    for index, member in enumerate(value):
        try:
            ENCODERS[type(member)](member, out)
        except EncodingError as error:
            raise _inside(f"[{index}]", error) from None


def _put_set(value: set[Any] | frozenset[Any], out: list[bytes]) -> None:
    out += (b"S" if type(value) is set else b"Z", _length(len(value)))
    out += sorted(encode(member) for member in value)


def _put_dict(value: dict[Any, Any], out: list[bytes]) -> None:
    out += (b"d", _length(len(value)))
    for key, member in value.items():
        ENCODERS[type(key)](key, out)
        try:
            ENCODERS[type(member)](member, out)
        except EncodingError as error:
            raise _inside(f"[{key!r:.40}]", error) from None


def _put_output(value: Output, out: list[bytes]) -> None:
    out.append(b"o")
    _put_str(value.digest, out)


def _put_identified(value: Identified, out: list[bytes]) -> None:
    out.append(b"r")
    _put_str(value.label, out)
    _put_str(value.digest, out)


def _encoder_of(cls: type) -> _Encoder | None:
    """Return how a class without an entry in the table is encoded, or None if it is not."""
    kind: list[bytes] = []
    _put_str(f"{cls.__module__}.{cls.__qualname__}", kind)
    header = b"".join(kind)

    if issubclass(cls, Enum):

        def put_enum(member: Enum, out: list[bytes]) -> None:
            out += (b"e", header)
            _put_str(member.name or "", out)  # a combination of flags has no name
            ENCODERS[type(member.value)](member.value, out)

        return put_enum

    names = fields_of(cls)
    if names is None:
        return None
    extra = extra_of(cls, names)

    def put_fields(instance: Any, out: list[bytes]) -> None:
        # To drop what is no field in silence would make two different values one.
        for name in extra(instance):
            raise EncodingError(
                f"a {cls.__qualname__} carries {name!r}, which is none of its fields; declare it "
                "as a field"
            )
        out += (b"c", header, _length(len(names)))
        for name in names:
            _put_str(name, out)
            try:
                member = getattr(instance, name)
                ENCODERS[type(member)](member, out)
            except EncodingError as error:
                raise _inside(f".{name}", error) from None
            except AttributeError:
                raise EncodingError(f"a {cls.__qualname__} has no value for {name!r}") from None

    return put_fields


def _inside(where: str, error: EncodingError) -> EncodingError:
    if isinstance(error, TooDeepError):
        return error  # the place would name hundreds of levels
    text = str(error)
    return EncodingError(
        f"at {where}{text[3:]}" if text.startswith("at ") else f"at {where}: {text}"
    )


def _refuse(value: Any, _: list[bytes]) -> None:
    raise EncodingError(refusal(value))


class _Encoders(dict[type, _Encoder]):
    """How each class is encoded; one that is met for the first time is looked into once."""

    def __missing__(self, cls: type) -> _Encoder:
        encoder = _encoder_of(cls)
        if encoder is None:
            return _refuse
        self[cls] = encoder
        return encoder


ENCODERS: Mapping[type, _Encoder] = _Encoders(
    {
        type(None): _put_none,
        bool: _put_bool,
        int: _put_int,
        float: _put_float,
        str: _put_str,
        bytes: _put_bytes,
        list: _put_list,
        tuple: _put_tuple,
        set: _put_set,
        frozenset: _put_set,
        dict: _put_dict,
        Output: _put_output,
        Identified: _put_identified,
    }
)
"""By class, the function that appends the parts of a value's encoding; it may raise `EncodingError`
and, for a value that contains itself, `RecursionError`."""


# Which classes are plain data: their fields, and what to say of those that are not.


_PLAIN = (str, bytes, int, float, list, tuple, set, frozenset, dict)


def fields_of(cls: type) -> tuple[str, ...] | None:
    """Return the fields of a dataclass, msgspec struct or named tuple; None for another class."""
    if issubclass(cls, tuple):
        return cast("tuple[str, ...] | None", getattr(cls, "_fields", None))
    if issubclass(cls, _PLAIN):  # its content is no field
        return None
    if "__dataclass_fields__" in cls.__dict__:
        with importing():
            import dataclasses  # noqa: PLC0415  slow to import, and no built-in node needs it

        return tuple(field.name for field in dataclasses.fields(cast("Any", cls)))
    return cast("tuple[str, ...] | None", getattr(cls, "__struct_fields__", None))


def extra_of(cls: type, names: tuple[str, ...]) -> Callable[[Any], Iterable[str]]:
    """Return what tells the attributes that an instance has beside its fields."""
    slots = {
        slot
        for base in cls.__mro__
        for slot in _slots(base)
        if slot not in {"__dict__", "__weakref__", *names}
    }

    def extra(instance: Any) -> Iterable[str]:
        attributes = getattr(instance, "__dict__", None)
        found = attributes.keys() - names if attributes else ()
        return sorted([*found, *(slot for slot in slots if hasattr(instance, slot))])

    return extra


def _slots(cls: type) -> tuple[str, ...]:
    slots = cls.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def refusal(value: Any) -> str:
    """Say why a value has no canonical encoding, and what to pass instead."""
    cls = type(value)
    name = cls.__qualname__
    if hasattr(value, "__fspath__"):
        return (
            f"a path ({name}) names a place, not content: pass the text itself, or what is known "
            'by its content, Resource("file", digest_file(path), lambda: path)'
        )
    if callable(value):
        return f"a {name} is code, not data: pass plain data, or make a node of it"
    plain = next((base.__name__ for base in _PLAIN if isinstance(value, base)), None)
    hint = {
        "Call": "give calls as arguments, or inside lists, tuples and dicts",
        "Resource": "give resources as arguments, or inside lists, tuples and dicts",
        "bytearray": "pass bytes(…)",
        "memoryview": "pass bytes(…)",
        "datetime": "pass .isoformat()",
        "date": "pass .isoformat()",
        "time": "pass .isoformat()",
        "timedelta": "pass .total_seconds()",
        "Decimal": "pass str(…)",
        "Fraction": "pass str(…)",
        "UUID": "pass str(…)",
        "complex": "pass the pair of floats",
        "ndarray": "pass .tolist(), or the bytes with shape and dtype",
    }.get(name)
    if hint is None and plain is not None:
        hint = f"it is a {plain} and more: pass {plain}(…)"
    if hint is None and hasattr(cls, "__dataclass_fields__"):
        hint = "make it a dataclass too, as its base is: write @dataclass above it"
    return f"a value of type {name} has no canonical encoding: " + (
        hint
        or "pass plain data: None, bool, int, float, str, bytes, list, tuple, dict, set, an enum, "
        "a dataclass or a msgspec struct"
    )


# Reading the canonical encoding back; how it looks stands in `cachedeval.engine.encoding`.


_DOUBLE = struct.Struct(">d")


def decode(data: bytes) -> Any:
    """Return the value of a canonical encoding; classes come back as `Typed` and `Member`.

    Raises:
        EncodingError: the bytes are no canonical encoding, or something stands behind it.
        TooDeepError: the stack leaves too little room to read it.
    """
    try:
        value, end = _take(data, 0)
    except RecursionError:
        raise TooDeepError("a canonical encoding is nested too deeply to be read") from None
    except Exception as error:  # noqa: BLE001  the bytes may be anything
        raise EncodingError(f"not a canonical encoding: {error}") from None
    if end != len(data):
        raise EncodingError(f"not a canonical encoding: {len(data) - end} bytes follow its end")
    return value


def _take_length(data: bytes, at: int) -> tuple[int, int]:
    n = data[at]
    return (n, at + 1) if n < LONG else (int.from_bytes(data[at + 1 : at + 9], "big"), at + 9)


def _take_raw(data: bytes, at: int) -> tuple[bytes, int]:
    n, at = _take_length(data, at)
    if at + n > len(data):
        raise IndexError(f"{n} bytes announced at {at}, {len(data) - at} left")
    return data[at : at + n], at + n


def _take_str(data: bytes, at: int) -> tuple[str, int]:
    raw, at = _take_raw(data, at)
    return raw.decode("utf-8", "surrogatepass"), at


def _take_tagged_str(data: bytes, at: int) -> tuple[str, int]:
    return _take_str(data, at + 1)


def _take(data: bytes, at: int) -> tuple[Any, int]:  # noqa: C901, PLR0911, PLR0912  a case a tag
    tag = data[at : at + 1]
    at += 1
    match tag:
        case b"N":
            return None, at
        case b"T":
            return True, at
        case b"F":
            return False, at
        case b"i":
            raw, at = _take_raw(data, at)
            return int.from_bytes(raw, "big", signed=True), at
        case b"f":
            return _DOUBLE.unpack_from(data, at)[0], at + 8
        case b"s":
            return _take_str(data, at)
        case b"b":
            return _take_raw(data, at)
        case b"l" | b"t" | b"S" | b"Z":
            n, at = _take_length(data, at)
            members = []
            for _ in range(n):
                member, at = _take(data, at)
                members.append(member)
            return {b"l": list, b"t": tuple, b"S": set, b"Z": frozenset}[tag](members), at
        case b"d":
            n, at = _take_length(data, at)
            items = {}
            for _ in range(n):
                key, at = _take(data, at)
                items[key], at = _take(data, at)
            return items, at
        case b"e":
            kind, at = _take_tagged_str(data, at)
            name, at = _take_tagged_str(data, at)
            value, at = _take(data, at)
            return Member(kind, name, value), at
        case b"c":
            kind, at = _take_tagged_str(data, at)
            n, at = _take_length(data, at)
            fields = {}
            for _ in range(n):
                name, at = _take_tagged_str(data, at)
                fields[name], at = _take(data, at)
            return Typed(kind, fields), at
        case b"o":
            digest, at = _take_tagged_str(data, at)
            return Output(digest), at
        case b"r":
            label, at = _take_tagged_str(data, at)
            digest, at = _take_tagged_str(data, at)
            return Identified(label, digest), at
        case _:
            raise IndexError(f"no value has the tag {tag!r}")
