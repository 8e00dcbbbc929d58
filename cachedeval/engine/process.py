"""Ctrl-C while a scheduler changes state: deferred to the next point where nothing can be lost.

A scheduler runs on its caller's thread, often the main one, where a `KeyboardInterrupt` may come
between any two instructions: between taking a lease and noting it, say. So while a scheduler works,
the handler of SIGINT is replaced by one that calls it only where the scheduler waits or runs a step
of the user's.
"""

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

try:  # the module `signal` wraps each call in enums, which takes longer than the call
    import _signal as signal  # type: ignore[import-not-found]
except ImportError:  # another Python than CPython
    import signal

__all__ = [
    "Forkable",
    "Interrupts",
    "end_child",
    "import_logging",
    "importing",
    "leave_to_parent",
    "register",
]


class Interrupts:
    """The context in which a scheduler works; `allowed` opens it for a wait or a step.

    Raises:
        KeyboardInterrupt: on leaving, where one was deferred.

    Thread safety: does nothing on threads other than the main one, where no signal arrives.
    """

    __slots__ = ("_active", "_outer")

    _depth = 0
    _before: Callable[[int, FrameType | None], Any] = signal.default_int_handler
    """The program's own handler."""
    _open = True
    """Whether an interrupt is raised at once. Of the main thread, so one for the process."""
    _pending = False
    raised = False
    """Whether the last interrupt was raised and not yet handled by `acknowledge`."""

    def __init__(self) -> None:
        self._active = threading.current_thread() is threading.main_thread()
        self._outer = True

    def __enter__(self) -> Self:
        if not self._active:
            return self
        cls = Interrupts
        if cls._depth == 0:
            before = signal.getsignal(signal.SIGINT)
            if not callable(before):  # ignored, or not Python's
                self._active = False
                return self
            cls._before = staticmethod(before)
            cls._pending = cls.raised = False
            signal.signal(signal.SIGINT, cls._handle)
        self._outer, cls._open = cls._open, False
        cls._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        if not self._active:
            return
        cls = Interrupts
        cls._depth -= 1
        cls._open = self._outer
        if cls._depth:
            return
        if signal.getsignal(signal.SIGINT) == cls._handle:
            signal.signal(signal.SIGINT, cls._before)
        if cls._pending:
            cls._pending = False
            if kind is None:
                cls._interrupt(None)

    def allow(self) -> None:
        """Raise interrupts at once from here on, a deferred one now; `defer` ends this."""
        cls = Interrupts
        if self._active:
            cls._open = True
            if cls._pending:
                cls._pending = False
                cls._interrupt(None)

    def defer(self) -> None:
        """Defer interrupts again."""
        if self._active:
            Interrupts._open = False

    def acknowledge(self) -> bool:
        """Say whether an interrupt was raised since the last time, and forget it."""
        was, Interrupts.raised = Interrupts.raised, False
        return was and self._active

    @classmethod
    def _handle(cls, _: int, frame: FrameType | None) -> None:
        if cls._open or cls._pending:  # a second one: the user is in earnest
            cls._pending = False
            cls._interrupt(frame)
        else:
            cls._pending = True

    @classmethod
    def _interrupt(cls, frame: FrameType | None) -> None:
        """Do what the program does at an interrupt: by default, raise `KeyboardInterrupt`."""
        try:
            cls._before(signal.SIGINT, frame)
        except BaseException:
            cls.raised = True
            raise


# Forks: what an engine must not carry over into a forked child.


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
