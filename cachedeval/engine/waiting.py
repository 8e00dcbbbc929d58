"""Waiting for a run on an event loop: the step that waits leaves its place to others meanwhile."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from cachedeval.engine.inflight import InFlight
    from cachedeval.engine.runtime import Runtime

__all__ = ["Wake", "waited"]

T = TypeVar("T")


class Wake:
    """A future of the running loop that any thread may set; setting it twice is harmless."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self._loop.create_future()

    def __call__(self) -> None:
        """Set the future."""
        with suppress(RuntimeError):  # the loop was closed in the meantime
            self._loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


async def waited(runtime: "Runtime", parent: "InFlight | None", what: Awaitable[T]) -> T:
    """Return what an awaitable returns.

    Args:
        runtime: what runs the steps.
        parent: the call whose step waits; None outside of steps.
        what: what it waits for.
    """
    runtime.pause(parent)
    granted = Wake()
    try:
        found = await what
    except BaseException as error:
        has_slot = runtime.resume(parent, granted)
        if not has_slot and isinstance(error, Exception):  # the step may handle it, and go on
            await granted.future
        raise
    if not runtime.resume(parent, granted):
        await granted.future
    return found
