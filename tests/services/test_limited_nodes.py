"""A user's own step behind a rate limiter, against a server that refuses what is too much."""

import httpx
import pytest
from support.judge_chaos import Quota
from support.judge_server import JudgeServer

from cachedeval import Engine, node
from cachedeval.services.limiter import RateLimiter
from cachedeval.services.limits import Limits

pytestmark = pytest.mark.slow


def test_a_limited_step_keeps_the_rate_and_uses_it() -> None:
    quota = Quota(requests=60, minute=3)
    limiter = RateLimiter(Limits(requests_per_minute=60, minute=3))
    with JudgeServer(latency=0.02, quota=quota) as server:
        url = server.url
        # No connection outlives its request: nothing is left to close on the engine's loop.
        limits = httpx.Limits(max_keepalive_connections=0)
        client = httpx.AsyncClient(trust_env=False, limits=limits)

        @node(version="1", limiter=limiter, concurrency=8)
        async def ask(number: int) -> int:
            body = {"model": "m", "messages": [{"role": "user", "content": f"question {number}"}]}
            reply = await client.post(f"{url}/v1/chat/completions", json=body)
            return reply.status_code

        with Engine("memory:") as engine:
            found = engine.run([ask(number) for number in range(150)])
            again = engine.run([ask(number) for number in range(150)])
        first_second = server.requests[0].at + 1
        asked = server.calls
    print(f"{found.count(429)} refused, {quota.share():.3f} of the rate used")  # noqa: T201
    assert again == found
    assert asked == 150
    # A busy machine delays a request now and then.
    assert quota.rejected_after(first_second) <= 2
    assert quota.share() >= 0.85
