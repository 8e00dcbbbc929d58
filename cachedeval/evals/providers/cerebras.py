"""Cerebras's own service, through its own client. Importing this takes half a second."""

import httpx
from cerebras.cloud import sdk

from cachedeval.evals.judging.failures import ConnectionFailed, TimedOut
from cachedeval.evals.providers import ChatReply, ChatRequest
from cachedeval.evals.providers.completion import failure_of_reply, read_completion
from cachedeval.evals.providers.connections import CONNECT_SECONDS, http_client

__all__ = ["CerebrasProvider"]


class CerebrasProvider:
    """A client of Cerebras's service; see `cachedeval.evals.providers.ChatProvider`.

    The SDK's own retries would pass the limits by, and its connection at construction would be
    one before the first miss: both are off.

    Args:
        key: The API key.
        base_url: The service, without ``/v1``.
        max_concurrency: How many requests may be under way at once.
    """

    def __init__(self, *, key: str, base_url: str, max_concurrency: int) -> None:
        self.takes_schema = True
        host = httpx.URL(base_url).host
        self.name = "Cerebras" if host == "api.cerebras.ai" else f"Cerebras's judge at {host}"
        self._key = key
        client = http_client(base_url, max_concurrency)
        self._client = sdk.AsyncCerebras(
            api_key=key,
            base_url=base_url,
            max_retries=0,
            warm_tcp_connection=False,
            timeout=client.timeout,
            http_client=client,
        )
        # The raw reply: its headers tell the limits, and its body is read strictly.
        self._create = self._client.chat.completions.with_raw_response.create

    async def complete(self, request: ChatRequest) -> ChatReply:
        """Ask once; see the protocol."""
        body = request.body()
        try:
            raw = await self._create(
                model=body.pop("model"), messages=body.pop("messages"), extra_body=body
            )
        except sdk.APIStatusError as error:
            raise failure_of_reply(
                error.response.status_code,
                error.response.content,
                dict(error.response.headers),
                service=self.name,
                secret=self._key,
            ) from None  # the SDK's error carries the request, and with it the key
        except sdk.APITimeoutError:
            raise TimedOut(f"{self.name} let nobody in for {CONNECT_SECONDS:g} s") from None
        except sdk.APIConnectionError as error:
            cause = error.__cause__ or error
            raise ConnectionFailed(f"{self.name}: {type(cause).__name__}: {cause}") from None
        reply = raw.http_response
        return read_completion(
            reply.content, dict(reply.headers), service=self.name, secret=self._key
        )

    async def aclose(self) -> None:
        """Give the connections back."""
        await self._client.close()
