"""How a step's output is written down and read back: plain data, never pickle.

MessagePack by the declared type is short and fast, but it merges tuples with lists, knows no int
beyond 64 bits and no lone surrogate. So what it would not give back as it was is written in the
canonical encoding instead, and what neither gives back as it was is refused when it is computed,
not when it is read.

Reading runs the code of the declared type: the `__post_init__` of a dataclass may raise anything.
So any exception while a payload is read means that it holds no value of the type.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from cachedeval.engine.decoding import decode
from cachedeval.engine.encoding import Member, Typed, encode, too_deep
from cachedeval.engine.errors import EncodingError
from cachedeval.engine.forks import importing

__all__ = ["Codec", "payload_digest"]

T = TypeVar("T")

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
            self._decode = msgspec.msgpack.Decoder(declared, ext_hook=_refuse).decode
        except TypeError as error:
            raise EncodingError(
                f"values of the declared type {declared!r} cannot be stored: {error}"
            ) from None

    def dump(self, value: Any) -> bytes:
        """Return the value as bytes, the same for equal values.

        Raises:
            EncodingError: the value is no plain data, or would not come back as it is.
        """
        try:
            return at_any_depth(lambda: self._dump(value))
        except RecursionError:
            raise too_deep(value) from None

    def _dump(self, value: Any) -> bytes:
        wanted = encode(value)
        try:
            payload = msgspec.msgpack.encode(value, order="deterministic")
            back = self._decode(payload)
            # Where a type is declared, what is equal to its value will do: 1 for a float.
            if encode(back) == wanted or (self.declared is not Any and back == value):
                return _MESSAGEPACK + payload
        except RecursionError:
            raise  # the format must not depend on how deep the caller's stack is
        except Exception:  # noqa: BLE001, S110  whatever the type's own code raises
            pass
        back = self._load(_CANONICAL + wanted)
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
        try:
            return self._load(payload)
        except RecursionError:
            pass
        try:
            return at_any_depth(lambda: self._load(payload))
        except RecursionError as error:
            raise self._refusal(error) from None

    def _load(self, payload: bytes) -> Any:
        try:
            if payload.startswith(_MESSAGEPACK):
                return self._decode(payload[1:])
            if payload.startswith(_CANONICAL):
                value = decode(payload[1:])
                if self.declared is Any:
                    return value
                return msgspec.convert(_plain(value), self.declared)
        except (EncodingError, RecursionError):
            raise
        except Exception as error:
            raise self._refusal(error) from error
        raise EncodingError("the payload has no known format")

    def _refusal(self, error: Exception) -> EncodingError:
        why = type(error).__name__
        with suppress(Exception):  # the text of an error is somebody's code, too
            why = f"{why}: {error}"
        return EncodingError(f"not a {self.declared!r}: {why}")


def _refuse(code: int, _: memoryview) -> Any:
    raise EncodingError(f"it holds a MessagePack extension ({code}), which is never written")


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


def at_any_depth(work: Callable[[], T]) -> T:
    """Call a function, on a stack of its own where the caller's leaves it too little room.

    So what can be read does not depend on where in a program somebody reads it.

    Raises:
        RecursionError: a whole stack is too little.
    """
    try:
        return work()
    except RecursionError:
        pass
    returned: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            returned.append(work())
        except BaseException as error:  # noqa: BLE001  the caller's
            raised.append(error)

    thread = threading.Thread(target=run, name="cachedeval-deep", daemon=True)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return returned[0]
