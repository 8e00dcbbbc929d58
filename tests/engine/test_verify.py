"""Verifying finds every damage and nothing else."""

import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cachedeval import Backend, Engine, Entry, node, open_backend
from cachedeval.engine.backend import NothingBackend
from cachedeval.engine.digest_cache import StoreDigestCache
from cachedeval.engine.errors import BackendError
from cachedeval.engine.maintenance import verify
from cachedeval.engine.record import pack, unpack
from cachedeval.engine.store import Store


@node(version="1", name="double")
def double(x: int) -> int:
    return 2 * x


@pytest.fixture(params=["memory", "disk"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    url = "memory:" if request.param == "memory" else f"disk:{tmp_path / 'cache'}"
    backend = open_backend(url)
    with Engine(backend) as engine:
        engine.run([double(x) for x in range(10)])
        StoreDigestCache(engine.store).put_many({bytes(16): b"file/1 m content 1 xxh3:00ff"})
    yield backend
    backend.close()


def a_key(backend: Backend) -> bytes:
    for entry in backend.scan():
        if b"double" in backend.get_many([entry.key])[entry.key]:
            return entry.key
    raise AssertionError("no record of double")


def test_all_good(backend: Backend) -> None:
    found = verify(Store(backend))
    assert (found.good, found.corrupt, found.foreign) == (11, [], [])
    assert found.sound
    assert found.good_bytes == sum(entry.size for entry in backend.scan())


def test_every_single_damaged_byte_is_found(backend: Backend) -> None:
    key = a_key(backend)
    whole = backend.get_many([key])[key]
    generator = random.Random(3)
    for at in generator.sample(range(len(whole)), 60):
        data = bytearray(whole)
        data[at] ^= 1 << generator.randrange(8)
        backend.put_many({key: bytes(data)})
        found = verify(Store(backend))
        assert found.good == 10, f"byte {at}"
        assert [fault.key for fault in (*found.corrupt, *found.foreign)] == [key]
        assert bool(found.foreign) == (at == 4), "the format's number stands in byte 4"


@pytest.mark.parametrize("length", [0, 1, 5, 20, 21, 60])
def test_every_truncation_is_found(backend: Backend, length: int) -> None:
    key = a_key(backend)
    backend.put_many({key: backend.get_many([key])[key][:length]})
    found = verify(Store(backend))
    assert len(found.corrupt) == 1
    assert not found.sound


def test_a_good_record_under_another_key_is_damage(backend: Backend) -> None:
    data = backend.get_many([a_key(backend)])
    backend.put_many({b"another key 16 b": next(iter(data.values()))})
    (fault,) = verify(Store(backend)).corrupt
    assert fault.key == b"another key 16 b"
    assert "the key of another record" in fault.why


def test_an_output_that_is_not_what_its_digest_says_is_damage(backend: Backend) -> None:
    key = a_key(backend)
    record = unpack(backend.get_many([key])[key])
    backend.put_many({key: pack(msgspec.structs.replace(record, payload=b"m\x07"))})
    (fault,) = verify(Store(backend)).corrupt
    assert "digest" in fault.why


def test_deleting_removes_what_is_damaged_and_leaves_what_is_foreign(backend: Backend) -> None:
    key = a_key(backend)
    whole = backend.get_many([key])[key]
    newer = whole[:4] + b"\x02" + whole[5:]
    backend.put_many({key: whole[:-3], b"of a newer one..": newer})
    found = verify(Store(backend), delete=True)
    assert (len(found.corrupt), len(found.foreign), found.sound) == (1, 1, True)
    again = verify(Store(backend))
    assert (again.good, len(again.corrupt), len(again.foreign)) == (10, 0, 1)


class _Vanishing(NothingBackend):
    """Lists a key at first, and no more once it is asked for it: someone prunes."""

    def __init__(self) -> None:
        self.scans = 0

    def scan(self) -> Iterator[Entry]:
        self.scans += 1
        return iter([Entry(b"k" * 16, 1, 0.0, 0.0, 0)] if self.scans == 1 else [])


def test_what_was_deleted_meanwhile_is_no_damage() -> None:
    found = verify(Store(_Vanishing()))
    assert (found.good, found.corrupt) == (0, [])


class _Unreadable(NothingBackend):
    def scan(self) -> Iterator[Entry]:
        raise OSError("the disk is gone")


def test_a_backend_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(BackendError, match="the disk is gone"):
        verify(Store(_Unreadable()))
