"""The engine's own event loop, on a thread of its own, started by the first miss.

All flights, limiters and connections of an engine belong to this one loop, whichever thread or
loop asks for a result. So they are never shared between loops, and a notebook that runs a loop of
its own is no different from a script.
"""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["LoopThread"]

T = TypeVar("T")

_PATIENCE = 5.0
"""Seconds that what runs is given to end."""


class LoopThread:
    """An event loop that runs on a thread until it is closed."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._work, name="cachedeval-loop", daemon=True)
        try:
            self.thread.start()
        except BaseException:  # Ctrl-C while it waits for the thread to begin
            self.loop.call_soon_threadsafe(self.loop.stop)
            raise

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run a coroutine on the loop; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def close(self) -> None:
        """Cancel what is left and end the thread; a task that does not end is left behind."""
        with suppress(TimeoutError):
            self.submit(_end()).result(timeout=_PATIENCE)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(timeout=_PATIENCE)

    def _work(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()


async def _end() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
