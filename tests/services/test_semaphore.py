import asyncio

import pytest

from cachedeval.services.limiter import AdaptiveSemaphore


async def hold(
    slots: AdaptiveSemaphore, entered: list[int], number: int, go: asyncio.Event
) -> None:
    async with slots:
        entered.append(number)
        await go.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_no_more_than_the_most_and_in_order() -> None:
    slots, entered, go = AdaptiveSemaphore(2), list[int](), asyncio.Event()
    tasks = [asyncio.create_task(hold(slots, entered, n, go)) for n in range(5)]
    await settle()
    assert entered == [0, 1]
    go.set()
    await asyncio.gather(*tasks)
    assert entered == [0, 1, 2, 3, 4]
    assert slots.in_use == 0


async def test_shrinks_by_a_quarter_and_grows_by_one() -> None:
    slots, entered, go = AdaptiveSemaphore(8), list[int](), asyncio.Event()
    tasks = [asyncio.create_task(hold(slots, entered, n, go)) for n in range(8)]
    await settle()
    slots.shrink()
    assert slots.limit == 6
    slots.grow()
    assert slots.limit == 7
    for _ in range(10):
        slots.grow()
    assert slots.limit == 8
    for _ in range(40):
        slots.shrink()
    assert slots.limit == 1
    go.set()
    await asyncio.gather(*tasks)


async def test_holders_keep_their_slot_when_the_limit_shrinks() -> None:
    slots, entered = AdaptiveSemaphore(4), list[int]()
    gates = [asyncio.Event() for _ in range(6)]
    tasks = [asyncio.create_task(hold(slots, entered, n, gates[n])) for n in range(6)]
    await settle()
    slots.shrink()  # to three
    gates[0].set()
    await settle()
    assert entered == [0, 1, 2, 3]
    gates[1].set()
    await settle()
    assert entered == [0, 1, 2, 3, 4]
    for gate in gates:
        gate.set()
    await asyncio.gather(*tasks)


async def test_a_waiter_that_is_cancelled_takes_no_place_along() -> None:
    slots, entered, go = AdaptiveSemaphore(1), list[int](), asyncio.Event()
    tasks = [asyncio.create_task(hold(slots, entered, n, go)) for n in range(3)]
    await settle()
    tasks[1].cancel()  # while it waits
    await settle()
    go.set()
    tasks[0].cancel()
    await settle()
    for task in tasks[:2]:
        with pytest.raises(asyncio.CancelledError):
            await task
    await tasks[2]
    assert slots.in_use == 0


async def test_a_waiter_that_is_cancelled_as_it_gets_a_place_gives_it_on() -> None:
    slots, entered, go = AdaptiveSemaphore(1), list[int](), asyncio.Event()
    first = asyncio.create_task(hold(slots, entered, 0, go))
    second = asyncio.create_task(hold(slots, entered, 1, go))
    third = asyncio.create_task(hold(slots, entered, 2, go))
    await settle()
    go.set()
    while slots._waiting:  # until the second has been given the place
        if len(slots._waiting) < 2:
            second.cancel()
            break
        await asyncio.sleep(0)
    await asyncio.gather(first, second, third, return_exceptions=True)
    assert 2 in entered
    assert slots.in_use == 0
