"""What a backend is: it keeps bytes under keys, no more.

Keys are 16 bytes, values are opaque. The store above seals and verifies each value, so a backend
need not: it may lose a value, and it may return a damaged one. It must not raise for a key that
it does not hold. Anything else that goes wrong (full disk, dead server) it raises as it comes:
the store counts it, warns once and goes on uncached.

Every method may be called from any thread, and from several at once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, runtime_checkable

__all__ = ["Backend", "Entry"]


class Entry(NamedTuple):
    """What is known of one stored value without reading it."""

    key: bytes
    size: int
    """Bytes that the value takes where it is kept, bookkeeping included as far as is known."""
    created: float
    """Seconds since the epoch."""
    used: float
    """When it was last touched, or created if it never was; seconds since the epoch."""
    hits: int
    """How often it was touched."""


@runtime_checkable
class Backend(Protocol):
    """Bytes under keys. `cachedeval.testing` holds the kit that every backend passes."""

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that are held; touches nothing."""
        ...

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        """Keep the items; when it returns, they outlive the process. A key held is overwritten."""
        ...

    def delete_many(self, keys: Iterable[bytes]) -> int:
        """Forget the keys and give their room back; return how many were held."""
        ...

    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        """Note that each key was used so many times, last at `when`; unknown keys are ignored."""
        ...

    def scan(self) -> Iterator[Entry]:
        """Yield an entry for each key held at the start of the scan; reads no value."""
        ...

    def lease(self, key: bytes) -> AbstractContextManager[bool]:
        """Try, without waiting, to be the only one that computes `key`.

        The context's value says whether it worked: True for one holder at a time, among all
        threads and all processes that share the backend. It ends with the context or with the
        process, however that dies.
        """
        ...

    def close(self) -> None:
        """Give back what is open; closing twice is harmless."""
        ...
