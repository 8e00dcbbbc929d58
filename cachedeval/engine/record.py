"""Records: the bytes stored under a key, with a checksum.

    magic (4) | format (1) | checksum (16: xxh3_128 of the body) | body (MessagePack)

Each read verifies the checksum. A record of another format and a corrupt record are misses. The
body is an array, so a later version may add fields at its end, and older versions still read the
fields that they know.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import msgspec
import xxhash

from cachedeval.engine.encoding import LARGE

__all__ = [
    "TAGS",
    "CorruptRecord",
    "Pieces",
    "Record",
    "pack",
    "pack_pieces",
    "unpack",
    "write_notes",
]

_MAGIC = b"ceR\x00"
_FORMAT = 1
_HEAD = _MAGIC + bytes((_FORMAT,))
_SEAL_AT = len(_HEAD)
_BODY_AT = _SEAL_AT + 16


TAGS = "tags"
"""Where the provenance holds the tags of a result."""


class Pieces(bytes):
    """A large payload in pieces, which are stored one after the other; it has no bytes itself.

    Attributes:
        pieces: bytes, or one view of a record that was read.
    """

    pieces: Sequence[bytes | memoryview]

    def __new__(cls, pieces: Sequence[bytes | memoryview]) -> Self:
        """Make a payload of pieces."""
        made = super().__new__(cls)
        made.pieces = pieces
        return made

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, bytes) and self.joined() == (
            other.joined() if isinstance(other, Pieces) else other
        )

    def __hash__(self) -> int:
        return hash(self.joined())

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"

    def joined(self) -> bytes:
        """Return the bytes of all pieces: a copy."""
        return b"".join(self.pieces)


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The result of one call.

    Attributes:
        recipe: the canonical recipe, compared on each hit.
        payload: the output, as `Codec` encodes it; `Pieces` if it is large, and `Unstored` if it
            cannot be stored.
        digest: the output's digest, for the recipes of later steps.
        created: seconds since the epoch.
        seconds: how long the step took.
        cost: what the step cost in the node's own units, such as tokens or money.
        notes: the provenance, as `write_notes` encodes it. A hit does not decode it.

    Example:
        >>> from cachedeval import Computed, Engine, node
        >>> @node(version="1", name="shout")
        ... def shout(text: str) -> Computed[str]:
        ...     return Computed(text.upper(), cost={"letters": len(text)})
        >>> with Engine() as engine:
        ...     engine.settle(shout("hello")).record.cost
        {'letters': 5.0}
    """

    recipe: bytes
    payload: bytes
    digest: str
    created: float
    seconds: float
    cost: dict[str, float] = {}
    notes: bytes = b""

    @property
    def provenance(self) -> dict[str, Any]:
        """Facts about the result that are not part of the output, such as source fingerprints."""
        try:
            return _read_notes(self.notes) if self.notes else {}
        except Exception:  # noqa: BLE001  any program may write a record with a valid checksum
            return {}

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of the node when the result was stored; none in records of older versions."""
        found = self.provenance.get(TAGS)
        if not isinstance(found, list):
            return ()
        return tuple(tag for tag in found if isinstance(tag, str))


class CorruptRecord(Exception):  # noqa: N818  a finding, not an error of the program
    """The bytes are not a valid record of this format; the text says why."""


_read_notes = msgspec.msgpack.Decoder(dict[str, Any]).decode
_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(Record).decode
_decode_view = msgspec.msgpack.Decoder(
    tuple[bytes, memoryview, str, float, float, dict[str, float], bytes]
).decode
_FIELDS = 7


def write_notes(provenance: Mapping[str, Any]) -> bytes:
    """Return provenance as bytes; equal dicts give equal bytes.

    Raises:
        TypeError: a value is not plain data.
        ValueError: a value is not plain data.
        OverflowError: an int has more than 64 bits.
        RecursionError: it is nested too deeply.
    """
    notes = _encode(provenance)
    _read_notes(notes)
    return notes


def pack(record: Record) -> bytes:
    """Return the record as bytes, with its checksum."""
    if isinstance(record.payload, Pieces):
        return b"".join(pack_pieces(record, record.payload))
    body = _encode(record)
    return _HEAD + xxhash.xxh3_128_digest(body) + body


def pack_pieces(record: Record, payload: Pieces) -> tuple[bytes | memoryview, ...]:
    """Return what `pack` returns in pieces, without a copy of the payload."""
    start = bytes((0x90 + _FIELDS,)) + _encode(record.recipe)  # an array of so many members
    start += b"\xc6" + len(payload).to_bytes(4, "big")  # bytes with a length of four bytes
    rest = (record.digest, record.created, record.seconds, record.cost, record.notes)
    body = (start, *payload.pieces, b"".join(map(_encode, rest)))
    checksum = xxhash.xxh3_128()
    for piece in body:
        checksum.update(piece)
    return (_HEAD + checksum.digest(), *body)


def unpack(data: bytes) -> Record:
    """Return the record that the bytes hold.

    Raises:
        CorruptRecord: the bytes are not a valid record.
    """
    if not isinstance(data, bytes):
        raise CorruptRecord("not bytes")
    if not data.startswith(_HEAD):
        raise CorruptRecord(
            "of another format" if data.startswith(_MAGIC) else "not a record of this project"
        )
    is_large = len(data) >= LARGE
    body = memoryview(data)[_BODY_AT:] if is_large else data[_BODY_AT:]
    if xxhash.xxh3_128_digest(body) != data[_SEAL_AT:_BODY_AT]:
        raise CorruptRecord("its digest does not match its content")
    try:
        if is_large and body[0] == 0x90 + _FIELDS:
            recipe, view, digest, created, seconds, cost, notes = _decode_view(body)
            payload = Pieces((view,)) if len(view) >= LARGE else bytes(view)
            return Record(recipe, payload, digest, created, seconds, cost, notes)
        return _decode(body)
    except Exception as error:  # noqa: BLE001
        # Any program may write a body with a valid checksum, even one nested without end.
        raise CorruptRecord(f"its body cannot be read: {error}") from None
