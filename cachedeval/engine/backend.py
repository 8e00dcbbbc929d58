"""The backend protocol, and how a cache URL is opened. A backend stores bytes under keys, no more.

Keys are 16 bytes, values are opaque. The store above adds a checksum to each value and verifies it,
so a backend need not: it may lose a value, and it may return a corrupt one. It must not raise for a
key that it does not hold. It raises any other failure (full disk, dead server) as it is: the store
counts the failure, warns once and continues uncached.

A cache URL is `SCHEME:REST`. Installed packages provide schemes as entry points of the group
`cachedeval.backends`.

Thread safety: every method may be called from any thread, and from several at once.
"""

import heapq
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

from cachedeval.engine.errors import BackendError, InputError
from cachedeval.engine.installed import entry_points, load
from cachedeval.engine.log import logger
from cachedeval.engine.process import importing

__all__ = [
    "GROUP",
    "Backend",
    "Count",
    "Entry",
    "Label",
    "NothingBackend",
    "completed",
    "open_backend",
    "open_cache",
    "shown_url",
]


class Entry(NamedTuple):
    """The metadata of one stored value.

    Attributes:
        key: 16 bytes.
        size: bytes that the value takes in storage, including overhead where it is known.
        created: seconds since the epoch; 0.0 if it is not recorded.
        used: when the value was last touched; `created` if it never was, or if the backend does not
            record uses. In seconds since the epoch.
        hits: how often the value was touched.
        label: the text of the label with which the value was stored; None if it is not recorded.
        seconds: how long it took to compute the value, by its label.

    Example:
        >>> Entry(key=bytes(16), size=120, created=1.7e9, used=1.7e9, hits=0).size
        120
    """

    key: bytes
    size: int
    created: float
    used: float
    hits: int
    label: str | None = None
    seconds: float = 0.0


class Label(NamedTuple):
    """What a value is, for a backend that counts and lists values without reading them.

    Attributes:
        text: the same for all values that are listed together; a backend need not understand it.
        seconds: how long it took to compute the value.

    Example:
        >>> Label("summaries", 1.5).seconds
        1.5
    """

    text: str
    seconds: float


class Count(NamedTuple):
    """How many values have one label.

    Attributes:
        label: the text of the label; None for values without one.
        values: how many there are.
        size: bytes that they take in storage.
        hits: how often they were touched.
        seconds: the sum of hits times seconds: the time that the hits have saved.

    Example:
        >>> Count("summaries", values=2, size=240, hits=3, seconds=4.5).hits
        3
    """

    label: str | None
    values: int
    size: int
    hits: int
    seconds: float


GROUP = "cachedeval.backends"
"""The entry-point group. An entry's name is the scheme; its object is called with the URL's rest."""

_REQUIRED = ("get_many", "put_many", "delete_many", "scan")


_OPTIONAL = (
    *("put_labelled", "count", "select", "touch_many"),
    *("lease", "lease_many", "release_many", "close"),
)


class Backend(ABC):
    """A store of bytes under keys. `cachedeval.testing` contains the kit that checks a backend.

    A subclass defines `get_many`, `put_many`, `delete_many` and `scan`. The other methods have
    defaults: uses and labels are not recorded, every lease is granted, and `close` does nothing.
    In an entry of `scan`, `used` is then the same as `created`, and `hits` is 0. Without
    leases, two processes may compute the same call, which costs time and does no harm. A class that
    defines the four methods counts as a `Backend` without inheriting from it.

    The kit needs to know which defaults a backend has: `leases=False` skips the checks of exclusive
    leases, and `uses=False` the checks of recorded uses.

    Example:
        >>> class DictBackend(Backend):
        ...     def __init__(self):
        ...         self.values = {}
        ...
        ...     def get_many(self, keys):
        ...         found = {key: self.values.get(key) for key in keys}
        ...         return {key: value for key, value in found.items() if value is not None}
        ...
        ...     def put_many(self, items):
        ...         self.values.update(items)
        ...
        ...     def delete_many(self, keys):
        ...         return sum(self.values.pop(key, None) is not None for key in keys)
        ...
        ...     def scan(self):
        ...         return iter([Entry(k, len(v), 0.0, 0.0, 0) for k, v in list(self.values.items())])
        >>> backend = DictBackend()
        >>> backend.put_many({bytes(16): b"value"})
        >>> backend.get_many([bytes(16)])[bytes(16)]
        b'value'
    """

    fails_fast: bool = False
    """Whether, after a time-out, calls fail at once until the storage answers again. Otherwise the
    engine makes no calls for a while."""

    accepts_pieces = False
    """Whether `put_many` and `put_labelled` also accept a tuple of bytes and views as a value: a large one in pieces,
    to be stored one after the other. `get_many` returns it whole."""

    @classmethod
    def __subclasshook__(cls, other: type) -> Any:
        """Accept any class that has the four required methods."""
        if cls is not Backend:
            return NotImplemented
        return all(callable(getattr(other, name, None)) for name in _REQUIRED)

    @abstractmethod
    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that are stored; does not count as a use."""

    @abstractmethod
    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        """Store the items, replacing existing ones. They are durable when this returns."""

    @abstractmethod
    def delete_many(self, keys: Iterable[bytes]) -> int:
        """Delete the keys and free their space; return how many were stored."""

    @abstractmethod
    def scan(self) -> Iterator[Entry]:
        """Yield an entry for each key stored at the start of the scan; reads no value."""

    def put_labelled(self, items: Mapping[bytes, bytes], labels: Mapping[bytes, Label]) -> None:
        """Store the items as `put_many` does, with their labels if the backend records them.

        `scan` then yields each label with its entry. A key without a label has none afterwards.
        """
        del labels
        self.put_many(items)

    def count(self, *, sizes: bool = True) -> Iterator[Count]:
        """Yield the counts of each label. The default reads all entries.

        Args:
            sizes: whether more is needed than `values`; the rest may be 0 otherwise.
        """
        del sizes
        counts: dict[str | None, Count] = {}
        for entry in self.scan():
            sums = counts.get(entry.label) or Count(entry.label, 0, 0, 0, 0.0)
            counts[entry.label] = Count(
                entry.label,
                sums.values + 1,
                sums.size + entry.size,
                sums.hits + entry.hits,
                sums.seconds + entry.hits * entry.seconds,
            )
        yield from counts.values()

    def select(
        self, label: str | None, *, newest: int | None = None, used: bool = False
    ) -> Iterator[Entry]:
        """Yield the entries with one label, in any order. The default reads all entries.

        Args:
            label: the text of the label; None for values without one.
            newest: yield this many, those that were stored last; all if None.
            used: yield only those that were touched.
        """
        found = (e for e in self.scan() if e.label == label and (e.hits > 0 or not used))
        if newest is None:
            return found
        return iter(heapq.nlargest(newest, found, key=lambda entry: entry.created))

    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:  # noqa: B027  a default
        """Add uses to the metadata of keys; ignore unknown keys.

        Args:
            hits: how often each key was used.
            when: the time of the last use, in seconds since the epoch.
        """

    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:
        """Try to acquire the exclusive right to compute these keys, without waiting.

        Of all threads and processes that share the storage, only one holds the lease of a key at a
        time: until `release_many`, or until its process ends, however it ends. The default calls
        `lease` key by key if a subclass defines it, and grants every lease otherwise.

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
        """Return a context that leases one key; its value is whether the lease was granted."""
        return _leased(self, key)

    def close(self) -> None:  # noqa: B027  a default
        """Close files and connections; closing twice is harmless."""


@contextmanager
def _leased(backend: Backend, key: bytes) -> Iterator[bool]:
    granted = key in backend.lease_many((key,))
    try:
        yield granted
    finally:
        if granted:
            backend.release_many((key,))


class _Adapter(Backend):
    """Adds the default methods to a backend that does not inherit from `Backend`."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.accepts_pieces = bool(getattr(inner, "accepts_pieces", False))
        for name in _OPTIONAL:
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
    """Return the backend with every method of the protocol; missing ones get their defaults.

    Args:
        backend: an instance of `Backend`, or of a class that has its four required methods.
    """
    return backend if Backend in type(backend).__mro__ else _Adapter(backend)


class NothingBackend(Backend):
    """Stores nothing and grants every lease: the fallback where a cache cannot be opened."""

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


def open_backend(url: str) -> Backend:
    """Open the backend of a cache URL: `memory:`, `disk:PATH`, or another installed scheme.

    Raises:
        InputError: the URL has no scheme, or no installed backend provides it.
        BackendError: the backend cannot be opened.

    Example:
        >>> backend = open_backend("memory:")
        >>> backend.put_many({bytes(16): b"value"})
        >>> [entry.hits for entry in backend.scan()]
        [0]
        >>> backend.close()
    """
    scheme, colon, rest = url.partition(":")
    found = entry_points(GROUP)
    if not colon or scheme not in found:
        known = ", ".join(f"{name}:" for name in sorted(found)) or "none is installed"
        if colon and scheme.isidentifier() and scheme.lower() not in found:
            raise InputError(
                f"cache {shown_url(url)!r}: no backend for `{scheme}:` is installed (installed: "
                f"{known})"
            )
        raise InputError(
            f"cache {shown_url(url)!r}: a cache is given as SCHEME:REST, as in disk:./eval_cache "
            f"(schemes here: {known})"
        )
    try:
        with importing():
            opens: Any = load(found[scheme])
        opened = opens(rest)
    except (InputError, BackendError):
        raise
    except Exception as error:
        message = f"cache {shown_url(url)!r} cannot be opened: {_redacted(str(error), url)}"
        raise BackendError(message) from error
    if not isinstance(opened, Backend):
        raise BackendError(f"cache {shown_url(url)!r}: {found[scheme]} does not return a Backend")
    return opened


def shown_url(url: str) -> str:
    """Return a cache URL as it may be printed: without user, password and query.

    The path of `disk:PATH` is returned whole.

    Example:
        >>> shown_url("redis://me:secret@host/0?password=secret")
        'redis://…@host/0?…'
        >>> shown_url("disk:./me@home")
        'disk:./me@home'
    """
    scheme, colon, rest = url.partition(":")
    if not colon or (scheme == "disk" and not rest.startswith("//")):
        return url
    # A password may contain any of these characters, unescaped.
    user, at, place = rest.rpartition("@")
    slashes = "//" if at and user.startswith("//") else ""
    place, question, _ = place.partition("?")
    return f"{scheme}:{slashes}{'…@' if at else ''}{place}{'?…' if question else ''}"


def _redacted(text: str, url: str) -> str:
    """Return a message without what `shown_url` hides of a URL."""
    _, _, rest = url.partition(":")
    shown = shown_url(url)
    hidden = [(url, shown), (rest, shown.partition(":")[2])]
    user = rest.rpartition("@")[0].removeprefix("//")
    query = rest.rpartition("@")[2].partition("?")[2]
    secrets = [
        user,
        user.partition(":")[2],
        query,
        *(q.partition("=")[2] for q in query.split("&")),
    ]
    if shown == url:
        return text
    for secret, instead in (*hidden, *((secret, "…") for secret in secrets)):
        if secret:
            text = text.replace(secret, instead)
    return text


def open_cache(cache: str | Backend) -> Backend:
    """Return the backend of an engine, or one that stores nothing where it cannot be opened.

    Args:
        cache: a URL, or an open backend.

    Raises:
        InputError: it is neither, or the URL names no installed backend.
    """
    if not isinstance(cache, str):
        if not isinstance(cache, Backend) or isinstance(cache, type):
            raise InputError(
                f"a {type(cache).__name__} is no cache: give a URL, as in 'disk:./eval_cache', or "
                "an open backend"
            )
        return cache
    try:
        return open_backend(cache)
    except BackendError as error:
        logger().warning("%s; going on without a cache", error)
        return NothingBackend()
