"""Connections for many calls at once: what the clients over HTTP share."""

import urllib.request
import zlib
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from cachedeval.evals.judging.failures import (
    ClientError,
    ConnectionFailed,
    Failure,
    InvalidReply,
    TimedOut,
    one_line,
)
from cachedeval.evals.providers import is_loopback
from cachedeval.evals.providers.secrets import Redactor, credentials_of

__all__ = ["BoundedClient", "SmallPools", "failure_of_exception", "http_client"]

CONNECT_SECONDS = 10.0
"""How long an address may take to let us in. The rest of a call is bounded by its deadline."""

LONGEST_REPLY = 1 << 22
"""Bytes of a reply, unpacked. A judge's has some thousands."""

_POOL = 10
"""Connections a pool."""

_SHOWN = 300


class SmallPools(httpx.AsyncBaseTransport):
    """Several small connection pools as one.

    For each request httpcore looks at each idle connection of its pool, and for each of these at
    every other: with a hundred in one pool that is milliseconds a request, more than all the rest.

    Args:
        connections: How many requests may be under way at once.
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
        """Send a request over the pool that has the least to do."""
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

    Headers come without secrets: the SDK logs them, and failures carry them. The body is as sent.
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
            InvalidReply: It is too long, or packed in a way that was not asked for.
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
        raise InvalidReply(
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
            raise InvalidReply(
                f"{reply.url.host} answered with a body that is not {packing}, as it says",
                status=reply.status_code,
            ) from None
        if len(read) > LONGEST_REPLY:
            raise InvalidReply(
                f"{reply.url.host} answered with more than {LONGEST_REPLY >> 20} MB, which is no"
                " chat completion",
                status=reply.status_code,
            )
    return bytes(read)


def http_client(base_url: str, max_concurrency: int, redact: Redactor) -> BoundedClient:
    """An HTTP client in which every call under way keeps its connection for the next one.

    A proxy that the environment names is used, over one pool. A user and a password in the URL
    are sent as HTTP's basic authentication, in place of the key.
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
    """A URL without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def failure_of_exception(error: BaseException, *, service: str, redact: Redactor) -> Failure:
    """The failure that an exception of the HTTP libraries stands for; nothing of it is kept.

    To be raised outside of the ``except`` block: an exception that is the context of another shows
    up in its traceback, and carries the request with the key.
    """
    if isinstance(error, Failure):
        return error
    said = f"{service}: {type(error).__name__}: {redact(one_line(str(error)))[:_SHOWN]}"
    if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return TimedOut(f"{service} let nobody in for {CONNECT_SECONDS:g} s")
    if isinstance(error, httpx.TimeoutException):
        return TimedOut(said)
    if isinstance(error, httpx.RemoteProtocolError) and not _broke_off(error):
        return InvalidReply(f"{said} (is this the address of a chat service?)")
    if isinstance(error, httpx.TransportError) and not isinstance(
        error, httpx.LocalProtocolError | httpx.UnsupportedProtocol
    ):
        failure = ConnectionFailed(said)
        if "[SSL" in str(error):
            failure.final = failure.unfit = True
        return failure
    return ClientError(said)


def _broke_off(error: httpx.RemoteProtocolError) -> bool:
    """Whether the other side went away, and did not just talk nonsense."""
    return str(error).startswith(("Server disconnected", "peer closed connection"))
