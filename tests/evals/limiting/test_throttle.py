import asyncio
import time
from typing import Any

import pytest

from cachedeval.evals.judging.failures import BudgetExhausted, RateLimited, Unauthorised
from cachedeval.evals.limiting.limits import Limits, RateHeaders
from cachedeval.evals.limiting.throttle import Throttle

ASK = ({"role": "user", "content": "hello"},)
NOTHING = RateHeaders()


async def reserve_many(throttle: Throttle, count: int) -> list[float]:
    """When each was let through, in seconds from the start."""
    began = time.monotonic()
    passed: list[float] = []

    async def one() -> None:
        ticket = await throttle.reserve(ASK, 10)
        passed.append(time.monotonic() - began)
        throttle.answered(ticket, 2, 3, NOTHING)

    await asyncio.gather(*(one() for _ in range(count)))
    return passed


async def test_without_limits_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    loop = asyncio.get_running_loop()
    call_at = loop.call_at

    def record(when: float, *arguments: Any, **options: Any) -> asyncio.TimerHandle:
        waits.append(when - loop.time())
        return call_at(when, *arguments, **options)

    throttle = Throttle(Limits())
    throttle.answered(await throttle.reserve(ASK, 10), 2, 3, NOTHING)
    monkeypatch.setattr(loop, "call_at", record)
    await reserve_many(throttle, 500)
    assert waits == []


async def test_requests_leave_evenly_after_a_small_burst() -> None:
    passed = await reserve_many(Throttle(Limits(requests_per_minute=60, minute=1.5)), 30)
    # 40 a second: however busy the machine is, none leaves before its time.
    assert all(passed[number] >= (number - 6) / 40 for number in range(30))
    assert passed[4] < passed[29] / 2


async def test_before_the_first_reply_only_a_handful_leave() -> None:
    throttle = Throttle(Limits())
    waiting = [asyncio.create_task(throttle.reserve(ASK, 10)) for _ in range(50)]
    await asyncio.sleep(0.03)
    assert sum(task.done() for task in waiting) == 4
    await asyncio.sleep(0.15)
    assert all(task.done() for task in waiting)


async def test_what_ends_the_run_ends_all_who_wait() -> None:
    throttle = Throttle(Limits())
    waiting = [asyncio.create_task(throttle.reserve(ASK, 10)) for _ in range(50)]
    await asyncio.sleep(0.03)
    throttle.failed(Unauthorised("the key is wrong", status=401))
    got = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(one, Unauthorised) for one in got) == 46
    assert throttle.spent.requests == 4
    with pytest.raises(Unauthorised, match="the key is wrong"):
        await throttle.reserve(ASK, 10)


async def test_a_429_holds_all_back() -> None:
    throttle = Throttle(Limits())
    ticket = await throttle.reserve(ASK, 10)
    throttle.rejected(ticket, RateLimited("slow down", retry_after=0.4), NOTHING)
    passed = await reserve_many(throttle, 10)
    assert min(passed) >= 0.4


async def test_a_cooldown_that_begins_meanwhile_holds_for_who_waits_already() -> None:
    throttle = Throttle(Limits(requests_per_minute=5, minute=0.5))
    tickets = [await throttle.reserve(ASK, 10) for _ in range(5)]
    waiting = asyncio.create_task(throttle.reserve(ASK, 10))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    throttle.rejected(tickets[0], RateLimited("slow down", retry_after=0.8), NOTHING)
    await waiting
    assert time.monotonic() - began >= 0.8


async def test_a_retry_goes_before_those_who_have_not_been_sent() -> None:
    throttle = Throttle(Limits(requests_per_minute=5, minute=0.5))
    for _ in range(5):
        throttle.answered(await throttle.reserve(ASK, 10), 1, 1, NOTHING)
    order: list[str] = []

    async def one(name: str, *, again: bool) -> None:
        await throttle.reserve(ASK, 10, again=again)
        order.append(name)

    tasks = [asyncio.create_task(one(f"new {n}", again=False)) for n in range(6)]
    await asyncio.sleep(0.02)
    tasks.append(asyncio.create_task(one("again", again=True)))
    await asyncio.gather(*tasks)
    assert order.index("again") <= 1


async def test_a_day_that_is_used_up_ends_the_wait() -> None:
    throttle = Throttle(Limits(requests_per_day=3))
    got = await asyncio.gather(
        *(throttle.reserve(ASK, 10) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(one, BudgetExhausted) for one in got) == 2


async def test_more_than_a_minutes_tokens_at_once_are_sent_in_the_end() -> None:
    throttle = Throttle(Limits(tokens_per_minute=100, minute=0.5))
    async with asyncio.timeout(5):
        for _ in range(3):
            ticket = await throttle.reserve(ASK, 5000)
            throttle.answered(ticket, 2, 30, NOTHING)


async def test_what_was_spent_is_counted() -> None:
    throttle = Throttle(Limits())
    await reserve_many(throttle, 3)
    throttle.failed(RateLimited("slow down"))
    assert throttle.spent.requests == 3
    assert (throttle.spent.prompt_tokens, throttle.spent.completion_tokens) == (6, 9)
    assert throttle.spent.failures == {"rate_limited": 1}
