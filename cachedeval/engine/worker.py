"""The part of an engine that computes: an event loop on its thread, and a runner on it.

Made at the first miss; a run that is all hits has no need of it.
"""

import asyncio
import threading
from concurrent.futures import CancelledError

from cachedeval.engine.errors import CachedevalError
from cachedeval.engine.log import logger
from cachedeval.engine.loop import LoopThread
from cachedeval.engine.resource import ResourcePool
from cachedeval.engine.run import Run
from cachedeval.engine.runner import Runner
from cachedeval.engine.store import Store

__all__ = ["Worker"]

_PATIENCE = 5.0
"""Seconds that steps which are called off are given to end."""


class Worker:
    """Settles runs for whoever asks, from any thread and from any event loop."""

    def __init__(self, store: Store, pool: ResourcePool) -> None:
        self._loop = LoopThread()
        self._runner = Runner(store, pool)

    def settle(self, run: Run) -> None:
        """Give every call of the run an outcome, and wait for it.

        Raises:
            CachedevalError: a fatal one; or the engine is closed meanwhile.
            RuntimeError: called where waiting would stop what it waits for.
        """
        here = threading.current_thread()
        if here is self._loop.thread or self._runner.is_lane(here):
            raise RuntimeError(
                "a step waits here for steps that wait for it: give calls as inputs to calls, or "
                "await engine.arun(…) in an async step"
            )
        future = self._loop.submit(self._runner.run(run))
        try:
            with self._runner.waiting():
                future.result()
        except CancelledError:
            raise _closed() from None
        except BaseException:
            if not future.done():  # Ctrl-C: what is done by now is kept, then the program goes on
                future.cancel()
                run.ended.wait(_PATIENCE)
            raise

    async def asettle(self, run: Run) -> None:
        """Do the same as `settle`, awaited."""
        try:
            await asyncio.wrap_future(self._loop.submit(self._runner.run(run)))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise _closed() from None

    def stop(self) -> None:
        """Call off what runs, keep what is done, and end the threads of steps."""
        try:
            self._loop.submit(self._runner.stop()).result(_PATIENCE)
        except TimeoutError:
            logger().warning("a step does not end; it is left behind")
        self._runner.close()

    def close(self) -> None:
        """End the event loop."""
        self._loop.close()


def _closed() -> CachedevalError:
    return CachedevalError("the engine was closed before all was computed; what was done is kept")
