"""The canonical encoding: one value, one string of bytes, and no two values the same.

Each value is a tag of one byte, a length or a count where its size is not fixed, and its content.
So `1`, `1.0`, `True` and `"1"` differ, and `("a", "bc")` and `("ab", "c")` do. The order of a dict's
items and of a set's members does not matter: they are sorted by their own encodings.

| tag | value | content |
| --- | --- | --- |
| `N` `T` `F` | None, True, False | none |
| `i` | int | length, two's complement, big-endian, as short as can be |
| `f` | float | IEEE 754 binary64, big-endian; every NaN is the quiet one |
| `s` | str | length, UTF-8 (a lone surrogate as its three bytes) |
| `b` | bytes | length, bytes |
| `l` `t` | list, tuple | count, members |
| `S` `Z` | set, frozenset | count, members sorted by encoding |
| `d` | dict | count, key and value in turn, sorted by the key's encoding |
| `e` | enum member | class, name, value |
| `c` | dataclass, msgspec struct, named tuple | class, count, field name and value in turn |
| `o` | the output of another step | its digest |
| `r` | what is known by its identity (a model, a file) | label, digest |

A length or a count is one byte up to 254, beyond that the byte 255 and eight bytes. A class is its
module and qualified name. Anything else raises `EncodingError`: never `repr`, `str` or pickle.
"""

import math
import struct
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from cachedeval.engine.errors import EncodingError
from cachedeval.engine.fields import extra_of, fields_of, refusal

__all__ = [
    "ENCODERS",
    "LONG",
    "Identified",
    "Member",
    "Output",
    "TooDeepError",
    "Typed",
    "encode",
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
    out: list[bytes] = []
    try:
        ENCODERS[type(value)](value, out)
    except RecursionError:
        raise too_deep(value) from None
    return b"".join(out)


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
    items: list[tuple[bytes, list[bytes]]] = []
    for key, member in value.items():
        encoded: list[bytes] = []
        try:
            ENCODERS[type(member)](member, encoded)
        except EncodingError as error:
            raise _inside(f"[{key!r:.40}]", error) from None
        items.append((encode(key), encoded))
    # By the values too: two NaNs are two keys of one encoding.
    items.sort()
    out += (b"d", _length(len(items)))
    for encoded_key, encoded in items:
        out.append(encoded_key)
        out += encoded


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
