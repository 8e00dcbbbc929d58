"""A memory backend that counts what it is asked, and fails when it is told to."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from cachedeval.engine.backend import Entry
from cachedeval_memory import MemoryBackend


class FaultyBackend(MemoryBackend):
    """Counts calls by method; a method named in `broken` raises OSError."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.broken: set[str] = set()
        self.closed = 0

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        self._note("get")
        self.counts["keys read"] += len(keys)
        return super().get_many(keys)

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self._note("put")
        super().put_many(items)

    def delete_many(self, keys: Iterable[bytes]) -> int:
        self._note("delete")
        return super().delete_many(keys)

    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        self._note("touch")
        super().touch_many(hits, when)

    def scan(self) -> Iterator[Entry]:
        self._note("scan")
        return super().scan()

    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:
        self._note("lease")
        return super().lease_many(keys)

    def close(self) -> None:
        self.closed += 1
        self._note("close")

    def damage(self, change: Callable[[bytes], Any]) -> int:
        """Replace each value by what `change` makes of it; return how many there are."""
        with self._lock:
            self._values = {key: change(value) for key, value in self._values.items()}
            return len(self._values)

    def _note(self, operation: str) -> None:
        self.counts[operation] += 1
        if operation in self.broken:
            raise OSError(28, "no room is left here")
