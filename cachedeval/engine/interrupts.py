"""Ctrl-C while a scheduler changes state: deferred to the next point where nothing can be lost.

A scheduler runs on its caller's thread, often the main one, where a `KeyboardInterrupt` may come
between any two instructions: between taking a lease and noting it, say. So while a scheduler works,
the handler of SIGINT is replaced by one that calls it only where the scheduler waits or runs a step
of the user's.
"""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["Interrupts"]


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
