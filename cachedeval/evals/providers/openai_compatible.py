"""Any server that speaks OpenAI's chat completions: vLLM, llama.cpp, ``mlx_lm.server``, OpenAI.

Plain httpx: one POST needs no SDK, and httpx is here anyway.
"""

import httpx

from cachedeval.evals.judging.failures import ConnectionFailed, TimedOut
from cachedeval.evals.providers import ChatReply, ChatRequest
from cachedeval.evals.providers.completion import failure_of_reply, read_completion
from cachedeval.evals.providers.connections import CONNECT_SECONDS, http_client

__all__ = ["OpenAIProvider"]


class OpenAIProvider:
    """A client of one server; see `cachedeval.evals.providers.ChatProvider`.

    Args:
        key: Sent as the bearer; "" sends none.
        base_url: Up to and with ``/v1``.
        max_concurrency: How many requests may be under way at once.
    """

    def __init__(self, *, key: str, base_url: str, max_concurrency: int) -> None:
        self.takes_schema = True
        self.name = f"the judge at {httpx.URL(base_url).host}"
        self._key = key
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._client = http_client(base_url, max_concurrency)

    async def complete(self, request: ChatRequest) -> ChatReply:
        """Ask once; see the protocol."""
        identified = {"authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            reply = await self._client.post(self._url, json=request.body(), headers=identified)
        except httpx.TimeoutException:
            raise TimedOut(f"{self.name} let nobody in for {CONNECT_SECONDS:g} s") from None
        except httpx.HTTPError as error:
            raise ConnectionFailed(f"{self.name}: {type(error).__name__}: {error}") from None
        headers = dict(reply.headers)
        if reply.status_code >= httpx.codes.BAD_REQUEST:
            raise failure_of_reply(
                reply.status_code, reply.content, headers, service=self.name, secret=self._key
            )
        return read_completion(reply.content, headers, service=self.name, secret=self._key)

    async def aclose(self) -> None:
        """Give the connections back."""
        await self._client.aclose()
