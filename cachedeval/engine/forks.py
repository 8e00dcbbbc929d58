"""Forks: what an engine must not carry over into a forked child.

Of all threads, a child has only the one that forked. So an engine in a child starts with fresh
locks, nothing in flight and no open resources, and starts its own threads when it needs some.
"""

import os
import threading
import weakref
from contextlib import AbstractContextManager
from typing import Protocol

__all__ = ["Forkable", "end_child", "import_logging", "importing", "leave_to_parent", "register"]

_PATIENCE = 10.0
"""Seconds for which a fork waits for another thread's import."""


class Forkable(Protocol):
    """An object that can be used on both sides of a fork."""

    def forget_parent(self) -> None:
        """In the child, before anything else: replace locks and drop what the parent's threads do.

        Must close nothing that the parent still uses, such as a socket or an event loop: what it
        drops it passes to `leave_to_parent`.
        """


_imports = threading.RLock()
"""Held while a module is imported that was not needed before."""

_objects: "weakref.WeakSet[Forkable]" = weakref.WeakSet()
_left: list[object] = []
_held: list[bool] = []
"""For each hook before a fork that ran, whether it has taken the imports' lock."""
_is_last = False
"""Whether our hooks are registered after those of `logging`."""


def importing() -> AbstractContextManager[object]:
    """Return the context in which to import something inside a function, where several threads may run; a fork waits for it.

    An import that another thread has begun would never end in the child, and the child's own import
    of the same module would wait for that end.
    """
    return _imports


def import_logging() -> None:
    """Import `logging`, and let a fork wait for imports before it takes logging's lock.

    What is imported next may need that lock (asyncio does), and hooks before a fork run in the
    reverse order of their registration.
    """
    global _is_last  # noqa: PLW0603
    with _imports:
        import logging  # noqa: F401, PLC0415  slow to import, and most runs log nothing

        if not _is_last:
            _is_last = True
            os.register_at_fork(before=_before, after_in_parent=_after_in_parent)


def end_child(process: int) -> None:
    """End a child that was forked inside a step and has returned from it.

    Its result has nobody to go to: what waits for it, thread or event loop, is the parent's.

    Args:
        process: the id of the process in which the step was started.
    """
    if os.getpid() != process:
        os._exit(0)


def register(item: Forkable) -> None:
    """Have `item.forget_parent` called in each forked child."""
    _objects.add(item)


def leave_to_parent(item: object) -> None:
    """Keep an object of the parent's alive in a child, because destroying it could close it."""
    _left.append(item)


def _before() -> None:
    _held.append(_imports.acquire(timeout=_PATIENCE))


def _after_in_parent() -> None:
    if _held and _held.pop():
        _imports.release()


def _after_in_child() -> None:
    global _imports  # noqa: PLW0603  the old one may be held by a thread that is not here
    _held.clear()
    _imports = threading.RLock()
    for item in list(_objects):
        item.forget_parent()


os.register_at_fork(
    before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
