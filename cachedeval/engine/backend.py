"""The backend protocol: a backend stores bytes under keys, no more.

Keys are 16 bytes, values are opaque. The store above adds a checksum to each value and verifies it,
so a backend need not: it may lose a value, and it may return a corrupt one. It must not raise for a
key that it does not hold. Any other failure (full disk, dead server) it raises as it comes: the
store counts it, warns once and goes on uncached.

Thread safety: every method may be called from any thread, and from several at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

__all__ = ["Backend", "Entry", "completed"]


class Entry(NamedTuple):
    """What a backend knows of one stored value without reading it."""

    key: bytes
    size: int
    """Bytes that the value takes in storage, bookkeeping included as far as is known."""
    created: float
    """Seconds since the epoch."""
    used: float
    """When it was last touched, or created if it never was; seconds since the epoch."""
    hits: int
    """How often it was touched."""


_REQUIRED = ("get_many", "put_many", "delete_many", "scan")


class Backend(ABC):
    """A store of bytes under keys. `cachedeval.testing` has the kit that every backend passes.

    A subclass defines `get_many`, `put_many`, `delete_many` and `scan`. The other methods have
    defaults that suit a store without them: uses are not recorded, every lease is granted (then two
    processes may compute the same, which costs time and harms nothing), and there is nothing to
    close. A class that defines the four methods counts as a `Backend` without inheriting from it.

    Example:
        >>> class DictBackend(Backend):
        ...     def __init__(self):
        ...         self.values = {}
        ...
        ...     def get_many(self, keys):
        ...         return {key: self.values[key] for key in keys if key in self.values}
        ...
        ...     def put_many(self, items):
        ...         self.values.update(items)
        ...
        ...     def delete_many(self, keys):
        ...         return sum(self.values.pop(key, None) is not None for key in keys)
        ...
        ...     def scan(self):
        ...         return iter([Entry(k, len(v), 0.0, 0.0, 0) for k, v in self.values.items()])
    """

    @classmethod
    def __subclasshook__(cls, other: type) -> Any:
        """Accept any class that has the four required methods."""
        if cls is not Backend:
            return NotImplemented
        return all(callable(getattr(other, name, None)) for name in _REQUIRED)

    @abstractmethod
    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that are stored; records no use."""

    @abstractmethod
    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        """Store the items, replacing existing ones; when it returns, they outlive the process."""

    @abstractmethod
    def delete_many(self, keys: Iterable[bytes]) -> int:
        """Delete the keys and free their space; return how many were stored."""

    @abstractmethod
    def scan(self) -> Iterator[Entry]:
        """Yield an entry for each key stored at the start of the scan; reads no value."""

    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:  # noqa: B027  a default
        """Record that each key was used so many times, last at `when`; ignore unknown keys.

        `when` and `Entry.used` are seconds since the epoch.
        """

    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:
        """Try, without waiting, to become the only one that computes these keys.

        Of all threads and processes that share the storage, one holds the lease of a key at a time:
        until `release_many`, or until its process ends, however that happens. The default asks
        `lease` one by one where a subclass defines it, and grants everything where none does.

        Returns:
            The keys whose lease was granted.
        """
        if getattr(self.lease, "__func__", None) is Backend.lease:
            return set(keys)
        held = self.__dict__.setdefault("_leases", {})
        granted = set()
        for key in keys:
            context = self.lease(key)
            if context.__enter__():
                held[key] = context
                granted.add(key)
            else:
                context.__exit__(None, None, None)
        return granted

    def release_many(self, keys: Iterable[bytes]) -> None:
        """Release leases that `lease_many` granted; ignore keys that are not leased."""
        held = self.__dict__.get("_leases", {})
        for key in keys:
            if (context := held.pop(key, None)) is not None:
                context.__exit__(None, None, None)

    def lease(self, key: bytes) -> AbstractContextManager[bool]:
        """Lease one key within a context; the context's value says whether it was granted."""
        return _leased(self, key)

    def close(self) -> None:  # noqa: B027  a default
        """Release what is open; closing twice is harmless."""


@contextmanager
def _leased(backend: Backend, key: bytes) -> Iterator[bool]:
    granted = key in backend.lease_many((key,))
    try:
        yield granted
    finally:
        if granted:
            backend.release_many((key,))


class _Adapter(Backend):
    """A backend that does not inherit from `Backend`, with defaults for what it lacks."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        for name in ("touch_many", "lease", "lease_many", "release_many", "close"):
            if callable(method := getattr(inner, name, None)):
                setattr(self, name, method)

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return self._inner.get_many(keys)  # type: ignore[no-any-return]

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        self._inner.put_many(items)

    def delete_many(self, keys: Iterable[bytes]) -> int:
        return self._inner.delete_many(keys)  # type: ignore[no-any-return]

    def scan(self) -> Iterator[Entry]:
        return self._inner.scan()  # type: ignore[no-any-return]


def completed(backend: Any) -> Backend:
    """Return the backend with every method of the protocol, the missing ones with their defaults.

    Args:
        backend: an instance of `Backend`, or of a class that has its four required methods.
    """
    return backend if Backend in type(backend).__mro__ else _Adapter(backend)
