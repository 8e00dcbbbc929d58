"""The backend that stands in where the wanted one cannot be opened: it holds nothing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from cachedeval.engine.backend import Entry

__all__ = ["NothingBackend"]


class NothingBackend:
    """Keeps nothing and says so; every lease is granted."""

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return nothing."""
        del keys
        return {}

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        """Keep nothing."""

    def delete_many(self, keys: Iterable[bytes]) -> int:
        """Delete nothing."""
        del keys
        return 0

    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        """Note nothing."""

    def scan(self) -> Iterator[Entry]:
        """Yield nothing."""
        return iter(())

    def lease(self, key: bytes) -> AbstractContextManager[bool]:
        """Grant the lease: there is nobody to share with."""
        del key
        return nullcontext(enter_result=True)

    def close(self) -> None:
        """Close nothing."""
