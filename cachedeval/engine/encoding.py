"""The canonical encoding: each value has one encoding, and different values have different ones.

An encoding is a tag of one byte, a length or a count where the size is not fixed, and the content.
So `1`, `1.0`, `True` and `"1"` differ, and so do `("a", "bc")` and `("ab", "c")`. The order of a
dict is part of its value, since a function can observe it. The order of a set is not: its members
are sorted by their own encodings.

| tag | value | content |
| --- | --- | --- |
| `N` `T` `F` | None, True, False | none |
| `i` | int | length, two's complement, big-endian, as short as possible |
| `f` | float | IEEE 754 binary64, big-endian; every NaN is the quiet one |
| `s` | str | length, UTF-8 (a lone surrogate as its three bytes) |
| `b` | bytes | length, bytes |
| `l` `t` | list, tuple | count, members |
| `S` `Z` | set, frozenset | count, members sorted by encoding |
| `d` | dict | count, key and value in turn, in the dict's order |
| `e` | enum member | class, name, value |
| `c` | dataclass, msgspec struct, named tuple, attrs class, pydantic model | class, count, field name and value in turn |
| `x` | a value with a codec (a datetime, an array) | the codec's name, the codec's data |
| `o` | the output of another step | its digest |
| `r` | a resource, by its identity (a model, a file) | label, digest |

A length or a count up to 254 is one byte; a greater one is the byte 255 and eight bytes. A class is
encoded as its module and qualified name; `__main__` is named by its file. Any other value raises `EncodingError`: the encoding never
falls back to `repr`, `str` or pickle.

The module has three parts: writing (`encode`), the classes that count as plain data (`fields_of`,
`refusal`) and reading (`decode`).
"""

# Lazy import: no built-in node uses dataclasses, and `dataclasses` is slow to import.

import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple, cast

import msgspec

from cachedeval.engine.codecs import Coder, coder_of, is_builtin, on_register
from cachedeval.engine.errors import EncodingError
from cachedeval.engine.origin import class_name
from cachedeval.engine.process import importing

__all__ = [
    "ENCODERS",
    "LARGE",
    "LONG",
    "Coded",
    "Identified",
    "Maker",
    "Member",
    "Output",
    "Parts",
    "Skeleton",
    "TooDeepError",
    "Typed",
    "decode",
    "encode",
    "encode_parts",
    "extra_of",
    "fields_of",
    "refusal",
    "too_deep",
]


class Output(msgspec.Struct, frozen=True):
    """The output of an upstream call in a recipe."""

    digest: str


class Identified(NamedTuple):
    """A resource in a recipe: its label and the digest of its identity."""

    label: str
    digest: str


class Typed(NamedTuple):
    """The decoded form of a dataclass, a struct or a named tuple.

    Attributes:
        kind: module and qualified name of the class.
        fields: the values of the fields, by name.
    """

    kind: str
    fields: dict[str, Any]

    def __hash__(self) -> int:
        return hash((self.kind, *self.fields))


class Member(NamedTuple):
    """The decoded form of an enum member.

    Attributes:
        kind: module and qualified name of the enum.
        name: the member's name.
        value: the member's value.
    """

    kind: str
    name: str
    value: Any


class Coded(NamedTuple):
    """The decoded form of a value with a codec.

    Attributes:
        name: the codec's name.
        data: the data that the codec made of the value.
    """

    name: str
    data: Any


class Maker:
    """Makes the decoded form of values that are not plain data; a subclass makes the values.

    Attributes:
        views: whether the elements of an array may be given as a view.
    """

    views = False

    def typed(self, kind: str, fields: dict[str, Any]) -> Any:
        """Return the value of a class with fields."""
        return Typed(kind, fields)

    def member(self, kind: str, name: str, value: Any) -> Any:
        """Return the member of an enum."""
        return Member(kind, name, value)

    def coded(self, name: str, data: Any) -> Any:
        """Return the value that a codec has encoded."""
        return Coded(name, data)


class _Tag(bytes):
    """The tag of a value that only the canonical encoding can hold."""


class _CustomTag(_Tag):
    """The tag of a value with a codec that was registered."""


class _ClassTag(bytes):
    """The tag of a value of a class, whose own code may run when it is made again."""


LARGE = 2**20
"""Bytes from which on a text or bytes are encoded, decoded and stored without further copies."""


class Parts(NamedTuple):
    """A canonical encoding in parts.

    Attributes:
        parts: the parts in order; large bytes are a part of their own, without a copy.
        is_plain: whether MessagePack may hold the value, too.
        is_exact: whether decoding runs no code but ours, so that an equal value comes back.
        has_sets: whether it contains sets, whose members are parts, however large.
    """

    parts: list[bytes]
    is_plain: bool
    is_exact: bool
    has_sets: bool


class Skeleton(bytes):
    """A canonical encoding whose large parts are not among its bytes.

    Attributes:
        larges: the large parts in order; each serves once.
    """

    larges: Iterator[bytes]


_Encoder = Callable[[Any, list[bytes]], None]

LONG = 255
"""The byte that marks a length of eight bytes."""

_SHORT_LENGTHS = [bytes((n,)) for n in range(LONG)]
_SHORT_STR = [b"s" + length for length in _SHORT_LENGTHS]
_NAN = struct.pack(">d", math.nan)
_DOUBLE = struct.Struct(">d")


class TooDeepError(EncodingError, RecursionError):
    """The value is nested too deeply for the stack that is left."""


# Writing.


def encode(value: Any) -> bytes:
    """Return the canonical encoding of a value.

    Raises:
        EncodingError: the value, or a value inside it, has no encoding; the message says where.

    Example:
        >>> encode(1).hex(), encode(True).hex(), encode("1").hex()
        ('690101', '54', '730131')
    """
    return b"".join(_parts(value))


def encode_parts(value: Any) -> Parts:
    """Return the canonical encoding in parts, and what is to be known about them.

    MessagePack cannot hold values with codecs, and the order of a set may differ in the next
    process.

    Raises:
        EncodingError: as `encode`.
    """
    parts = _parts(value)
    kinds = set(map(type, parts))
    return Parts(
        parts,
        is_plain=_Tag not in kinds and _CustomTag not in kinds,
        is_exact=_ClassTag not in kinds and _CustomTag not in kinds,
        has_sets=_Tag in kinds and any(part is _SET or part is _FROZENSET for part in parts),
    )


def _parts(value: Any) -> list[bytes]:
    out: list[bytes] = []
    try:
        ENCODERS[type(value)](value, out)
    except RecursionError:
        raise too_deep(value) from None
    return out


def too_deep(value: Any) -> TooDeepError:
    """Return the error for a value whose encoding raised `RecursionError`."""
    return TooDeepError(
        f"a value of type {type(value).__name__} cannot be encoded: it contains itself, or is "
        "nested too deeply; flatten it"
    )


def _length(n: int) -> bytes:
    return _SHORT_LENGTHS[n] if n < LONG else b"\xff" + n.to_bytes(8, "big")


def _put_none(_: None, out: list[bytes]) -> None:
    out.append(b"N")


def _put_bool(value: bool, out: list[bytes]) -> None:  # noqa: FBT001  the value to encode
    out.append(b"T" if value else b"F")


_SMALL = 1024
"""The encodings of ints from 0 to this bound are cached: most inputs are small."""


class _SmallInts(dict[int, bytes]):
    def __missing__(self, value: int) -> bytes:
        out: list[bytes] = []
        _put_any_int(value, out)
        self[value] = encoded = b"".join(out)
        return encoded


_SMALL_INTS = _SmallInts()


def _put_int(value: int, out: list[bytes]) -> None:
    if 0 <= value < _SMALL:
        out.append(_SMALL_INTS[value])
    else:
        _put_any_int(value, out)


def _put_any_int(value: int, out: list[bytes]) -> None:
    # The sign takes one bit more than the magnitude; ~ makes -128 as short as 127.
    magnitude = value if value >= 0 else ~value
    raw = value.to_bytes(magnitude.bit_length() // 8 + 1, "big", signed=True)
    out += (b"i", _length(len(raw)), raw)


def _put_float(value: float, out: list[bytes]) -> None:
    out += (b"f", _NAN if value != value else _DOUBLE.pack(value))  # noqa: PLR0124  true for NaN


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


_SET, _FROZENSET = _Tag(b"S"), _Tag(b"Z")
_CLASS, _ENUM = _ClassTag(b"c"), _ClassTag(b"e")


def _put_set(value: set[Any] | frozenset[Any], out: list[bytes]) -> None:
    out += (_SET if type(value) is set else _FROZENSET, _length(len(value)))
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
    """Return the encoder of a class that is not in the table, or None if it has no encoding."""
    coder = coder_of(cls)
    if coder is not None:
        return _coded(coder)
    kind: list[bytes] = []
    _put_str(class_name(cls), kind)
    header = b"".join(kind)

    if issubclass(cls, Enum):

        def put_enum(member: Enum, out: list[bytes]) -> None:
            out += (_ENUM, header)
            _put_str(member.name or "", out)  # a combination of flags has no name
            ENCODERS[type(member.value)](member.value, out)

        return put_enum

    declared = fields_of(cls)
    if declared is None:
        return None
    extra = extra_of(cls, declared)
    names_of = _pydantic_names(declared) if is_pydantic(cls) else None

    def put_fields(instance: Any, out: list[bytes]) -> None:
        # Silently dropping an attribute would give two different values one encoding.
        for name in extra(instance):
            raise EncodingError(
                f"a {cls.__qualname__} carries {name!r}, which is not one of its fields; declare it "
                "as a field"
            )
        names = declared if names_of is None else names_of(instance)
        out += (_CLASS, header, _length(len(names)))
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


def _coded(coder: Coder) -> _Encoder:
    tag: list[bytes] = [b"x"]
    _put_str(coder.name, tag)
    header = (_Tag if is_builtin(coder.name) else _CustomTag)(b"".join(tag))
    to_data = coder.to_data

    def put_coded(value: Any, out: list[bytes]) -> None:
        try:
            data = to_data(value)
        except (EncodingError, RecursionError):
            raise
        except Exception as error:  # noqa: BLE001  a package may raise anything
            kind = type(value).__qualname__
            raise EncodingError(f"a value of type {kind} cannot be encoded: {error}") from None
        out.append(header)
        ENCODERS[type(data)](data, out)

    return put_coded


def _pydantic_names(declared: tuple[str, ...]) -> Callable[[Any], tuple[str, ...]]:
    """Return a function of a model that returns its fields, and which were set if not all were."""

    def names_of(instance: Any) -> tuple[str, ...]:
        return (
            declared if len(instance.model_fields_set) == len(declared) else (*declared, FIELDS_SET)
        )

    return names_of


def _inside(where: str, error: EncodingError) -> EncodingError:
    if isinstance(error, TooDeepError):
        return error  # the path would have hundreds of levels
    text = str(error)
    return EncodingError(
        f"at {where}{text[3:]}" if text.startswith("at ") else f"at {where}: {text}"
    )


def _refuse(value: Any, _: list[bytes]) -> None:
    raise EncodingError(refusal(value))


class _Encoders(dict[type, _Encoder]):
    """The encoder of each class; an unknown class is inspected once."""

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
"""For each class, the function that appends the parts of a value's encoding to a list. It may raise
`EncodingError` and, for a value that contains itself, `RecursionError`."""


def _forget(cls: type) -> None:
    cast("_Encoders", ENCODERS).pop(cls, None)


on_register(_forget)


# The classes that count as plain data.


_PLAIN = (str, bytes, int, float, list, tuple, set, frozenset, dict)

FIELDS_SET = "model_fields_set"
"""The attribute of a pydantic model that tells which fields were set, not filled with defaults."""


def is_pydantic(cls: type) -> bool:
    """Return whether a class is a pydantic model."""
    return hasattr(cls, "__pydantic_fields__") and hasattr(cls, FIELDS_SET)


def fields_of(cls: type) -> tuple[str, ...] | None:
    """Return the fields of a class whose values are its fields; None for another class.

    These are dataclasses, msgspec structs, named tuples, attrs classes and pydantic models.
    """
    if issubclass(cls, tuple):
        return cast("tuple[str, ...] | None", getattr(cls, "_fields", None))
    if issubclass(cls, _PLAIN):  # such a class holds content that is not in its fields
        return None
    if "__dataclass_fields__" in cls.__dict__:
        with importing():
            import dataclasses

        return tuple(field.name for field in dataclasses.fields(cast("Any", cls)))
    if "__attrs_attrs__" in cls.__dict__:
        return tuple(attribute.name for attribute in cast("Any", cls).__attrs_attrs__)
    if is_pydantic(cls):
        return tuple(cast("Any", cls).__pydantic_fields__)
    return cast("tuple[str, ...] | None", getattr(cls, "__struct_fields__", None))


def extra_of(cls: type, names: tuple[str, ...]) -> Callable[[Any], Iterable[str]]:
    """Return a function of an instance that returns its attributes that are not fields."""
    if is_pydantic(cls):
        return lambda model: sorted(
            [*(model.__pydantic_extra__ or ()), *(model.__pydantic_private__ or ())]
            + [name for name in model.__dict__ if name not in names]
        )
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
    """Return why a value has no canonical encoding, and what to pass instead."""
    cls = type(value)
    name = cls.__qualname__
    if callable(value):
        return f"a {name} is code, not data: pass plain data, or make a node of it"
    plain = next((base.__name__ for base in _PLAIN if isinstance(value, base)), None)
    hint = {
        "Call": "pass calls as arguments, or inside lists, tuples and dicts",
        "Resource": "pass resources as arguments, or inside lists, tuples and dicts",
        "memoryview": "pass bytes(…)",
        "Timestamp": "pass .to_pydatetime()",
    }.get(name)
    if hint is None and plain is not None:
        hint = f"it is a {plain} and more: pass {plain}(…)"
    if hint is None and hasattr(cls, "__dataclass_fields__"):
        hint = "its base is a dataclass, but it is not: write @dataclass above it"
    return f"a value of type {name} has no canonical encoding: " + (
        hint
        or "pass plain data (None, bool, int, float, str, bytes, list, tuple, dict, set, an enum, a "
        "dataclass, …), or register a codec for its type, register_codec(…)"
    )


# Reading.


_RAW = Maker()


def decode(data: bytes | memoryview, maker: Maker = _RAW) -> Any:
    """Return the value of a canonical encoding.

    Args:
        data: the encoding.
        maker: makes the values that are not plain data; by default `Typed`, `Member` and `Coded`.

    Raises:
        EncodingError: the bytes are not a canonical encoding, or other bytes follow it.
        TooDeepError: the value is nested too deeply for the stack that is left.

    Example:
        >>> decode(encode({"a": (1, 2.0)}))
        {'a': (1, 2.0)}
    """
    try:
        value, end = _take(data, 0, maker)
    except RecursionError:
        raise TooDeepError("a canonical encoding is nested too deeply to read") from None
    except EncodingError:
        raise
    except Exception as error:  # noqa: BLE001  the bytes may be anything
        raise EncodingError(f"not a canonical encoding: {_text(error)}") from None
    if end != len(data):
        raise EncodingError(f"not a canonical encoding: {len(data) - end} bytes follow its end")
    return value


def _text(error: Exception) -> str:
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception:  # noqa: BLE001  a class of the user may have raised it
        return name


def _take_length(data: bytes | memoryview, at: int) -> tuple[int, int]:
    n = data[at]
    return (n, at + 1) if n < LONG else (int.from_bytes(data[at + 1 : at + 9], "big"), at + 9)


def _take_raw(data: bytes | memoryview, at: int) -> tuple[bytes | memoryview, int]:
    n, at = _take_length(data, at)
    if n >= LARGE and isinstance(data, Skeleton):
        return next(data.larges), at
    if at + n > len(data):
        raise IndexError(f"{n} bytes announced at {at}, {len(data) - at} left")
    return data[at : at + n], at + n


def _take_str(data: bytes | memoryview, at: int) -> tuple[str, int]:
    raw, at = _take_raw(data, at)
    return str(raw, "utf-8", "surrogatepass"), at


def _take_tagged_str(data: bytes | memoryview, at: int) -> tuple[str, int]:
    return _take_str(data, at + 1)


_ARRAY = b"\x0dnumpy.ndarrayt\x02b"
"""How the encoding of an array goes on after its first two tags, up to its header."""

_SEQUENCES: dict[int, Callable[[list[Any]], Any]] = {
    ord("l"): list,
    ord("t"): tuple,
    ord("S"): set,
    ord("Z"): frozenset,
}


def _take(data: bytes | memoryview, at: int, maker: Maker) -> tuple[Any, int]:  # noqa: C901, PLR0911, PLR0912  one case a tag
    tag = data[at]
    at += 1
    match tag:
        case 0x4E:  # N
            return None, at
        case 0x54:  # T
            return True, at
        case 0x46:  # F
            return False, at
        case 0x69:  # i
            raw, at = _take_raw(data, at)
            return int.from_bytes(raw, "big", signed=True), at
        case 0x66:  # f
            return _DOUBLE.unpack_from(data, at)[0], at + 8
        case 0x73:  # s
            return _take_str(data, at)
        case 0x62:  # b
            raw, at = _take_raw(data, at)
            return bytes(raw), at
        case 0x78 if maker.views and data[at + 1 : at + 18] == _ARRAY:
            # An array copies its elements itself, so they need no bytes of their own.
            head, at = _take_raw(data, at + 18)
            if data[at] != ord("b"):
                raise IndexError(f"an array without elements at {at}")
            elements, at = _take_raw(data, at + 1)
            return maker.coded("numpy.ndarray", (bytes(head), elements)), at
        case 0x6C | 0x74 | 0x53 | 0x5A:  # l, t, S, Z
            n, at = _take_length(data, at)
            members = []
            for _ in range(n):
                member, at = _take(data, at, maker)
                members.append(member)
            return _SEQUENCES[tag](members), at
        case 0x64:  # d
            n, at = _take_length(data, at)
            items = {}
            for _ in range(n):
                key, at = _take(data, at, maker)
                items[key], at = _take(data, at, maker)
            return items, at
        case 0x65:  # e
            kind, at = _take_tagged_str(data, at)
            name, at = _take_tagged_str(data, at)
            value, at = _take(data, at, maker)
            return maker.member(kind, name, value), at
        case 0x63:  # c
            kind, at = _take_tagged_str(data, at)
            n, at = _take_length(data, at)
            fields = {}
            for _ in range(n):
                name, at = _take_tagged_str(data, at)
                fields[name], at = _take(data, at, maker)
            return maker.typed(kind, fields), at
        case 0x78:  # x
            name, at = _take_str(data, at + 1)
            value, at = _take(data, at, maker)
            return maker.coded(name, value), at
        case 0x6F:  # o
            digest, at = _take_tagged_str(data, at)
            return Output(digest), at
        case 0x72:  # r
            label, at = _take_tagged_str(data, at)
            digest, at = _take_tagged_str(data, at)
            return Identified(label, digest), at
        case _:
            raise IndexError(f"no value has the tag {bytes((tag,))!r}")
