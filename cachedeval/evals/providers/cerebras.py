"""Cerebras's own service, through its own client. Importing this takes half a second."""

import httpx
from cerebras.cloud import sdk

from cachedeval.evals.providers import ChatReply, ChatRequest
from cachedeval.evals.providers.completion import failure_of_reply, read_completion
from cachedeval.evals.providers.connections import (
    failure_of_exception,
    http_client,
    without_credentials,
)
from cachedeval.evals.providers.secrets import Redactor, redact_logs

__all__ = ["CerebrasProvider"]


class CerebrasProvider:
    """A client of Cerebras's service; see `cachedeval.evals.providers.ChatProvider`.

    The SDK's own retries would pass the limits by, and its connection at construction would be
    one before the first miss: both are off.

    Args:
        key: The API key.
        base_url: The service, without ``/v1``.
        max_concurrency: How many requests may be under way at once.
        redact: Takes secrets out of what failures show.
    """

    def __init__(self, *, key: str, base_url: str, max_concurrency: int, redact: Redactor) -> None:
        self.takes_schema = True
        self.redact = redact
        host = httpx.URL(base_url).host
        self.name = "Cerebras" if host == "api.cerebras.ai" else f"Cerebras's judge at {host}"
        client = http_client(base_url, max_concurrency, redact)
        self._client = sdk.AsyncCerebras(
            api_key=key,
            base_url=without_credentials(base_url),
            max_retries=0,
            warm_tcp_connection=False,
            timeout=client.timeout,
            http_client=client,
        )
        # The raw reply: its headers tell the limits, and its body is read strictly.
        self._create = self._client.chat.completions.with_raw_response.create
        redact_logs(redact)

    async def complete(self, request: ChatRequest) -> ChatReply:
        """Ask once; see the protocol."""
        body = request.body()
        try:
            raw = await self._create(
                model=body.pop("model"), messages=body.pop("messages"), extra_body=body
            )
            reply = raw.http_response
            return read_completion(
                reply.content,
                dict(reply.headers),
                asked=request,
                service=self.name,
                redact=self.redact,
            )
        except sdk.APIStatusError as error:
            failure = failure_of_reply(
                error.response.status_code,
                error.response.content,
                dict(error.response.headers),
                service=self.name,
                redact=self.redact,
            )
        except Exception as error:  # noqa: BLE001 -- of the SDK, httpx, ssl: none may show the key
            failure = failure_of_exception(
                (error.__cause__ if isinstance(error, sdk.APIConnectionError) else None) or error,
                service=self.name,
                redact=self.redact,
            )
        failure.redact(self.redact)
        raise failure

    async def aclose(self) -> None:
        """Give the connections back."""
        await self._client.close()
