"""Signals and forks: what can happen to the process while an engine works.

Ctrl-C. A scheduler runs on its caller's thread, often the main one. There, Python may raise
`KeyboardInterrupt` between any two instructions, for example between the grant of a lease and the
assignment that records it. So while a scheduler works, `Interrupts` replaces the handler of SIGINT
by one that defers the interrupt until the scheduler waits or runs a user's step.

Forks. A forked child has only the thread that forked, but all locks in the state they were in. So
in a child, each registered object drops the parent's locks and threads (`Forkable`), and a fork
waits for imports that other threads do inside functions (`importing`).
"""

# Lazy import: most runs log nothing, and `logging` is slow to import.

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
    "interrupted",
    "leave_to_parent",
    "register",
]


_PATIENCE = 10.0
"""Seconds for which a fork waits for another thread's import."""


# Ctrl-C.


class Interrupts:
    """The context in which a scheduler works and interrupts are deferred.

    Raises:
        KeyboardInterrupt: on leaving the context, if one was deferred.

    Thread safety: it does nothing outside the main thread, as signals arrive only there.
    """

    __slots__ = ("_active", "_outer")

    _depth = 0
    _before: Callable[[int, FrameType | None], Any] = signal.default_int_handler
    """The program's own handler."""
    _open = True
    """Whether an interrupt is raised at once; one flag for the process, as for its main thread."""
    _pending = False
    raised = False
    """Whether an interrupt was raised and `acknowledge` has not been called since."""

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
        """Raise interrupts at once until `defer` is called; raise a deferred one now."""
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
        """Return whether an interrupt was raised since the last call, and reset that."""
        was, Interrupts.raised = Interrupts.raised, False
        return was and self._active

    @classmethod
    def pending(cls) -> bool:
        """Return whether an interrupt is deferred on this thread."""
        return cls._pending and threading.current_thread() is threading.main_thread()

    @classmethod
    def _handle(cls, _: int, frame: FrameType | None) -> None:
        if cls._open or cls._pending:  # a second Ctrl-C is not deferred
            cls._pending = False
            cls._interrupt(frame)
        else:
            cls._pending = True

    @classmethod
    def _interrupt(cls, frame: FrameType | None) -> None:
        """Call the program's own handler, which raises `KeyboardInterrupt` by default."""
        try:
            cls._before(signal.SIGINT, frame)
        except BaseException:
            cls.raised = True
            raise


def interrupted() -> bool:
    """Return whether Ctrl-C was pressed, and the engine defers it until an operation has ended.

    A backend that waits for somebody else asks this, and stops waiting with an error.
    """
    return Interrupts.pending()


# Forks.


class Forkable(Protocol):
    """An object that both the parent and a forked child can use."""

    def forget_parent(self) -> None:
        """Replace locks and drop the state of the parent's threads; called first in the child.

        It must not close an object that the parent still uses, such as a socket or an event loop.
        Pass such an object to `leave_to_parent`.
        """


_imports = threading.RLock()
"""Held during imports inside functions."""

_objects: "weakref.WeakSet[Forkable]" = weakref.WeakSet()
_left: list[object] = []
_held: list[bool] = []
"""For each hook that ran before a fork, whether it acquired the lock of imports."""
_is_last = False
"""Whether the hooks are registered after those of `logging`."""


def importing() -> AbstractContextManager[object]:
    """Return the context for an import inside a function where several threads may run.

    A fork waits until the context ends. Otherwise, an import that another thread has begun would
    never end in the child, and the child would wait for ever when it imports the same module.
    """
    return _imports


def import_logging() -> None:
    """Import `logging`, and make a fork wait for imports before it acquires logging's lock.

    A later import may need that lock (asyncio does), and hooks before a fork run in the reverse
    order of their registration.
    """
    global _is_last  # noqa: PLW0603
    with _imports:
        import logging  # noqa: F401

        if not _is_last:
            _is_last = True
            os.register_at_fork(before=_before, after_in_parent=_after_in_parent)


def end_child(process: int) -> None:
    """Exit the process if it is a child that a step forked and that returned from the step.

    The thread or event loop that waits for the result exists only in the parent.

    Args:
        process: the id of the process in which the step was started.
    """
    if os.getpid() != process:
        os._exit(0)


def register(item: Forkable) -> None:
    """Call `item.forget_parent` in each forked child; holds no reference to the object."""
    _objects.add(item)


def leave_to_parent(item: object) -> None:
    """Keep an object of the parent alive in a child, because its destruction could close it."""
    _left.append(item)


def _before() -> None:
    _held.append(_imports.acquire(timeout=_PATIENCE))


def _after_in_parent() -> None:
    if _held and _held.pop():
        _imports.release()


def _after_in_child() -> None:
    global _imports  # noqa: PLW0603  a thread of the parent may hold the old lock
    _held.clear()
    _imports = threading.RLock()
    for item in list(_objects):
        item.forget_parent()


os.register_at_fork(
    before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
