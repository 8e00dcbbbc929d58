"""Connections for many calls at once: what the clients over HTTP share."""

import urllib.request

import httpx

from cachedeval.evals.providers import is_loopback

__all__ = ["CONNECT_SECONDS", "SmallPools", "http_client"]

CONNECT_SECONDS = 10.0
"""How long an address may take to let us in. The rest of a call is bounded by its deadline."""

_POOL = 10
"""Connections a pool."""


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


def http_client(base_url: str, max_concurrency: int) -> httpx.AsyncClient:
    """An HTTP client in which every call under way keeps its connection for the next one.

    A proxy that the environment names is used, over one pool.
    """
    timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)
    if urllib.request.getproxies() and not is_loopback(base_url):
        bounds = httpx.Limits(
            max_connections=max_concurrency, max_keepalive_connections=max_concurrency
        )
        return httpx.AsyncClient(timeout=timeout, limits=bounds)
    return httpx.AsyncClient(timeout=timeout, transport=SmallPools(max_concurrency))
