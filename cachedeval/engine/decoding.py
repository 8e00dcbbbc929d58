"""Reading the canonical encoding back; how it looks stands in `cachedeval.engine.encoding`."""

import struct
from typing import Any

from cachedeval.engine.encoding import LONG, Identified, Member, Output, TooDeepError, Typed
from cachedeval.engine.errors import EncodingError

__all__ = ["decode"]

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
