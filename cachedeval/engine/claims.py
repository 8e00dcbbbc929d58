"""Claims: may this be computed here, or is it there, or does another compute it?

Asked for many calls at once, off the event loop, with one look-up. Those that another computes are
waited for with one poll for all of them.
"""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import NamedTuple

from cachedeval.engine.log import logger
from cachedeval.engine.record import Record
from cachedeval.engine.store import Store

__all__ = ["Claim", "Claims"]

_FIRST_POLL = 0.02
_LAST_POLL = 0.2
"""Seconds between two looks at what others compute; they grow from first to last."""

_PATIENCE = 60.0
"""Seconds without a result of the others' after which whoever waits is told that it does."""

_MOST_HELD = 4000
"""Rights to compute that are held at a time: one takes the longer to get the more there are."""

_AT_ONCE = 2000
"""How many are looked at together."""


class Claim(NamedTuple):
    """The answer: a record, or the right to compute it."""

    record: Record | None
    release: Callable[[], None] | None
    """Ends the right to compute."""


class _Wanted(NamedTuple):
    key: bytes
    usable: Callable[[Record], bool]
    future: "asyncio.Future[Claim]"


class Claims:
    """Claims of recipes, made on one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, "cachedeval-read")
        self._fresh: dict[bytes, _Wanted] = {}
        self._busy: dict[bytes, _Wanted] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._polling = False
        self._scheduled = False
        self._held = 0
        """How many rights are held or asked for."""

    async def claim(self, key: bytes, recipe: bytes, usable: Callable[[Record], bool]) -> Claim:
        """Return the record of a recipe, or the right to compute it, once nobody else has it.

        Args:
            key: the recipe's.
            recipe: no two claims of one recipe may wait at the same time.
            usable: says whether a record under the key answers the recipe; called off the loop.
        """
        future: asyncio.Future[Claim] = asyncio.get_running_loop().create_future()
        self._fresh[recipe] = _Wanted(key, usable, future)
        self._schedule()
        try:
            return await future
        except asyncio.CancelledError:
            # The lease may have been granted after the last chance to cancel the future and before
            # this task woke up. Then nobody else knows of it.
            if future.done() and not future.cancelled() and future.exception() is None:
                release = future.result().release
                if release is not None:
                    release()
            raise

    async def drain(self) -> None:
        """Wait until all claims that nobody waits for any more are given back."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def close(self) -> None:
        """End the reading thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _schedule(self) -> None:
        if self._fresh and not self._scheduled:
            self._scheduled = True
            # Two turns of the loop let all calls that became ready together go as one batch.
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        room = _MOST_HELD - self._held
        # Not one by one as they are given back: what is claimed together is computed together.
        if room < min(len(self._fresh), _MOST_HELD // 2):
            return
        turn = dict(islice(self._fresh.items(), room))
        for recipe in turn:
            del self._fresh[recipe]
        self._spawn(self._settle(turn))
        self._schedule()

    def _give_back(self, release: Callable[[], None]) -> None:
        release()
        self._held -= 1
        self._schedule()

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _settle(self, wanted: dict[bytes, _Wanted]) -> None:
        self._held += len(wanted)
        loop = asyncio.get_running_loop()
        try:
            claims = await loop.run_in_executor(self._thread, self._claim, wanted)
        except Exception as error:  # noqa: BLE001  those who wait must not wait for ever
            self._held -= len(wanted)
            for want in wanted.values():
                if not want.future.done():
                    want.future.set_exception(error)
            self._schedule()
            return
        for recipe, want in wanted.items():
            claim = claims.get(recipe)
            if claim is None or claim.release is None:
                self._held -= 1
            else:
                claim = Claim(None, partial(self._give_back, claim.release))
            if want.future.done():  # cancelled in the meantime
                if claim is not None and claim.release is not None:
                    claim.release()
            elif claim is None:
                self._busy[recipe] = want
            else:
                want.future.set_result(claim)
        self._schedule()
        if self._busy and not self._polling:
            self._polling = True
            self._spawn(self._poll())

    async def _poll(self) -> None:
        now = asyncio.get_running_loop().time
        pause, since, told = _FIRST_POLL, now(), False
        while self._busy:
            await asyncio.sleep(pause)
            # In turns, so that ten thousand which wait keep neither a processor nor a disk busy.
            turn = dict(islice(self._busy.items(), _AT_ONCE))
            for recipe in turn:
                del self._busy[recipe]
            waiting = {recipe: want for recipe, want in turn.items() if not want.future.done()}
            if waiting:
                await self._settle(waiting)
            progress = any(recipe not in self._busy for recipe in turn)
            pause = _FIRST_POLL if progress else min(pause * 1.5, _LAST_POLL)
            if progress:
                since = now()
            elif not told and now() - since > _PATIENCE:
                told = True  # a process that was stopped, as by Ctrl-Z, would be waited for unseen
                logger().warning(
                    "waiting for another process that computes %d results which are wanted here "
                    "too; if it was stopped, let it go on, or end it and they are computed here",
                    len(self._busy),
                )
        self._polling = False

    def _claim(self, wanted: dict[bytes, _Wanted]) -> dict[bytes, Claim]:
        """Claim recipes; one that is missing from the answer is another's for now."""
        releases: dict[bytes, Callable[[], None] | None] = {}
        try:
            for recipe, want in wanted.items():
                releases[recipe] = self._store.acquire(want.key)
            return self._divide(wanted, releases)
        except BaseException as error:
            for release in releases.values():
                if release is not None:
                    release()
            # On the event loop, `SystemExit` or `KeyboardInterrupt` would end the loop.
            raise RuntimeError(f"the cache cannot be asked: {error!r}") from error

    def _divide(
        self, wanted: dict[bytes, _Wanted], releases: dict[bytes, Callable[[], None] | None]
    ) -> dict[bytes, Claim]:
        # Looked up after the claim: another may have finished just before it.
        recipes: dict[bytes, bytes] = {}
        for recipe, want in wanted.items():
            recipes.setdefault(want.key, recipe)
        records = self._store.get_many(recipes)
        claims: dict[bytes, Claim] = {}
        for recipe, release in releases.items():
            want = wanted[recipe]
            record = records.get(want.key)
            if record is not None and _is_usable(want, record):
                if release is not None:
                    release()
                claims[recipe] = Claim(record, None)
            elif release is not None:
                claims[recipe] = Claim(None, release)
        return claims


def _is_usable(want: _Wanted, record: Record) -> bool:
    try:
        return want.usable(record)
    except BaseException:  # noqa: BLE001  no signal arrives on this thread: it is the record's
        return False
