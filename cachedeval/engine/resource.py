"""Resources: what cannot be stored, such as a loaded model.

A resource is known at once by its identity and opened at the first miss that needs it. A pool
keeps what is open, shares it, and frees what was used least recently when a budget is passed.
"""

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from cachedeval.engine import forks
from cachedeval.engine.digest import digest_identity
from cachedeval.engine.encoding import Identified, encode
from cachedeval.engine.log import logger

__all__ = ["Handle", "Resource", "ResourcePool"]

T = TypeVar("T")


class Resource(Generic[T]):
    """Something that a step needs and that is known by what it is, not by its object.

    Args:
        label: what to call it in explanations: `model`, `judge`.
        identity: plain data that says what it is, or a function that finds out, called once.
        open: makes the object; called at the first miss that needs it, in the step's own thread.
        close: gives it back; by default the object is just let go.
        size: tells how many bytes an object takes, for the pool's budget.

    Thread safety: may be shared between threads.
    """

    def __init__(
        self,
        label: str,
        identity: Any,
        open: Callable[[], T],  # noqa: A002  the word for it
        *,
        close: Callable[[T], None] | None = None,
        size: Callable[[T], int] | None = None,
    ) -> None:
        self.label = label
        self._identity = identity
        self._identified: Identified | None = None
        self.open = open
        self.close = close
        self.size = size

    @property
    def identity(self) -> Any:
        """Plain data that says what the resource is."""
        if callable(self._identity):
            self._identity = self._identity()
        return self._identity

    @property
    def identified(self) -> Identified:
        """How recipes name it: the label and the sha256 of its identity's encoding."""
        if self._identified is None:
            digest = digest_identity(encode(self.identity))
            self._identified = Identified(self.label, digest)
        return self._identified


class _Open:
    """An object in the pool, or one that is being opened."""

    __slots__ = ("error", "holders", "ready", "resource", "size", "used", "value")

    def __init__(self, resource: Resource[Any]) -> None:
        self.resource = resource
        self.ready = threading.Event()
        """Set when it is open, or could not be opened."""
        self.holders = 0
        self.used = 0
        self.size = 0
        self.value: Any = None
        self.error: BaseException | None = None


class ResourcePool:
    """Keeps resources open and shares them.

    Args:
        budget: bytes that the objects may take together, as their `size` tells; what nobody holds
            is freed, least recently used first, as long as they take more. None is no bound.

    Thread safety: every method may be called from any thread; two that want one resource at the
    same time open it once.
    """

    def __init__(self, budget: int | None = None) -> None:
        self.budget = budget
        self.loads = 0
        """How many objects were opened so far."""
        self._open: dict[Identified, _Open] = {}
        self._lock = threading.Lock()
        self._clock = 0
        self._closed = False

    @contextmanager
    def hold(self, resource: Resource[T]) -> Iterator[T]:
        """Give the object of a resource, opened if need be; it stays open within the context.

        Raises:
            Exception: whatever opening it raises, for all who waited for that; the next who
                wants it tries again.
        """
        entry = self._enter(resource)
        try:
            yield entry.value
        finally:
            with self._lock:
                entry.holders -= 1
            self._free(over_budget=not self._closed)

    def handle(self, resource: Resource[T]) -> "Handle[T]":
        """Return what a step gets in place of a resource."""
        return Handle(self, resource)

    def cleanup(self) -> None:
        """Free every object that nobody holds."""
        self._free(over_budget=False)

    def close(self) -> None:
        """Free every object that nobody holds, and from now on each once nobody holds it."""
        self._closed = True
        self.cleanup()

    def forget_parent(self) -> None:
        """In a forked child: open what is needed anew, as a connection or a device is not shared."""
        self._lock = threading.Lock()
        forks.leave_to_parent(self._open)
        self._open = {}

    def _enter(self, resource: Resource[Any]) -> _Open:
        with self._lock:
            entry = self._open.get(resource.identified)
            first = entry is None
            if entry is None:
                entry = self._open[resource.identified] = _Open(resource)
            entry.holders += 1
            self._clock += 1
            entry.used = self._clock
        if first:
            self._open_now(entry)
            self._free(over_budget=True)
        else:
            entry.ready.wait()
            if entry.error is not None:
                raise entry.error
        return entry

    def _open_now(self, entry: _Open) -> None:
        resource = entry.resource
        try:
            value = resource.open()
            entry.size = resource.size(value) if resource.size else 0
            entry.value = value
        except BaseException as error:
            entry.error = error
            with self._lock:
                self._open.pop(resource.identified, None)  # not there, in a child
            raise
        finally:
            entry.ready.set()
        with self._lock:
            self.loads += 1

    def _free(self, *, over_budget: bool) -> None:
        freed: list[_Open] = []
        with self._lock:
            if over_budget and self.budget is None:
                return
            idle = sorted(
                (e for e in self._open.values() if not e.holders and e.ready.is_set()),
                key=lambda e: e.used,
            )
            total = sum(entry.size for entry in self._open.values())
            for entry in idle:
                if over_budget and self.budget is not None and total <= self.budget:
                    break
                del self._open[entry.resource.identified]
                total -= entry.size
                freed.append(entry)
        for entry in freed:
            try:
                if entry.resource.close is not None:
                    entry.resource.close(entry.value)
            except Exception:  # noqa: BLE001  who set it free did nothing wrong
                logger().warning("%s could not be closed", entry.resource.label, exc_info=True)
            entry.value = None
        if freed:
            # Models hold themselves in cycles; without this their memory comes back at some
            # later time, which a user who asked for it now does not see.
            gc.collect()


class Handle(Generic[T]):
    """A resource as a step meets it: `with handle as model: …` opens it at need."""

    __slots__ = ("_held", "_pool", "resource")

    def __init__(self, pool: ResourcePool, resource: Resource[T]) -> None:
        self.resource = resource
        self._pool = pool
        self._held: list[Any] = []

    def __enter__(self) -> T:
        context = self._pool.hold(self.resource)
        value = context.__enter__()
        self._held.append(context)
        return value

    def __exit__(self, *exc_info: object) -> None:
        self._held.pop().__exit__(None, None, None)
