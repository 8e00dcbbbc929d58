"""Codecs: the bytes of a step's output. Outputs are plain data; pickle is never used.

MessagePack with the declared type is compact and fast. But it encodes tuples as lists, and has no
ints of more than 64 bits and no lone surrogates. A value that MessagePack would change is stored in
the canonical encoding instead. A value that both would change raises an error when it is computed,
not when it is read.

Decoding runs code of the declared type, such as the `__post_init__` of a dataclass, which may raise
any exception. So any exception while a payload is decoded means that it holds no value of the type.
"""

# Lazy import: `hashlib` loads OpenSSL, which no hit needs.

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

import msgspec

from cachedeval.engine.encoding import Member, Typed, decode, encode, encode_noting_sets, too_deep
from cachedeval.engine.errors import EncodingError
from cachedeval.engine.process import importing

__all__ = ["Codec", "payload_digest"]

T = TypeVar("T")

_MESSAGEPACK = b"m"
_CANONICAL = b"c"


def payload_digest(payload: bytes) -> str:
    """Return the digest of an output in the recipes of later steps: `sha256:` and 64 hex digits.

    It is cryptographic, unlike a key: it replaces the output in those recipes, so a hit cannot
    compare the output itself.
    """
    return f"sha256:{_sha256()(payload).hexdigest()}"


@cache
def _sha256() -> Any:
    """Return `hashlib.sha256`; the lock around the import is taken once, not for each output."""
    with importing():
        import hashlib

    return hashlib.sha256


class Codec:
    """Encodes and decodes the values of one declared type.

    Args:
        declared: the type that a node returns, as annotated; `Any` if none is declared.

    Raises:
        EncodingError: values of the type cannot be stored.

    Example:
        >>> codec = Codec(tuple[int, str])
        >>> codec.load(codec.dump((1, "one")))
        (1, 'one')
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
        """Return the value as bytes; equal values give equal bytes.

        Raises:
            EncodingError: the value is not plain data, or `load` would return another value.
        """
        try:
            return at_any_depth(lambda: self._dump(value))
        except RecursionError:
            raise too_deep(value) from None

    def _dump(self, value: Any) -> bytes:
        wanted, has_sets = encode_noting_sets(value)
        try:
            # The order of a set may differ in the next process, and MessagePack would store it.
            payload = b"" if has_sets else msgspec.msgpack.encode(value)
            back = self._decode(payload)
            # With a declared type, an equal value is accepted: 1 for a float.
            if encode(back) == wanted or (self.declared is not Any and back == value):
                return _MESSAGEPACK + payload
        except RecursionError:
            raise  # the format must not depend on the depth of the caller's stack
        except Exception:  # noqa: BLE001, S110  the type's own code may raise anything
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
        with suppress(Exception):  # the error's own `__str__` may raise, too
            why = f"{why}: {error}"
        return EncodingError(f"not a {self.declared!r}: {why}")


def _refuse(code: int, _: memoryview) -> Any:
    raise EncodingError(f"it holds a MessagePack extension ({code}), which is never written")


def _plain(value: Any) -> Any:
    """Return a decoded value with dicts in place of `Typed`, for msgspec to convert."""
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
    """Call a function; if the caller's stack is too deep for it, call it on a new thread.

    So it does not depend on the caller which values can be read.

    Raises:
        RecursionError: the stack of a new thread is too small, too.
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
        except BaseException as error:  # noqa: BLE001  raised again in the caller's thread
            raised.append(error)

    thread = threading.Thread(target=run, name="cachedeval-deep", daemon=True)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return returned[0]
