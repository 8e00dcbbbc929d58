"""The clients of the services, each a small class behind `ChatClient`.

A client sends one request, and returns the reply or raises one `ServiceError`. Limits and retries
are not its business.
"""

from collections.abc import Mapping

import httpx

from cachedeval.engine.errors import InputError
from cachedeval.services.chat import (
    ChatClient,
    ChatReply,
    ChatRequest,
    error_of_reply,
    read_completion,
)
from cachedeval.services.errors import one_line
from cachedeval.services.http import (
    error_of_exception,
    http_client,
    redact_logs,
    secrets_of,
    without_credentials,
)
from cachedeval.services.secrets import Redactor
from cachedeval.services.spec import ServiceSpec, api_key_of, base_url_of

__all__ = ["CerebrasClient", "OpenAIClient", "open_client"]


def open_client(
    spec: ServiceSpec, environ: Mapping[str, str], *, max_concurrency: int = 32
) -> ChatClient:
    """Make the client of a service. Nothing is sent yet, and no connection is made.

    Args:
        spec: The service and its model.
        environ: Where key and base URL are looked up: `os.environ`.
        max_concurrency: How many connections stay open.

    Raises:
        InputError: The key is missing or malformed, or the base URL or a proxy is.
    """
    key, base_url = api_key_of(spec, environ), base_url_of(spec, environ)
    redact = Redactor(secrets_of(key, base_url))
    kind = CerebrasClient if spec.provider == "cerebras" else OpenAIClient
    try:
        return kind(key=key, base_url=base_url, max_concurrency=max_concurrency, redact=redact)
    except Exception as error:  # noqa: BLE001 -- httpx quotes URLs and proxies, with passwords
        found = InputError(
            f"{spec}: no client can be opened: {redact(one_line(str(error)))}; check"
            f" {spec.url_variable} and the proxies of the environment"
        )
    found.fatal = True  # it would be the same for every call
    raise found


class OpenAIClient:
    """A client of any server that speaks OpenAI's chat completions; see `ChatClient`.

    vLLM, llama.cpp, `mlx_lm.server`, OpenAI. One POST needs no SDK, and httpx is here anyway.

    Args:
        key: Sent as the bearer; "" sends none.
        base_url: Up to and with ``/v1``.
        max_concurrency: The most requests at once.
        redact: Removes secrets from what errors show.
    """

    def __init__(self, *, key: str, base_url: str, max_concurrency: int, redact: Redactor) -> None:
        self.redact = redact
        self.name = f"the service at {httpx.URL(base_url).host}"
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
            found = error_of_reply(
                reply.status_code, reply.content, headers, service=self.name, redact=self.redact
            )
        except Exception as error:  # noqa: BLE001 -- of httpx, ssl, json: none may show the key
            found = error_of_exception(error, service=self.name, redact=self.redact)
        found.redact(self.redact)
        raise found

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class CerebrasClient:
    """A client of Cerebras's own service, through its SDK; see `ChatClient`.

    The SDK's own retries would pass the limits by, and its connection at construction would be
    one before the first miss: both are off.

    Args:
        key: The API key.
        base_url: The service, without ``/v1``.
        max_concurrency: The most requests at once.
        redact: Removes secrets from what errors show.
    """

    def __init__(self, *, key: str, base_url: str, max_concurrency: int, redact: Redactor) -> None:
        from cerebras.cloud import sdk  # noqa: PLC0415 -- takes half a second

        self.redact = redact
        self._sdk = sdk
        host = httpx.URL(base_url).host
        self.name = "Cerebras" if host == "api.cerebras.ai" else f"Cerebras's API at {host}"
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
        except self._sdk.APIStatusError as error:
            found = error_of_reply(
                error.response.status_code,
                error.response.content,
                dict(error.response.headers),
                service=self.name,
                redact=self.redact,
            )
        except Exception as error:  # noqa: BLE001 -- of the SDK, httpx, ssl: none may show the key
            found = error_of_exception(
                (error.__cause__ if isinstance(error, self._sdk.APIConnectionError) else None)
                or error,
                service=self.name,
                redact=self.redact,
            )
        found.redact(self.redact)
        raise found

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()
