"""Both backends against a dictionary, in sequences that hypothesis thinks up and shrinks."""

import tempfile
import time
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cachedeval.engine.backend import Backend
from cachedeval_disk import DiskBackend
from cachedeval_memory import MemoryBackend

_KEYS = st.integers(0, 7).map(lambda number: bytes([number]) * 16)
_VALUES = st.one_of(st.binary(max_size=40), st.integers(0, 70_000).map(lambda n: b"v" * n))


class _AsADictionary(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.values: dict[bytes, bytes] = {}
        self.hits: dict[bytes, int] = {}
        self.backend = self.open()

    def open(self) -> Backend:
        raise NotImplementedError

    @rule(items=st.dictionaries(_KEYS, _VALUES, max_size=4))
    def put(self, items: dict[bytes, bytes]) -> None:
        self.backend.put_many(items)
        self.values.update(items)
        for key in items:
            self.hits.setdefault(key, 0)

    @rule(keys=st.lists(_KEYS, max_size=4))
    def delete(self, keys: list[bytes]) -> None:
        held = set(keys) & set(self.values)
        assert self.backend.delete_many(keys) == len(held)
        for key in held:
            del self.values[key], self.hits[key]

    @rule(keys=st.lists(_KEYS, max_size=4))
    def get(self, keys: list[bytes]) -> None:
        expected = {key: self.values[key] for key in keys if key in self.values}
        assert self.backend.get_many(keys) == expected

    @rule(hits=st.dictionaries(_KEYS, st.integers(1, 5), max_size=4))
    def touch(self, hits: dict[bytes, int]) -> None:
        self.backend.touch_many(hits, time.time())
        for key in set(hits) & set(self.hits):
            self.hits[key] += hits[key]

    @rule(key=_KEYS)
    def lease(self, key: bytes) -> None:
        with self.backend.lease(key) as mine, self.backend.lease(key) as second:
            assert mine
            assert not second

    @invariant()
    def shows_what_it_holds(self) -> None:
        assert {entry.key: entry.hits for entry in self.backend.scan()} == self.hits

    def teardown(self) -> None:
        self.backend.close()


class _Memory(_AsADictionary):
    def open(self) -> Backend:
        return MemoryBackend()


class _Disk(_AsADictionary):
    def open(self) -> Backend:
        self.place = tempfile.TemporaryDirectory(prefix="cachedeval-test-")
        return DiskBackend(Path(self.place.name) / "cache")

    @rule()
    def reopen(self) -> None:
        self.backend.close()
        self.backend = DiskBackend(Path(self.place.name) / "cache")

    def teardown(self) -> None:
        super().teardown()
        self.place.cleanup()


TestMemory = _Memory.TestCase
TestMemory.settings = settings(stateful_step_count=20)
TestDisk = _Disk.TestCase
TestDisk.settings = settings(stateful_step_count=20)
