import pickle
from typing import Any

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from cachedeval.engine.record import CorruptRecord, Record, pack, unpack, write_notes

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
RECORDS = st.builds(
    Record,
    recipe=st.binary(max_size=50),
    payload=st.binary(max_size=50),
    digest=st.text(max_size=20),
    created=st.floats(allow_nan=False),
    seconds=st.floats(allow_nan=False),
    cost=st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False), max_size=3),
    notes=st.dictionaries(st.text(max_size=5), JSON, max_size=3).map(write_notes),
)
RECORD = Record(
    b"recipe", b"payload" * 5, "sha256:0", 1.0, 2.0, {"usd": 3.0}, write_notes({"code": "x"})
)


@given(RECORDS)
def test_what_is_sealed_is_unsealed(record: Record) -> None:
    assert unpack(pack(record)) == record


def test_equal_records_have_equal_bytes() -> None:
    one = Record(b"", b"", "", 0.0, 0.0, {"a": 1.0, "b": 2.0}, write_notes({"x": {"y": 1, "z": 2}}))
    other = Record(
        b"", b"", "", 0.0, 0.0, {"b": 2.0, "a": 1.0}, write_notes({"x": {"z": 2, "y": 1}})
    )
    assert pack(one) == pack(other)


@pytest.mark.parametrize(
    "notes",
    [b"\x93", b"\x01", b"\x81\x01\x02", b"\x81\xa1\xff\x01", b"\x81\xa1k" + b"\x91" * 100_000],
)
def test_notes_that_cannot_be_read_are_none(notes: bytes) -> None:
    record = Record(b"", b"", "", 0.0, 0.0, {}, notes)
    assert unpack(pack(record)).provenance == {}


def test_every_damage_of_one_byte_is_noticed() -> None:
    whole = pack(RECORD)
    for at in range(len(whole)):
        for flip in (1, 0x80, 0xFF):
            corrupt = bytearray(whole)
            corrupt[at] ^= flip
            with pytest.raises(CorruptRecord):
                unpack(bytes(corrupt))


def test_every_truncation_and_what_follows_is_noticed() -> None:
    whole = pack(RECORD)
    for end in range(len(whole)):
        with pytest.raises(CorruptRecord):
            unpack(whole[:end])
    with pytest.raises(CorruptRecord):
        unpack(whole + b"\0")


@given(st.binary())
def test_any_bytes_are_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptRecord):
        unpack(data)


def forged(body: bytes) -> bytes:
    return pack(RECORD)[:5] + xxhash.xxh3_128_digest(body) + body


HEAD = b"\xc4\x01a\xc4\x01b\xa1c" + (b"\xcb" + bytes(8)) * 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc0",
        b"\x90",
        b"\x97" + HEAD[:-1],
        b"\xdd\xff\xff\xff\xff" + HEAD,
        b"\x97" + HEAD + b"\x80\x81\xa1k" + b"\x91" * 100_000 + b"\xc0",
        b"\x97" + HEAD + b"\x81\xa1k\xa1x\x80",
        b"\x95\xa1a" + HEAD[3:],
        b"\x97" + HEAD[:6] + b"\xabxxxxxxxxxx\x80" + HEAD[8:],
        b"\x97" + HEAD + b"\x80\x81\xa1k\xabxxxxxxxxxx\x80",
        pickle.dumps(RECORD.recipe),
    ],
)
def test_a_sealed_body_that_is_no_record(body: bytes) -> None:
    with pytest.raises(CorruptRecord, match="its body cannot be read"):
        unpack(forged(body))


def test_what_a_later_version_adds_at_the_end_is_skipped() -> None:
    body = b"\x96" + HEAD + b"\x80"
    assert unpack(forged(body)) == unpack(forged(b"\x98" + body[1:] + b"\xc4\x00\xa5later"))


def test_the_reason_is_reported() -> None:
    whole = pack(RECORD)
    for data, reason in {
        b"": "not a record of this project",
        pickle.dumps(1): "not a record of this project",
        whole[:4] + b"\x02" + whole[5:]: "of another format",
        whole[:-1] + b"!": "its digest does not match",
    }.items():
        with pytest.raises(CorruptRecord, match=reason):
            unpack(data)


@pytest.mark.parametrize("data", [None, "text", 1, ["x"], bytearray(pack(RECORD))])
def test_what_is_not_even_bytes(data: Any) -> None:
    with pytest.raises(CorruptRecord, match="not bytes"):
        unpack(data)
