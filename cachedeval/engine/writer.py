"""Writing the store from the event loop, in groups and off the loop.

Whatever arrives while a commit runs goes with the next one.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from cachedeval.engine.record import Record
from cachedeval.engine.store import Store

__all__ = ["Writer"]


class Writer:
    """Commits records in groups, made on one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, "cachedeval-write")
        self._pending: dict[bytes, Record] = {}
        self._commit: asyncio.Future[None] | None = None
        self._last: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def put(self, key: bytes, record: Record) -> "asyncio.Future[None]":
        """Keep a record; when the future is done it outlives the process, if the store can that."""
        loop = asyncio.get_running_loop()
        self._pending[key] = record
        if self._commit is None:
            self._commit = self._last = loop.create_future()
        if self._task is None:
            self._task = loop.create_task(self._drain())
        return self._commit

    async def drain(self) -> None:
        """Wait until all that was put so far is kept."""
        if self._last is not None:
            await asyncio.shield(self._last)

    def close(self) -> None:
        """Wait for the last commit and end the writing thread."""
        self._thread.shutdown(wait=True)

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._commit is not None:
            pending, self._pending = self._pending, {}
            commit, self._commit = self._commit, None
            await loop.run_in_executor(self._thread, self._store.put_many, pending)
            commit.set_result(None)
        self._task = None
