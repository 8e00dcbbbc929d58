"""A lane: one thread on which steps take turns.

What must stay on one thread (a model that decodes, a library that is bound to the thread that
opened it) runs on a lane. Its work comes as generators, and each gets one step at a time: while one
decodes a long batch, another's short work is done between two of its steps.
"""

import os
import queue
import threading
from collections.abc import Iterator
from contextlib import suppress

from cachedeval.engine.forks import end_child

__all__ = ["Lane"]


class Lane:
    """Runs generators on a thread of its own, a step of each in turn.

    Thread safety: `add` and `close` may be called from any thread.
    """

    def __init__(self, name: str) -> None:
        self._queue: queue.SimpleQueue[Iterator[None] | None] = queue.SimpleQueue()
        # A daemon: a step that does not come back must not keep an interrupted program alive.
        self.thread = threading.Thread(target=self._work, name=f"cachedeval-{name}", daemon=True)
        self.thread.start()

    def add(self, steps: Iterator[None]) -> None:
        """Let these steps take turns with the others; they must not raise."""
        self._queue.put(steps)

    def close(self, timeout: float = 1.0) -> None:
        """Stop what is left, on its own thread, after its current step; wait so many seconds."""
        self._queue.put(None)
        self.thread.join(timeout)

    def _work(self) -> None:
        process = os.getpid()
        while (steps := self._queue.get()) is not None:
            try:
                next(steps)
            except StopIteration:
                end_child(process)
                continue
            end_child(process)
            self._queue.put(steps)
        with suppress(queue.Empty):
            while True:
                left = self._queue.get_nowait()
                if left is not None:
                    left.close()  # type: ignore[attr-defined]  # they are generators
