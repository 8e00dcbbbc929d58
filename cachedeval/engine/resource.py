"""Resources: objects that cannot be stored, such as a loaded model.

A resource has an identity, which is part of keys, and is opened at the first miss that needs it. A
pool shares the open objects, and closes the least recently used ones above a memory budget.
"""

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cachedeval.engine import process
from cachedeval.engine.encoding import Identified, encode
from cachedeval.engine.hashing import digest_identity
from cachedeval.engine.log import logger

__all__ = ["Handle", "Resource", "ResourcePool"]

T = TypeVar("T")


class Handle(Generic[T]):
    """The form of a resource inside a step: `with handle as model: …` opens it on demand.

    Attributes:
        resource: the resource.

    Example:
        >>> pool = ResourcePool()
        >>> handle = pool.handle(Resource("numbers", "1 to 3", lambda: [1, 2, 3]))
        >>> with handle as numbers:
        ...     sum(numbers), pool.loads
        (6, 1)
    """

    __slots__ = ("_held", "_pool", "resource")

    def __init__(self, pool: "ResourcePool", resource: "Resource[T]") -> None:
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


if TYPE_CHECKING:
    _Stands = Handle  # to type checkers, a resource may stand for the handle that the step gets
else:
    _Stands = Generic


class Resource(_Stands[T]):
    """An input of a step that is identified by plain data and opened on demand.

    Args:
        label: its name in explanations, such as `model`.
        identity: plain data that identifies it by content, or a function that returns such data
            and is called once.
        open: creates the object; called in the thread of the first step that needs it.
        close: releases the object; by default its reference is dropped.
        size: returns the bytes that the object takes, for the pool's budget.

    Thread safety: several threads may share a resource.

    Example:
        >>> from cachedeval import Engine, Resource, node
        >>> model = Resource("model", {"weights": "xxh3:0f1e"}, lambda: {"hello": "world"})
        >>> @node(version="1", name="answer")
        ... def answer(model, question: str) -> str:
        ...     with model as loaded:
        ...         return loaded[question]
        >>> with Engine() as engine:
        ...     engine.run(answer(model, "hello"))
        'world'
    """

    def __init__(
        self,
        label: str,
        identity: Any,
        open: Callable[[], T],  # noqa: A002  the usual verb
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
        """The plain data that identifies the resource."""
        if callable(self._identity):
            self._identity = self._identity()
        return self._identity

    @property
    def identified(self) -> Identified:
        """Its form in recipes: the label and the sha256 of the encoded identity."""
        if self._identified is None:
            digest = digest_identity(encode(self.identity))
            self._identified = Identified(self.label, digest)
        return self._identified


class _Open:
    """A pool entry: an object that is open or being opened."""

    __slots__ = ("error", "holders", "ready", "resource", "size", "used", "value")

    def __init__(self, resource: Resource[Any]) -> None:
        self.resource = resource
        self.ready = threading.Event()
        """Set when the object is open, or its opening has failed."""
        self.holders = 0
        self.used = 0
        self.size = 0
        self.value: Any = None
        self.error: BaseException | None = None


class ResourcePool:
    """Opens resources on demand and shares the open objects.

    Args:
        budget: bytes that the objects may take together, by their `size`. Above it, objects that
            no step holds are closed, least recently used first. None means no limit.

    Thread safety: every method may be called from any thread. Threads that need one resource at the
    same time open it once.
    """

    def __init__(self, budget: int | None = None) -> None:
        self.budget = budget
        self.loads = 0
        """How many objects have been opened."""
        self._open: dict[Identified, _Open] = {}
        self._lock = threading.Lock()
        self._clock = 0
        self._closed = False

    @contextmanager
    def hold(self, resource: Resource[T]) -> Iterator[T]:
        """Return a context whose value is the resource's object, which stays open inside it.

        Raises:
            Exception: the error of `Resource.open`, for all threads that wait for this attempt. The
                next thread tries again.
        """
        entry = self._enter(resource)
        try:
            yield entry.value
        finally:
            with self._lock:
                entry.holders -= 1
            self._free(over_budget=not self._closed)

    def handle(self, resource: Resource[T]) -> Handle[T]:
        """Return the handle that a step gets instead of the resource."""
        return Handle(self, resource)

    def cleanup(self) -> None:
        """Close every object that no step holds."""
        self._free(over_budget=False)

    def close(self) -> None:
        """Close every object that no step holds, and from now on each as soon as it is released."""
        self._closed = True
        self.cleanup()

    def forget_parent(self) -> None:
        """Drop the parent's objects in a forked child: it cannot share a connection or a device."""
        self._lock = threading.Lock()
        process.leave_to_parent(self._open)
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
                self._open.pop(resource.identified, None)  # a forked child has no such entry
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
            except Exception:  # noqa: BLE001  the caller of this method did not cause it
                logger().warning("%s could not be closed", entry.resource.label, exc_info=True)
            entry.value = None
        if freed:
            # Models contain reference cycles: without a collection their memory would be freed
            # only at some later time.
            gc.collect()
