"""Others that use the backend at the same time: threads, and another process."""

import os
import select
import signal
import threading
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Self

from cachedeval.testing.law import expect

__all__ = ["Child", "Line", "run_threads"]

_PATIENCE = 30.0
"""Seconds until a silent process counts as hanging."""


class Line:
    """One end of a line between two processes, on which each can tell the other a byte."""

    def __init__(self, hears: int, says: int) -> None:
        self._hears, self._says = hears, says

    def say(self, byte: bytes = b".") -> None:
        """Tell the other a byte."""
        os.write(self._says, byte)

    def hear(self) -> bytes:
        """Wait for the other's byte; empty if the other has ended, or is silent for too long."""
        ready, _, _ = select.select([self._hears], [], [], _PATIENCE)
        return os.read(self._hears, 1) if ready else b""

    def close(self) -> None:
        """Hang up."""
        os.close(self._hears)
        os.close(self._says)


class Child:
    """A forked process that does some work; killed at the end of the context if it still runs.

    A fork, because it needs no name under which another process could import the backend's
    factory, which may stand inside a test.

    Args:
        work: done by the other process, with its end of the line; the process ends after it.
    """

    def __init__(self, work: Callable[[Line], object]) -> None:
        here_hears, there_says = os.pipe()
        there_hears, here_says = os.pipe()
        self.line = Line(here_hears, here_says)
        """This process's end."""
        with warnings.catch_warnings():
            # Python warns of threads that the child lacks. It does nothing that waits for one.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                self.line.close()
                work(Line(there_hears, there_says))
                status = 0
            finally:
                os._exit(status)  # without what pytest and others do at an end
        os.close(there_hears)
        os.close(there_says)
        self._running = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.kill()
        self.line.close()

    def kill(self) -> None:
        """End it as `kill -9` does, and wait until it has ended."""
        if self._running:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._running = False

    def finish(self) -> None:
        """Wait until it ends.

        Raises:
            BrokenLawError: its work failed.
        """
        expect(self.line.hear() == b"", "another process does not end")
        _, status = os.waitpid(self._pid, 0)
        self._running = False
        expect(status == 0, "the same fails in another process")


def run_threads(work: Callable[[int], None], threads: int) -> None:
    """Do work in as many threads at once, numbered from 1; raise what the first that fails raises."""
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001  raised where the law is tried
            errors.append(error)

    running = [threading.Thread(target=run, args=(number,)) for number in range(1, threads + 1)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]
