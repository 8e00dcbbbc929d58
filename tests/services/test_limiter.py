"""The rate limiter on a real clock, in one event loop and in several."""

import asyncio
import itertools
import random
import threading
import time
from collections import Counter

import pytest

from cachedeval import Engine, node
from cachedeval.services.client import CircuitBreaker
from cachedeval.services.errors import AuthenticationError, QuotaExhaustedError, ServiceError
from cachedeval.services.limiter import RateLimiter, Reservation
from cachedeval.services.limits import Limits


async def reserve_many(limiter: RateLimiter, count: int) -> list[float]:
    """When each was let through, in seconds from the start."""
    began = time.monotonic()
    passed: list[float] = []

    async def one() -> None:
        reservation = await limiter.reserve(tokens=12)
        passed.append(time.monotonic() - began)
        reservation.settle(5)

    await asyncio.gather(*(one() for _ in range(count)))
    return passed


async def test_without_limits_nothing_waits() -> None:
    limiter = RateLimiter(Limits())
    async with asyncio.timeout(20):
        await reserve_many(limiter, 500)
    assert limiter.pacer.sent == 500


async def test_requests_leave_evenly_after_a_small_burst() -> None:
    passed = await reserve_many(RateLimiter(Limits(requests_per_minute=60, minute=1.5)), 30)
    gaps = [later - sooner for sooner, later in itertools.pairwise(passed[5:])]
    assert passed[29] - passed[4] >= 0.6  # 25 of 60 in 1.5 s; no more is asked of a busy machine
    assert min(gaps) >= 0.0


async def test_before_the_first_reply_only_a_handful_leave() -> None:
    limiter = RateLimiter(Limits())
    waiting = [asyncio.create_task(limiter.reserve()) for _ in range(50)]
    while limiter.pacer.sent < 4:  # noqa: ASYNC110  nothing tells of it
        await asyncio.sleep(0)
    assert sum(task.done() for task in waiting) <= 4
    await asyncio.gather(*waiting)


async def test_a_fatal_error_ends_all_waiters() -> None:
    limiter, breaker = RateLimiter(Limits(requests_per_minute=4, minute=60)), CircuitBreaker()
    waiting = [asyncio.create_task(limiter.reserve(check=breaker.check)) for _ in range(50)]
    while limiter.pacer.sent < 4:  # noqa: ASYNC110  nothing tells of it
        await asyncio.sleep(0.01)
    breaker.attempt_failed(AuthenticationError("the key is wrong", status=401))
    limiter.wake()
    async with asyncio.timeout(10):
        got = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(one, AuthenticationError) for one in got) == 46
    with pytest.raises(AuthenticationError, match="the key is wrong"):
        await limiter.reserve(check=breaker.check)


async def test_a_429_holds_all_back() -> None:
    limiter = RateLimiter(Limits())
    reservation = await limiter.reserve()
    began = time.monotonic()
    reservation.reject(retry_after=0.4)
    await reserve_many(limiter, 10)
    assert time.monotonic() - began >= 0.4


async def test_a_cooldown_applies_to_calls_that_already_wait() -> None:
    limiter = RateLimiter(Limits(requests_per_minute=5, minute=0.5))
    sent = [await limiter.reserve() for _ in range(5)]
    waiting = asyncio.create_task(limiter.reserve())
    await asyncio.sleep(0.05)
    began = time.monotonic()
    sent[0].reject(retry_after=0.8)
    await waiting
    assert time.monotonic() - began >= 0.8


async def test_a_retry_precedes_unsent_requests() -> None:
    limiter = RateLimiter(Limits(requests_per_minute=5, minute=0.5))
    for _ in range(5):
        (await limiter.reserve()).settle(2)
    order: list[str] = []

    async def one(name: str, *, retry: bool) -> None:
        await limiter.reserve(retry=retry)
        order.append(name)

    tasks = [asyncio.create_task(one(f"new {n}", retry=False)) for n in range(6)]
    await asyncio.sleep(0.02)
    tasks.append(asyncio.create_task(one("retry", retry=True)))
    await asyncio.gather(*tasks)
    assert order.index("retry") <= 1


async def test_a_day_that_is_used_up_ends_the_wait() -> None:
    limiter = RateLimiter(Limits(requests_per_day=3))
    got = await asyncio.gather(*(limiter.reserve() for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(one, QuotaExhaustedError) for one in got) == 2


async def test_more_than_a_minutes_tokens_at_once_are_sent_in_the_end() -> None:
    limiter = RateLimiter(Limits(tokens_per_minute=100, minute=0.5))
    async with asyncio.timeout(20):
        for _ in range(3):
            (await limiter.reserve(tokens=5000)).settle(32)


async def test_a_cancelled_waiter_blocks_no_other() -> None:
    limiter = RateLimiter(Limits(requests_per_minute=20, minute=1.0))
    tasks = [asyncio.create_task(limiter.reserve()) for _ in range(12)]
    await asyncio.sleep(0.02)
    for task in tasks[5:9]:
        task.cancel()
    async with asyncio.timeout(20):
        await asyncio.gather(*tasks, return_exceptions=True)
    assert limiter.pacer.sent == 12 - sum(task.cancelled() for task in tasks)
    assert not limiter._queue


async def test_acquiring_bounds_the_calls_at_once_and_gives_the_place_back() -> None:
    limiter = RateLimiter(Limits(max_concurrency=2))
    at_once, most = 0, 0

    async def call(number: int) -> None:
        nonlocal at_once, most
        async with limiter.acquire(requests=1, tokens=10) as reservation:
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.001)
            at_once -= 1
            if number % 3 == 0:
                raise ServiceError("it failed")
            reservation.settle(tokens=3)

    got = await asyncio.gather(*(call(n) for n in range(20)), return_exceptions=True)
    assert most == 2
    assert sum(isinstance(one, ServiceError) for one in got) == 7
    assert limiter.slots.in_use == 0


async def test_several_requests_of_one_reservation_count_as_such() -> None:
    limiter = RateLimiter(Limits(requests_per_day=10))
    await limiter.reserve(requests=10)
    with pytest.raises(QuotaExhaustedError):
        await limiter.reserve()


def test_event_loops_of_several_threads_share_one_limiter() -> None:
    limits = Limits(requests_per_minute=240, minute=1.0, max_concurrency=5)
    limiter = RateLimiter(limits)
    lock = threading.Lock()
    at_once, most, sent = 0, 0, list[float]()

    async def call() -> None:
        nonlocal at_once, most
        async with limiter.acquire(tokens=5) as reservation:
            with lock:
                at_once += 1
                most = max(most, at_once)
                sent.append(time.monotonic())
            await asyncio.sleep(0.002)
            with lock:
                at_once -= 1
            reservation.settle(tokens=3)

    async def calls() -> None:
        async with asyncio.timeout(60):
            await asyncio.gather(*(call() for _ in range(60)))

    threads = [threading.Thread(target=asyncio.run, args=(calls(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sent) == 240
    assert most <= 5
    assert limiter.slots.in_use == 0
    assert not limiter._queue
    sent.sort()
    for index, at in enumerate(sent):
        within = sum(1 for other in sent[: index + 1] if other > at - limits.minute)
        assert within <= 240


def test_a_closed_event_loop_blocks_no_other_waiter() -> None:
    limiter = RateLimiter(Limits(requests_per_minute=4, minute=0.4))

    async def left() -> None:
        tasks = [asyncio.create_task(limiter.reserve()) for _ in range(30)]
        await asyncio.sleep(0.05)
        del tasks  # `asyncio.run` cancels them

    async def after() -> Reservation:
        async with asyncio.timeout(30):
            return await limiter.reserve()

    asyncio.run(left())
    assert asyncio.run(after()).tokens == 0
    assert not limiter._queue


@pytest.mark.parametrize("seed", range(6))
def test_cancellations_in_several_loops_leak_nothing(seed: int) -> None:
    limiter = RateLimiter(Limits(requests_per_minute=2000, minute=1.0, max_concurrency=4))
    passed: Counter[str] = Counter()

    async def call(dice: random.Random) -> None:
        async with limiter.acquire(tokens=dice.randrange(50)) as reservation:
            await asyncio.sleep(dice.random() / 500)
            match dice.randrange(4):
                case 0:
                    reservation.settle(tokens=3)
                case 1:
                    reservation.reject(retry_after=0.001)
                case 2:
                    raise ServiceError("it failed")
        passed["calls"] += 1

    async def calls(number: int) -> None:
        dice = random.Random(seed * 10 + number)
        tasks = [asyncio.create_task(call(dice)) for _ in range(80)]
        for task in dice.sample(tasks, 40):
            await asyncio.sleep(dice.random() / 300)
            task.cancel()
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks, return_exceptions=True)

    threads = [threading.Thread(target=asyncio.run, args=(calls(n),)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert passed["calls"] > 0
    assert limiter.slots.in_use == 0
    assert not limiter.slots._waiting
    assert not limiter._queue
    asyncio.run(asyncio.wait_for(limiter.reserve(), 30))  # and the next one passes


SHARED = RateLimiter(Limits(max_concurrency=3))
AT_ONCE: list[int] = []


@node(version="1", name="limited")
async def limited(number: int) -> int:
    async with SHARED.acquire(tokens=10) as reservation:
        AT_ONCE.append(SHARED.slots.in_use)
        await asyncio.sleep(0.002)
        reservation.settle(tokens=2)
    return number


def test_steps_of_two_engines_share_one_limiter() -> None:
    def run(start: int, found: list[int]) -> None:
        with Engine("memory:") as engine:
            found += engine.run([limited(n) for n in range(start, start + 30)])

    found: list[list[int]] = [[], []]
    threads = [
        threading.Thread(target=run, args=(100 * index, one)) for index, one in enumerate(found)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [list(range(30)), list(range(100, 130))]
    assert max(AT_ONCE) <= 3
    assert SHARED.slots.in_use == 0
    assert SHARED.pacer.sent == 60
