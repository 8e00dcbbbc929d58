"""How a step's output is written down and read back: plain data, never pickle.

MessagePack by the declared type is short and fast, but it merges tuples with lists, knows no int
beyond 64 bits and no lone surrogate. So what it would not give back as it was is written in the
canonical encoding instead, and what neither gives back as it was is refused when it is computed,
not when it is read.
"""

from typing import Any

import msgspec

from cachedeval.engine.decoding import decode
from cachedeval.engine.encoding import Member, Typed, encode
from cachedeval.engine.errors import EncodingError
from cachedeval.engine.forks import importing

__all__ = ["Codec", "payload_digest"]

_MESSAGEPACK = b"m"
_CANONICAL = b"c"


def payload_digest(payload: bytes) -> str:
    """Return the digest by which later steps know this output: `sha256:` and 64 hex digits.

    Cryptographic, unlike a key's, since it stands in other recipes in the output's place, where
    no bytes are left to compare.
    """
    with importing():
        import hashlib  # noqa: PLC0415  loads OpenSSL, which no hit needs

    return "sha256:" + hashlib.sha256(payload).hexdigest()


class Codec:
    """Encodes and decodes the values of one declared type.

    Args:
        declared: the type that a node returns, as annotated; `Any` where nothing is declared.
    """

    __slots__ = ("_decode", "declared")

    def __init__(self, declared: Any = Any) -> None:
        self.declared = declared
        try:
            self._decode = msgspec.msgpack.Decoder(declared).decode
        except TypeError as error:
            raise EncodingError(
                f"values of the declared type {declared!r} cannot be stored: {error}"
            ) from None

    def dump(self, value: Any) -> bytes:
        """Return the value as bytes, the same for equal values.

        Raises:
            EncodingError: the value is no plain data, or would not come back as it is.
        """
        wanted = encode(value)
        try:
            payload = msgspec.msgpack.encode(value, order="deterministic")
            back = self._decode(payload)
            # Where a type is declared, what is equal to its value will do: 1 for a float.
            if encode(back) == wanted or (self.declared is not Any and back == value):
                return _MESSAGEPACK + payload
        except (
            msgspec.MsgspecError,
            EncodingError,
            TypeError,
            ValueError,
            OverflowError,
            RecursionError,
        ):
            pass
        back = self._from_canonical(wanted)
        if encode(back) != wanted:
            raise EncodingError(
                f"a value of type {type(value).__qualname__} would come back from the cache as "
                f"{type(back).__qualname__}: annotate the node with the type that it returns"
            )
        return _CANONICAL + wanted

    def load(self, payload: bytes) -> Any:
        """Return the value of a payload.

        Raises:
            EncodingError: the payload does not hold a value of the declared type.
        """
        if payload.startswith(_MESSAGEPACK):
            try:
                return self._decode(payload[1:])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise EncodingError(f"not a {self.declared!r}: {error}") from None
        if payload.startswith(_CANONICAL):
            return self._from_canonical(payload[1:])
        raise EncodingError("the payload has no known format")

    def _from_canonical(self, data: bytes) -> Any:
        value = decode(data)
        if self.declared is Any:
            return value
        try:
            return msgspec.convert(_plain(value), self.declared)
        except (msgspec.ValidationError, TypeError) as error:  # TypeError: a key that is a dict
            raise EncodingError(f"not a {self.declared!r}: {error}") from None


def _plain(value: Any) -> Any:
    """Return a decoded value with what came from classes as dicts, for msgspec to convert."""
    if isinstance(value, Member):
        return _plain(value.value)
    if isinstance(value, Typed):
        return {name: _plain(member) for name, member in value.fields.items()}
    if isinstance(value, dict):
        return {_plain(key): _plain(member) for key, member in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return type(value)(_plain(member) for member in value)
    return value
