"""Any server that speaks OpenAI's chat completions: vLLM, llama.cpp, ``mlx_lm.server``, OpenAI.

Plain httpx: one POST needs no SDK, and httpx is here anyway.
"""

import httpx

from cachedeval.evals.failures import ConnectionFailed, TimedOut
from cachedeval.evals.providers import ChatReply, ChatRequest
from cachedeval.evals.providers.completion import failure_of_reply, read_completion

__all__ = ["OpenAIProvider", "connection_limits"]

_CONNECT_SECONDS = 10.0


def connection_limits(max_concurrency: int) -> httpx.Limits:
    """A pool in which every call under way keeps its connection for the next one."""
    return httpx.Limits(max_connections=max_concurrency, max_keepalive_connections=max_concurrency)


class OpenAIProvider:
    """A client of one server; see `cachedeval.evals.providers.ChatProvider`.

    Args:
        key: Sent as the bearer; "" sends none.
        base_url: Up to and with ``/v1``.
        max_concurrency: How many connections are kept.
    """

    def __init__(self, *, key: str, base_url: str, max_concurrency: int) -> None:
        self.takes_schema = True
        self.name = f"the judge at {httpx.URL(base_url).host}"
        self._key = key
        self._client = httpx.AsyncClient(
            base_url=base_url.rstrip("/") + "/",
            headers={"authorization": f"Bearer {key}"} if key else {},
            limits=connection_limits(max_concurrency),
            # The caller's deadline bounds the call; only a dead address is given up earlier.
            timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
        )

    async def complete(self, request: ChatRequest) -> ChatReply:
        """Ask once; see the protocol."""
        try:
            reply = await self._client.post("chat/completions", json=request.body())
        except httpx.TimeoutException as error:
            raise TimedOut(f"{self.name} took no connection in {_CONNECT_SECONDS:g} s") from error
        except httpx.HTTPError as error:
            raise ConnectionFailed(f"{self.name}: {_why(error)}") from error
        headers = dict(reply.headers)
        if reply.status_code >= httpx.codes.BAD_REQUEST:
            raise failure_of_reply(
                reply.status_code, reply.content, headers, service=self.name, secret=self._key
            )
        return read_completion(reply.content, headers, service=self.name)

    async def aclose(self) -> None:
        """Give the connections back."""
        await self._client.aclose()


def _why(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
