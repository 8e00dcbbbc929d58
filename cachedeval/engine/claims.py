"""Reading and writing the store from the event loop, in batches and off the loop.

`Claims` answers the question "is it there, and if not, may I compute it?" for many calls with one
look-up, and waits for those that another process computes with one poll for all of them. `Writer`
commits what is done in groups: whatever arrives while a commit runs goes with the next one.
"""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from cachedeval.engine.record import Record
from cachedeval.engine.store import Store

__all__ = ["Claim", "Claims", "Writer"]

_FIRST_POLL = 0.02
_LAST_POLL = 0.2
"""Seconds between two looks at what other processes compute; they grow from first to last."""


class Claim(NamedTuple):
    """The answer: a record, or the right to compute it."""

    record: Record | None
    release: Callable[[], None] | None
    """Ends the right to compute."""


class _Wanted(NamedTuple):
    recipe: bytes
    future: "asyncio.Future[Claim]"


class Claims:
    """Claims of keys, made on one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, "cachedeval-read")
        self._fresh: dict[bytes, _Wanted] = {}
        self._busy: dict[bytes, _Wanted] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._polling = False

    async def claim(self, key: bytes, recipe: bytes) -> Claim:
        """Return the record of a key, or the right to compute it, once nobody else has it."""
        loop = asyncio.get_running_loop()
        if not self._fresh:
            # Two turns of the loop let all calls that became ready together go as one batch.
            loop.call_soon(loop.call_soon, self._flush)
        wanted = self._fresh[key] = _Wanted(recipe, loop.create_future())
        return await wanted.future

    def close(self) -> None:
        """End the reading thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _flush(self) -> None:
        fresh, self._fresh = self._fresh, {}
        self._spawn(self._settle(fresh))

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _settle(self, wanted: dict[bytes, _Wanted]) -> None:
        loop = asyncio.get_running_loop()
        recipes = {key: want.recipe for key, want in wanted.items()}
        claims = await loop.run_in_executor(self._thread, self._claim, recipes)
        for key, want in wanted.items():
            claim = claims.get(key)
            if want.future.done():  # cancelled in the meantime
                if claim is not None and claim.release is not None:
                    claim.release()
            elif claim is None:
                self._busy[key] = want
            else:
                want.future.set_result(claim)
        if self._busy and not self._polling:
            self._polling = True
            self._spawn(self._poll())

    async def _poll(self) -> None:
        pause = _FIRST_POLL
        while self._busy:
            await asyncio.sleep(pause)
            busy, self._busy = self._busy, {}
            await self._settle({k: want for k, want in busy.items() if not want.future.done()})
            pause = _FIRST_POLL if len(self._busy) < len(busy) else min(pause * 1.5, _LAST_POLL)
        self._polling = False

    def _claim(self, recipes: dict[bytes, bytes]) -> dict[bytes, Claim]:
        """Claim keys; one that is missing from the answer is another's for now."""
        releases = {key: self._store.acquire(key) for key in recipes}
        # Looked up after the claim: another may have finished just before it.
        records = self._store.get_many(recipes)
        claims: dict[bytes, Claim] = {}
        for key, release in releases.items():
            record = records.get(key)
            if record is not None:
                if release is not None:
                    release()
                claims[key] = Claim(record, None)
            elif release is not None:
                claims[key] = Claim(None, release)
        return claims


class Writer:
    """Commits records in groups, made on one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, "cachedeval-write")
        self._pending: dict[bytes, Record] = {}
        self._commit: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def put(self, key: bytes, record: Record) -> "asyncio.Future[None]":
        """Keep a record; when the future is done it outlives the process, if the store can that."""
        loop = asyncio.get_running_loop()
        self._pending[key] = record
        if self._commit is None:
            self._commit = loop.create_future()
        commit = self._commit
        if self._task is None:
            self._task = loop.create_task(self._drain())
        return commit

    async def drain(self) -> None:
        """Wait until all that was put is kept."""
        if self._task is not None:
            await asyncio.shield(self._task)

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
