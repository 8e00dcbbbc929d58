"""Parameters that are sent by default, and that a service may refuse.

OpenAI's reasoning models take no `temperature` but 1; some servers know no `seed` or
`response_format`. What the user did not ask for is left out then: the request that was refused is
sent once more without it, and later ones go without it at once.
"""

import asyncio
import re
from collections.abc import Callable, Iterable
from contextlib import suppress

from cachedeval.services.chat import ChatRequest
from cachedeval.services.errors import BadRequestError, UnsupportedParameterError

__all__ = ["FirstReply", "RefusedParameters"]

_SECONDS = 0.5
"""How long the first reply is awaited: a refusal comes at once, a completion takes its time."""

_UNNAMED = "response_format"
"""The parameter that is left out first where a service does not say which one it refuses."""


class RefusedParameters:
    """The parameters that one service refuses, as far as it has said so.

    Args:
        known: Those that it refused before.
        on_refused: Called with all of them when there are more.

    Attributes:
        names: All of them.
    """

    def __init__(
        self,
        known: Iterable[str] = (),
        on_refused: Callable[[frozenset[str]], None] | None = None,
    ) -> None:
        self.names = frozenset(known)
        self._on_refused = on_refused
        self._taken: set[str] = set()

    def refused_by(self, error: BadRequestError, request: ChatRequest) -> frozenset[str]:
        """Return the optional parameters of a request that it may have been refused for.

        Raises:
            UnsupportedParameterError: The service names a parameter that is not optional, and took
                no request with it before.
        """
        sent = request.parameters().keys()
        if error.parameter is not None:
            name = error.parameter.partition(".")[0]
            if name in sent and name not in request.optional and name not in self._taken:
                raise _unsupported(error, name)
            return frozenset({name} & sent & request.optional)
        optional = sent & request.optional
        named = {name for name in optional if re.search(rf"\b{name}\b", str(error))}
        return frozenset(named or ({_UNNAMED} & optional) - self._taken)

    def add(self, names: frozenset[str]) -> None:
        """Record that the service refuses parameters."""
        if not names <= self.names:
            self.names |= names
            if self._on_refused is not None:
                self._on_refused(self.names)

    def took(self, request: ChatRequest) -> None:
        """Record that the service answered a request."""
        self._taken.update(request.parameters())


def _unsupported(error: BadRequestError, name: str) -> UnsupportedParameterError:
    found = UnsupportedParameterError(
        f"{error} (you set {name}: change it, or leave it out)", status=error.status
    )
    found.headers, found.parameter = error.headers, name
    return found


class FirstReply:
    """Holds requests back until the first one is answered, so that only one can be refused.

    Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._answered: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Return at once for the first request; for the others when it is answered, or late."""
        if self._answered is None:
            self._answered = asyncio.get_running_loop().create_future()
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(None if self._answered.done() else _SECONDS):
                await asyncio.shield(self._answered)
        self.arrived()

    def arrived(self) -> None:
        """Let all requests go."""
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)
