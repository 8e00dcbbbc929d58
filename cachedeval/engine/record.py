"""What is stored under a key: one sealed record.

    magic (4) | format (1) | seal (16: xxh3_128 of the rest) | body (MessagePack)

The seal is checked at each read; a record of another format, a foreign or a damaged one is no
record. The body is an array, so that fields may be added at its end and older versions still read
what they know.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import xxhash

__all__ = ["Damaged", "Record", "seal", "unseal", "write_notes"]

_MAGIC = b"ceR\x00"
_FORMAT = 1
_HEAD = _MAGIC + bytes((_FORMAT,))
_SEAL_AT = len(_HEAD)
_BODY_AT = _SEAL_AT + 16


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One step's result and where it came from."""

    recipe: bytes
    """The canonical recipe, compared on each hit."""
    payload: bytes
    """The output, as `Codec` writes it."""
    digest: str
    """The output's digest, for the recipes of later steps."""
    created: float
    """Seconds since the epoch."""
    seconds: float
    """How long the step took to compute."""
    cost: dict[str, float] = {}
    """What it cost in the node's own units: tokens, money."""
    notes: bytes = b""
    """The provenance, as `write_notes` gives it: read when it is asked for, which a hit does not."""

    @property
    def provenance(self) -> dict[str, Any]:
        """What is worth knowing and is no part of the output: versions, the source's fingerprint."""
        try:
            return _read_notes(self.notes) if self.notes else {}
        except Exception:  # noqa: BLE001  whoever can write a record can seal it
            return {}


class Damaged(Exception):  # noqa: N818  it is a finding, not a fault of the program
    """The bytes are no sealed record of this format; the text says why."""


_read_notes = msgspec.msgpack.Decoder(dict[str, Any]).decode
_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(Record).decode


def write_notes(provenance: Mapping[str, Any]) -> bytes:
    """Return provenance as bytes, the same for equal ones.

    Raises:
        TypeError, ValueError, OverflowError, RecursionError: it is not plain data.
    """
    notes = _encode(provenance)
    _read_notes(notes)
    return notes


def seal(record: Record) -> bytes:
    """Return the record as bytes, sealed."""
    body = _encode(record)
    return _HEAD + xxhash.xxh3_128_digest(body) + body


def unseal(data: bytes) -> Record:
    """Return the record that the bytes hold.

    Raises:
        Damaged: they hold none that can be trusted.
    """
    if not isinstance(data, bytes):
        raise Damaged("not bytes")
    if not data.startswith(_HEAD):
        raise Damaged(
            "of another format" if data.startswith(_MAGIC) else "not a record of this project"
        )
    body = data[_BODY_AT:]
    if xxhash.xxh3_128_digest(body) != data[_SEAL_AT:_BODY_AT]:
        raise Damaged("its digest does not match its content")
    try:
        return _decode(body)
    except Exception as error:  # noqa: BLE001
        # Whoever can write a body can seal it: it may be nested without end.
        raise Damaged(f"its body cannot be read: {error}") from None
