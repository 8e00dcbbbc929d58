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

Anything else raises `EncodingError`: never `repr`, `str` or pickle.
"""

import math
import struct
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple, cast

from cachedeval.engine.errors import EncodingError

__all__ = ["Identified", "Output", "Typed", "decode", "encode"]


class Output(NamedTuple):
    """Stands in a recipe for the output of an upstream call."""

    digest: str


class Identified(NamedTuple):
    """Stands in a recipe for what is known by its identity: a resource, a file."""

    label: str
    digest: str


class Typed(NamedTuple):
    """What an enum member, a dataclass, a struct or a named tuple decodes to."""

    kind: str
    """Module and qualified name of the class."""
    fields: dict[str, Any]


_Encoder = Callable[[Any, list[bytes]], None]

_LONG = 255
_SHORT_LENGTHS = [bytes((n,)) for n in range(_LONG)]
_NAN = struct.pack(">d", math.nan)
_DOUBLE = struct.Struct(">d")


def encode(value: Any) -> bytes:
    """Return the canonical encoding of a value.

    Raises:
        EncodingError: the value, or something inside it, has none; the message says where.
    """
    out: list[bytes] = []
    try:
        _put(value, out)
    except RecursionError:
        raise EncodingError(
            f"a value of type {type(value).__name__} cannot be encoded: it contains itself, or is "
            "nested too deeply; flatten it"
        ) from None
    return b"".join(out)


def decode(data: bytes) -> Any:
    """Return the value of a canonical encoding; classes come back as `Typed`.

    Raises:
        EncodingError: the bytes are no canonical encoding, or something stands behind it.
    """
    try:
        value, end = _take(data, 0)
    except (IndexError, struct.error, UnicodeDecodeError, RecursionError, TypeError) as error:
        raise EncodingError(f"not a canonical encoding: {error}") from None
    if end != len(data):
        raise EncodingError(f"not a canonical encoding: {len(data) - end} bytes follow its end")
    return value


def _put(value: Any, out: list[bytes]) -> None:
    encoder = _ENCODERS.get(type(value))
    if encoder is None:
        encoder = _ENCODERS[type(value)] = _encoder_of_class(value)
    encoder(value, out)


def _length(n: int) -> bytes:
    return _SHORT_LENGTHS[n] if n < _LONG else b"\xff" + n.to_bytes(8, "big")


def _put_none(_: None, out: list[bytes]) -> None:
    out.append(b"N")


def _put_bool(value: bool, out: list[bytes]) -> None:  # noqa: FBT001  the value is what is encoded
    out.append(b"T" if value else b"F")


def _put_int(value: int, out: list[bytes]) -> None:
    # One bit more than the magnitude needs is the sign's; ~ makes -128 as short as 127.
    magnitude = value if value >= 0 else ~value
    raw = value.to_bytes(magnitude.bit_length() // 8 + 1, "big", signed=True)
    out += (b"i", _length(len(raw)), raw)


def _put_float(value: float, out: list[bytes]) -> None:
    out += (b"f", _NAN if value != value else _DOUBLE.pack(value))  # noqa: PLR0124  NaN alone


def _put_str(value: str, out: list[bytes]) -> None:
    raw = value.encode("utf-8", "surrogatepass")
    out += (b"s", _length(len(raw)), raw)


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
            _put(member, out)
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
            _put(member, encoded)
        except EncodingError as error:
            raise _inside(f"[{key!r}]", error) from None
        items.append((encode(key), encoded))
    items.sort(key=_first)
    out += (b"d", _length(len(items)))
    for encoded_key, encoded in items:
        out.append(encoded_key)
        out += encoded


def _first(item: tuple[bytes, list[bytes]]) -> bytes:
    return item[0]


def _put_output(value: Output, out: list[bytes]) -> None:
    out.append(b"o")
    _put_str(value.digest, out)


def _put_identified(value: Identified, out: list[bytes]) -> None:
    out.append(b"r")
    _put_str(value.label, out)
    _put_str(value.digest, out)


def _encoder_of_class(value: Any) -> _Encoder:
    """Find how a class without an entry in the table is encoded; asked once a class."""
    cls = type(value)
    kind: list[bytes] = []
    _put_str(f"{cls.__module__}.{cls.__qualname__}", kind)
    header = b"".join(kind)

    if isinstance(value, Enum):

        def put_enum(member: Enum, out: list[bytes]) -> None:
            out += (b"e", header)
            _put_str(member.name if isinstance(member.name, str) else "", out)
            _put(member.value, out)

        return put_enum

    names = _field_names(cls)
    if names is None:
        raise EncodingError(_refusal(value))

    def put_fields(instance: Any, out: list[bytes]) -> None:
        # A dataclass may carry attributes that are no fields; to drop them in silence would make
        # two different values one.
        extra = set(getattr(instance, "__dict__", ())) - set(names)
        if extra:
            raise EncodingError(
                f"a {cls.__qualname__} carries {sorted(extra)[0]!r}, which is none of its fields; "
                "declare it as a field"
            )
        out += (b"c", header, _length(len(names)))
        for name in names:
            _put_str(name, out)
            try:
                _put(getattr(instance, name), out)
            except EncodingError as error:
                raise _inside(f".{name}", error) from None

    return put_fields


def _field_names(cls: type) -> tuple[str, ...] | None:
    """Return the fields of a dataclass, msgspec struct or named tuple; None for another class."""
    if "__dataclass_fields__" in cls.__dict__:
        import dataclasses  # noqa: PLC0415  slow to import, and no built-in node needs it

        return tuple(field.name for field in dataclasses.fields(cls))
    if hasattr(cls, "__struct_fields__"):
        return cast("tuple[str, ...]", cls.__struct_fields__)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return cast("tuple[str, ...]", cls._fields)
    return None


def _refusal(value: Any) -> str:
    name = type(value).__qualname__
    if hasattr(value, "__fspath__"):
        return (
            f"a path ({name}) names a place, not content: pass cachedeval.File(path), which is "
            "known by the file's content, or the text itself"
        )
    if callable(value):
        return f"a {name} is code, not data: pass plain data, or make a node of it"
    hint = {
        "bytearray": "pass bytes(…)",
        "memoryview": "pass bytes(…)",
        "datetime": "pass .isoformat()",
        "date": "pass .isoformat()",
        "Decimal": "pass str(…)",
        "UUID": "pass str(…)",
        "complex": "pass the pair of floats",
        "ndarray": "pass .tolist(), or the bytes with shape and dtype",
    }.get(name, "pass plain data: None, bool, int, float, str, bytes, list, tuple, dict, set, "
                "an enum, a dataclass or a msgspec struct")  # fmt: skip
    return f"a value of type {name} has no canonical encoding: {hint}"


def _inside(where: str, error: EncodingError) -> EncodingError:
    return EncodingError(f"at {where}: {error}".replace(": at ", " "))


_ENCODERS: dict[type, _Encoder] = {
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


def _take_length(data: bytes, at: int) -> tuple[int, int]:
    n = data[at]
    return (n, at + 1) if n < _LONG else (int.from_bytes(data[at + 1 : at + 9], "big"), at + 9)


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
            return Typed(kind, {"name": name, "value": value}), at
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
