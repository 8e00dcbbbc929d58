from pathlib import Path

from cachedeval.engine.backend import NothingBackend
from cachedeval.engine.digest_cache import StoreDigestCache
from cachedeval.engine.engine import Engine
from cachedeval.engine.store import Store
from cachedeval_memory.backend import MemoryBackend

KEYS = [bytes([n]) * 16 for n in range(4)]


def test_what_was_stored_is_returned_and_nothing_else() -> None:
    known_digests = StoreDigestCache(Store(MemoryBackend()))
    assert known_digests.get_many(KEYS) == {}
    known_digests.put_many({KEYS[0]: b"a", KEYS[1]: b""})
    assert known_digests.get_many(KEYS) == {KEYS[0]: b"a", KEYS[1]: b""}
    assert known_digests.get_many([]) == {}
    known_digests.put_many({})


def test_the_same_key_again_is_the_newer_value_or_the_older_never_another() -> None:
    known_digests = StoreDigestCache(Store(MemoryBackend()))
    known_digests.put_many({KEYS[0]: b"a"})
    known_digests.put_many({KEYS[0]: b"b"})
    assert known_digests.get_many(KEYS)[KEYS[0]] in {b"a", b"b"}


def test_it_persists_across_processes(tmp_path: Path) -> None:
    for expected in ({}, {KEYS[0]: b"a"}):
        with Engine(f"disk:{tmp_path / 'cache'}") as engine:
            known_digests = StoreDigestCache(engine.store)
            assert known_digests.get_many(KEYS) == expected
            known_digests.put_many({KEYS[0]: b"a"})


def test_a_damaged_record_is_not_held() -> None:
    backend = MemoryBackend()
    known_digests = StoreDigestCache(Store(backend))
    known_digests.put_many({KEYS[0]: b"digest of a file"})
    ((key, value),) = backend.get_many([entry.key for entry in backend.scan()]).items()
    for position in range(0, len(value), 7):
        spoiled = bytearray(value)
        spoiled[position] ^= 1
        backend.delete_many([key])
        backend.put_many({key: bytes(spoiled)})
        assert known_digests.get_many(KEYS) in ({}, {KEYS[0]: b"digest of a file"})


def test_a_record_under_anothers_key_is_not_its_own() -> None:
    backend = MemoryBackend()
    known_digests = StoreDigestCache(Store(backend))
    known_digests.put_many({KEYS[0]: b"a"})
    (first,) = [entry.key for entry in backend.scan()]
    known_digests.put_many({KEYS[1]: b"b"})
    (second,) = {entry.key for entry in backend.scan()} - {first}
    stored = backend.get_many([first])[first]
    backend.delete_many([second])
    backend.put_many({second: stored})
    assert known_digests.get_many([KEYS[1]]) == {}


def test_without_storage_it_is_empty() -> None:
    known_digests = StoreDigestCache(Store(NothingBackend()))
    known_digests.put_many({KEYS[0]: b"a"})
    assert known_digests.get_many(KEYS) == {}
