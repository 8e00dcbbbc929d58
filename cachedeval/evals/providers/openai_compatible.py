"""Any server that speaks OpenAI's chat completions: vLLM, llama.cpp, ``mlx_lm.server``, OpenAI.

Plain httpx: one POST needs no SDK, and httpx is here anyway.
"""

import httpx

from cachedeval.evals.providers import ChatReply, ChatRequest
from cachedeval.evals.providers.completion import failure_of_reply, read_completion
from cachedeval.evals.providers.connections import (
    failure_of_exception,
    http_client,
    without_credentials,
)
from cachedeval.evals.providers.secrets import Redactor, redact_logs

__all__ = ["OpenAIProvider"]


class OpenAIProvider:
    """A client of one server; see `cachedeval.evals.providers.ChatProvider`.

    Args:
        key: Sent as the bearer; "" sends none.
        base_url: Up to and with ``/v1``.
        max_concurrency: How many requests may be under way at once.
        redact: Takes secrets out of what failures show.
    """

    def __init__(self, *, key: str, base_url: str, max_concurrency: int, redact: Redactor) -> None:
        self.takes_schema = True
        self.redact = redact
        self.name = f"the judge at {httpx.URL(base_url).host}"
        self._url = without_credentials(base_url).rstrip("/") + "/chat/completions"
        self._client = http_client(base_url, max_concurrency, redact)
        if key:
            self._client.headers["authorization"] = f"Bearer {key}"
        redact_logs(redact)

    async def complete(self, request: ChatRequest) -> ChatReply:
        """Ask once; see the protocol."""
        try:
            reply = await self._client.post(self._url, json=request.body())
            headers = dict(reply.headers)
            if reply.is_success:
                return read_completion(
                    reply.content, headers, asked=request, service=self.name, redact=self.redact
                )
            failure = failure_of_reply(
                reply.status_code, reply.content, headers, service=self.name, redact=self.redact
            )
        except Exception as error:  # noqa: BLE001 -- of httpx, ssl, json: none may show the key
            failure = failure_of_exception(error, service=self.name, redact=self.redact)
        failure.redact(self.redact)
        raise failure

    async def aclose(self) -> None:
        """Give the connections back."""
        await self._client.aclose()
