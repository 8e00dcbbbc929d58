"""Threads for steps that block: as many as are needed, up to a bound."""

import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cachedeval.engine.forks import end_child

__all__ = ["Threads"]


class Threads:
    """Runs functions on daemon threads, so that one that hangs keeps no program alive.

    (`concurrent.futures` waits for its threads when the program ends, however it ends.)

    Thread safety: every method may be called from any thread.
    """

    def __init__(self) -> None:
        self._limit = min(32, (os.cpu_count() or 1) + 4)
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._free = 0

    def run(self, work: Callable[[], None]) -> None:
        """Run a function, which must not raise, as soon as a thread is free."""
        with self._lock:
            self._queue.put(work)
            self._free -= 1
            if self._free < 0 and len(self._threads) < self._limit:
                self._start()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While a thread of these waits for others of these, there may be one more."""
        mine = threading.current_thread() in self._threads
        with self._lock:
            self._limit += mine
            if mine and self._free < 0:
                self._start()
        try:
            yield
        finally:
            self._limit -= mine

    def close(self) -> None:
        """End the threads that are free, and the others once they are."""
        with self._lock:
            for _ in self._threads:
                self._queue.put(None)

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="cachedeval-step", daemon=True)
        self._threads.add(thread)
        self._free += 1
        thread.start()

    def _work(self) -> None:
        process = os.getpid()
        while (work := self._queue.get()) is not None:
            work()
            end_child(process)
            with self._lock:
                self._free += 1
