"""HTTP connections for many calls at once, with bounded replies and redacted logs."""

import logging
import urllib.request
import weakref
import zlib
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from cachedeval.services.errors import (
    APIConnectionError,
    APITimeoutError,
    ClientError,
    InvalidResponseError,
    ServiceError,
    one_line,
)
from cachedeval.services.secrets import Redactor, base64_of, credentials_of
from cachedeval.services.spec import is_loopback

__all__ = [
    "BoundedClient",
    "SmallPools",
    "error_of_exception",
    "http_client",
    "redact_logs",
    "secrets_of",
    "without_credentials",
]

CONNECT_SECONDS = 10.0
"""How long connecting may take. The rest of a call is bounded by its time-out."""

LONGEST_REPLY = 1 << 22
"""Bytes of a reply, unpacked. A usual one has some thousands."""

_POOL = 10
"""Connections a pool."""

_SHOWN = 300


class SmallPools(httpx.AsyncBaseTransport):
    """Several small connection pools as one.

    For each request httpcore compares each idle connection of its pool with every other one: with a
    hundred in one pool that takes milliseconds a request, more than all the rest.

    Args:
        connections: The most requests at once.
    """

    def __init__(self, connections: int) -> None:
        verify = httpx.create_ssl_context()  # read once: the certificates take 10 ms
        bounds = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._pools = [
            httpx.AsyncHTTPTransport(verify=verify, limits=bounds)
            for _ in range(-(-connections // _POOL))
        ]
        self._busy = [0] * len(self._pools)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request over the least busy pool."""
        chosen = min(range(len(self._pools)), key=self._busy.__getitem__)
        self._busy[chosen] += 1
        try:
            return await self._pools[chosen].handle_async_request(request)
        finally:
            self._busy[chosen] -= 1

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools:
            await pool.aclose()


class BoundedClient(httpx.AsyncClient):
    """An HTTP client that reads no more of a reply than `LONGEST_REPLY`, packed or unpacked.

    Headers come without secrets: the SDK logs them, and founds carry them. The body is as sent.
    """

    def __init__(self, redact: Redactor, **options: Any) -> None:
        super().__init__(**options)
        self._redact = redact
        # Replies are small; a packed one can be a thousand times as long as it looks.
        self.headers["accept-encoding"] = "identity"

    async def send(
        self, request: httpx.Request, *, stream: bool = False, **options: Any
    ) -> httpx.Response:
        """Send a request, and read the reply.

        Raises:
            InvalidResponseError: It is too long, or packed in a way that was not asked for.
        """
        del stream
        request.headers["accept-encoding"] = "identity"  # whatever an SDK sets
        reply = await super().send(request, stream=True, **options)
        try:
            content = await _read(reply)
        finally:
            await reply.aclose()
        redact = self._redact.whole
        headers = [
            (redact(name), redact(value))
            for name, value in reply.headers.multi_items()
            if name not in ("content-encoding", "content-length", "transfer-encoding")
        ]
        return httpx.Response(reply.status_code, headers=headers, content=content, request=request)


async def _read(reply: httpx.Response) -> bytes:
    packing = reply.headers.get("content-encoding", "identity").strip().lower()
    unpack = None
    if packing in ("gzip", "x-gzip", "deflate"):
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
    elif packing not in ("identity", ""):
        raise InvalidResponseError(
            f"{reply.url.host} answered in the encoding {one_line(packing)[:40]!r}, which was not"
            " asked for",
            status=reply.status_code,
        )
    read = bytearray()
    async for chunk in reply.aiter_raw():
        room = LONGEST_REPLY + 1 - len(read)
        try:
            read += chunk if unpack is None else unpack.decompress(chunk, room)
        except zlib.error:
            raise InvalidResponseError(
                f"{reply.url.host} answered with a body that is not {packing}, though its header says so",
                status=reply.status_code,
            ) from None
        if len(read) > LONGEST_REPLY:
            raise InvalidResponseError(
                f"{reply.url.host} answered with more than {LONGEST_REPLY >> 20} MB, which is no"
                " chat completion",
                status=reply.status_code,
            )
    return bytes(read)


def secrets_of(key: str, base_url: str) -> list[str]:
    """Return everything secret that a client sends: the key, passwords of the URL and of proxies."""
    found = [key]
    for url in (base_url, *urllib.request.getproxies().values()):
        try:
            credentials = credentials_of(url)
        except ValueError:
            continue
        if credentials is not None:
            pair = ":".join(credentials)
            found += [credentials[1], pair, base64_of(pair.encode())]
    return found


def http_client(base_url: str, max_concurrency: int, redact: Redactor) -> BoundedClient:
    """Return an HTTP client in which each call at once keeps its connection for the next one.

    A proxy that the environment names is used, over one pool. A user and a password in the URL
    are sent as HTTP basic authentication, in place of the key.
    """
    credentials = credentials_of(base_url)
    options: dict[str, Any] = {
        "timeout": httpx.Timeout(None, connect=CONNECT_SECONDS),
        "auth": None if credentials is None else httpx.BasicAuth(*credentials),
    }
    if urllib.request.getproxies() and not is_loopback(base_url):
        options["limits"] = httpx.Limits(
            max_connections=max_concurrency, max_keepalive_connections=max_concurrency
        )
    else:
        options["transport"] = SmallPools(max_concurrency)
    return BoundedClient(redact, **options)


def without_credentials(url: str) -> str:
    """Return a URL without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def error_of_exception(error: BaseException, *, service: str, redact: Redactor) -> ServiceError:
    """Return the error for an exception of the HTTP libraries; nothing of that is kept.

    Raise it outside of the `except` block: an exception that is the context of another is part of
    its traceback, and carries the request with the key.
    """
    if isinstance(error, ServiceError):
        return error
    message = f"{service}: {type(error).__name__}: {redact(one_line(str(error)))[:_SHOWN]}"
    if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return APITimeoutError(f"{service} accepted no connection for {CONNECT_SECONDS:g} s")
    if isinstance(error, httpx.TimeoutException):
        return APITimeoutError(message)
    if isinstance(error, httpx.RemoteProtocolError) and not _broke_off(error):
        return InvalidResponseError(f"{message} (is this the address of a chat service?)")
    if isinstance(error, httpx.TransportError) and not isinstance(
        error, httpx.LocalProtocolError | httpx.UnsupportedProtocol
    ):
        found = APIConnectionError(message)
        if "[SSL" in str(error):
            found.final = found.wrong_endpoint = True
        return found
    return ClientError(message)


def _broke_off(error: httpx.RemoteProtocolError) -> bool:
    """Say whether the connection broke, rather than carried something else than HTTP."""
    return str(error).startswith(("Server disconnected", "peer closed connection"))


class _Filter(logging.Filter):
    """Redacts log records of the HTTP libraries, with their exceptions."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = shown = record.getMessage()
        for redact in list(_ACTIVE):
            shown = redact(shown)
        if shown != text:
            record.msg, record.args = shown, ()
        if record.exc_info:
            trace = logging.Formatter().formatException(record.exc_info)
            for redact in list(_ACTIVE):
                trace = redact(trace)
            record.exc_info, record.exc_text = None, trace
        return True


_ACTIVE: "weakref.WeakSet[Redactor]" = weakref.WeakSet()
_FILTER = _Filter()


def redact_logs(redact: Redactor) -> None:
    """Redact what the HTTP libraries log, for as long as the redactor lives.

    Call it after they are imported: a filter applies to one logger, not to those below it.
    """
    _ACTIVE.add(redact)
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] in {"httpx", "httpcore", "cerebras", "openai"}:
            logging.getLogger(name).addFilter(_FILTER)
