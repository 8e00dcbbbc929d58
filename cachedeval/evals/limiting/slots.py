"""How many calls may be under way at once: a bound that follows what the service can take."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Slots"]

_LESS = 0.75


class Slots:
    """Places for calls, given out in the order of asking.

    A service that cannot keep up takes a quarter of the places away; each call that succeeds
    gives one back, up to the most. Who has a place keeps it over all retries of the call, so
    that those who were told to wait go first afterwards and new calls wait.

    Belongs to one event loop.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self.in_use = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """A place, for as long as the context lasts."""
        await self._acquire()
        try:
            yield
        finally:
            self._release()

    def grow(self) -> None:
        """A call succeeded."""
        self.limit = min(self.limit + 1, float(self.most))
        self._hand_out()

    def shrink(self) -> None:
        """The service has too much to do."""
        self.limit = max(min(self.limit, self.in_use) * _LESS, 1.0)

    async def _acquire(self) -> None:
        if not self._waiting and self.in_use < int(self.limit):
            self.in_use += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was given in the same moment
                self._release()
            raise

    def _release(self) -> None:
        self.in_use -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and self.in_use < int(self.limit):
            place = self._waiting.popleft()
            if not place.done():
                self.in_use += 1
                place.set_result(None)
