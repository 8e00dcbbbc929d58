"""The backend that stands in where the wanted one cannot be opened: it stores nothing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from cachedeval.engine.backend import Backend, Entry

__all__ = ["NothingBackend"]


class NothingBackend(Backend):
    """Stores nothing; every lease is granted."""

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return nothing."""
        del keys
        return {}

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        """Store nothing."""

    def delete_many(self, keys: Iterable[bytes]) -> int:
        """Delete nothing."""
        del keys
        return 0

    def scan(self) -> Iterator[Entry]:
        """Yield nothing."""
        return iter(())
