"""Codecs: the bytes of a step's output. Outputs are plain data; pickle is never used.

MessagePack with the declared type is compact and fast. But it encodes tuples as lists, and has no
ints of more than 64 bits, no lone surrogates and no values with codecs. A value that MessagePack
would change is stored in the canonical encoding instead. A value that both would change raises an
error when it is computed, not when it is read.

Decoding runs code of the declared type, such as the `__post_init__` of a dataclass, which may raise
any exception. So any exception while a payload is decoded means that it holds no value of the type.
"""

# Lazy imports: `hashlib` loads OpenSSL, which no hit needs, and most values need no `declared`.

import itertools
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from cachedeval.engine.encoding import (
    LARGE,
    Parts,
    Skeleton,
    decode,
    encode,
    encode_parts,
    too_deep,
)
from cachedeval.engine.errors import EncodingError
from cachedeval.engine.process import importing
from cachedeval.engine.record import Pieces

if TYPE_CHECKING:
    from cachedeval.engine.declared import Declared

__all__ = [
    "SIMPLE",
    "UNSTORED",
    "Codec",
    "Unstored",
    "digest_unstored",
    "payload_digest",
    "plain_data",
]

T = TypeVar("T")

_MESSAGEPACK = b"m"
_CANONICAL = b"c"


def payload_digest(payload: bytes) -> str:
    """Return the digest of an output in the recipes of later steps: `sha256:` and 64 hex digits.

    It is cryptographic, unlike a key: it replaces the output in those recipes, so a hit cannot
    compare the output itself.
    """
    if not isinstance(payload, Pieces):
        return f"sha256:{_sha256()(payload).hexdigest()}"
    digest = _sha256()()
    for piece in payload.pieces:
        digest.update(piece)
    return f"sha256:{digest.hexdigest()}"


@cache
def _sha256() -> Any:
    """Return `hashlib.sha256`; the lock around the import is taken once, not for each output."""
    with importing():
        import hashlib

    return hashlib.sha256


def plain_data(payload: bytes) -> Any:
    """Return the value of a payload without its declared type: classes as `Typed` and `Coded`.

    It runs no code of a class and imports no package.

    Raises:
        EncodingError: the payload holds no value.
    """
    data = payload.joined() if isinstance(payload, Pieces) else payload
    if data.startswith(_CANONICAL):
        return at_any_depth(lambda: decode(memoryview(data)[1:]))
    return _ANY.load(data)


class Unstored(bytes):
    """Takes the place of the payload of an output that cannot be stored; has no bytes.

    Attributes:
        value: the output, as the step returned it. It is shared, not copied.
        why: why it cannot be stored; empty where that is as it should be.
        calls: whether it holds calls, which are to run first.
    """

    value: Any
    why: str
    calls: bool

    def __new__(cls, value: Any, why: str, *, calls: bool = False) -> Self:
        """Make the placeholder of an output."""
        made = super().__new__(cls)
        made.value = value
        made.why = why
        made.calls = calls
        return made


UNSTORED = f"unstored:{os.urandom(8).hex()}:"
"""How the digests of outputs begin that have no canonical encoding. No other process has the same,
and no result that depends on such a digest is stored."""

_counter = itertools.count()


def digest_unstored(value: Any) -> str:
    """Return the digest of an output that cannot be stored, for the recipes of later steps."""
    try:
        return payload_digest(_CANONICAL + encode(value))
    except EncodingError:
        return f"{UNSTORED}{next(_counter)}"


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

    __slots__ = ("_decode", "_maker", "declared")

    def __init__(self, declared: Any = Any) -> None:
        self.declared = declared
        self._maker: Declared | None = None
        self._decode: Callable[[bytes | memoryview], Any]
        try:
            self._decode = msgspec.msgpack.Decoder(declared, ext_hook=_refuse).decode
        except TypeError:  # such as a union of two classes
            self._decode = _decode_nothing
        if declared not in SIMPLE:
            self._maker = _declared(declared)

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
        encoded = encode_parts(value)
        if not encoded.has_sets and (large := self._large(encoded, value)) is not None:
            return large
        wanted = b"".join(encoded.parts)
        if encoded.is_plain:
            try:
                payload = msgspec.msgpack.encode(value)
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

    def _large(self, encoded: Parts, value: Any) -> Pieces | None:
        """Return the payload of a value that is large texts or bytes for the most part, or None."""
        sizes = [size for part in encoded.parts if (size := len(part)) >= LARGE]
        if not sizes or 2 * sum(sizes) < sum(map(len, encoded.parts)):
            return None
        pieces: list[bytes] = []
        small = [_CANONICAL]
        for part in encoded.parts:
            if len(part) < LARGE:
                small.append(part)
            else:
                pieces += b"".join(small), part
                small = []
        payload = Pieces((*pieces, b"".join(small)))
        if encoded.is_exact:
            self._made_by().check(value)
        elif encode_parts(self._load(payload)).parts != encoded.parts:
            raise EncodingError(
                f"a value of type {type(value).__qualname__} would change in the cache"
            )
        return payload

    def _made_by(self) -> "Declared":
        maker = self._maker
        if maker is None:
            maker = self._maker = _declared(self.declared)
        return maker

    def load(self, payload: bytes) -> Any:
        """Return the value of a payload.

        Raises:
            EncodingError: the payload does not hold a value of the declared type.
        """
        if isinstance(payload, Unstored):
            return payload.value
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
            if isinstance(payload, Pieces):
                return self._load_large(payload)
            if payload.startswith(_MESSAGEPACK):
                return self._decode(payload[1:])
            if payload.startswith(_CANONICAL):
                return self._make(memoryview(payload)[1:])
        except (EncodingError, RecursionError):
            raise
        except Exception as error:
            raise self._refusal(error) from error
        raise EncodingError("the payload has no known format")

    def _load_large(self, payload: Pieces) -> Any:
        first, *others = payload.pieces
        if not others:  # a view of a record that was read
            if first[:1] == _MESSAGEPACK:
                return self._decode(first[1:])
            if first[:1] == _CANONICAL:
                return self._make(first[1:])
            raise EncodingError("the payload has no known format")
        data = Skeleton(b"".join(piece for piece in payload.pieces if len(piece) < LARGE)[1:])
        data.larges = iter([bytes(piece) for piece in others if len(piece) >= LARGE])
        return self._make(data)

    def _make(self, data: bytes | memoryview) -> Any:
        maker = self._made_by()
        value = decode(data, maker)
        maker.check(value)
        return value

    def _refusal(self, error: Exception) -> EncodingError:
        why = type(error).__name__
        with suppress(Exception):  # the error's own `__str__` may raise, too
            why = f"{why}: {error}"
        return EncodingError(f"not a {self.declared!r}: {why}")


def _refuse(code: int, _: memoryview) -> Any:
    raise EncodingError(f"it holds a MessagePack extension ({code}), which is never written")


def _decode_nothing(payload: bytes | memoryview) -> Any:
    del payload
    raise EncodingError("MessagePack cannot hold values of the declared type")


SIMPLE: tuple[Any, ...] = (Any, None, bool, int, float, str, bytes, list[str], list[int])
"""Types of many nodes, which need no look inside."""


def _declared(declared: Any) -> "Declared":
    with importing():
        from cachedeval.engine.declared import ANYTHING, Declared

    return ANYTHING if declared is Any else Declared(declared)


_ANY = Codec()


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
