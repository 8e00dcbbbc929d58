import asyncio
import contextlib

import pytest
from support.faulty import FaultyBackend

from cachedeval.engine.claims import Claim, Claims
from cachedeval.engine.record import Record
from cachedeval.engine.store import Store
from cachedeval.engine.writer import Writer


def key(n: int) -> bytes:
    return n.to_bytes(16, "big")


def recipe(n: int) -> bytes:
    return f"recipe {n}".encode()


def record(n: int) -> Record:
    return Record(recipe(n), b"m\x01", "sha256:0", 1.0, 2.0)


async def claim(claims: Claims, n: int) -> Claim:
    return await claims.claim(key(n), recipe(n), lambda found: found.recipe == recipe(n))


async def test_what_is_there_is_answered_and_what_is_not_may_be_computed_in_one_look() -> None:
    backend = FaultyBackend()
    store = Store(backend)
    store.put_many({key(1): record(1)})
    claims = Claims(store)
    one, two, three = await asyncio.gather(*(claim(claims, n) for n in (1, 2, 3)))
    assert one == (record(1), None)
    assert two.record is three.record is None
    assert two.release is not None
    assert three.release is not None
    assert backend.counts["get"] == 1
    assert backend._leased == {key(2), key(3)}
    two.release()
    three.release()
    assert not backend._leased
    claims.close()


async def test_a_claim_that_is_given_up_is_given_back() -> None:
    backend = FaultyBackend()
    claims = Claims(Store(backend))
    task = asyncio.create_task(claim(claims, 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # by now it is asked for on the other thread
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await claims.drain()
    assert not backend._leased
    claims.close()


async def test_what_another_holds_is_waited_for() -> None:
    backend = FaultyBackend()
    store = Store(backend)
    claims = Claims(store)
    with backend.lease(key(1)) as mine, backend.lease(key(2)):
        assert mine
        tasks = [asyncio.create_task(claim(claims, n)) for n in (1, 2)]
        await asyncio.sleep(0.2)
        assert not any(task.done() for task in tasks)
        store.put_many({key(1): record(1)})
        assert (await asyncio.wait_for(tasks[0], 1)).record == record(1)
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
    await asyncio.wait_for(claims.drain(), 2)  # nothing is left that polls
    assert not backend._leased
    claims.close()


async def test_a_wait_without_end_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cachedeval.engine.claims._PATIENCE", 0.1)
    backend = FaultyBackend()
    store = Store(backend)
    claims = Claims(store)
    with backend.lease(key(1)), backend.lease(key(2)):
        tasks = [asyncio.create_task(claim(claims, n)) for n in (1, 2)]
        await asyncio.sleep(1.5)
        store.put_many({key(n): record(n) for n in (1, 2)})
        found = await asyncio.wait_for(asyncio.gather(*tasks), 2)
    assert [each.record for each in found] == [record(1), record(2)]
    (told,) = caplog.records
    assert "waiting for another process that computes 2 results" in told.getMessage()
    claims.close()


async def test_many_are_waited_for_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachedeval.engine.claims._AT_ONCE", 10)
    backend = FaultyBackend()
    store = Store(backend)
    claims = Claims(store)
    with contextlib.ExitStack() as held:
        for n in range(35):
            assert held.enter_context(backend.lease(key(n)))
        tasks = [asyncio.create_task(claim(claims, n)) for n in range(35)]
        await asyncio.sleep(0.1)
        backend.counts.clear()
        await asyncio.sleep(0.3)
        assert backend.counts["keys read"] <= 10 * backend.counts["get"]
        store.put_many({key(n): record(n) for n in range(35)})
        found = await asyncio.wait_for(asyncio.gather(*tasks), 2)
        assert [each.record for each in found] == [record(n) for n in range(35)]
    claims.close()


async def test_two_recipes_of_one_key_take_turns() -> None:
    backend = FaultyBackend()
    claims = Claims(Store(backend))

    async def own(n: int) -> Claim:
        return await claims.claim(key(0), recipe(n), lambda found: found.recipe == recipe(n))

    tasks = [asyncio.create_task(own(n)) for n in (1, 2)]
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert (len(done), len(waiting)) == (1, 1)
    release = done.pop().result().release
    assert release is not None
    release()
    release = (await asyncio.wait_for(waiting.pop(), 1)).release
    assert release is not None
    release()
    claims.close()


async def test_what_comes_during_a_commit_goes_with_the_next() -> None:
    backend = FaultyBackend()
    writer = Writer(Store(backend))
    first = writer.put(key(0), record(0))
    await first
    rest = [writer.put(key(n), record(n)) for n in range(1, 100)]
    await asyncio.gather(*rest)
    assert backend.counts["put"] <= 3
    assert len(list(backend.scan())) == 100
    writer.close()


async def test_drained_is_what_was_put_so_far() -> None:
    backend = FaultyBackend()
    writer = Writer(Store(backend))
    await writer.drain()
    writer.put(key(1), record(1))
    writer.put(key(2), record(2))
    await writer.drain()
    assert len(list(backend.scan())) == 2
    writer.close()


async def test_a_store_that_fails_lets_nobody_wait() -> None:
    backend = FaultyBackend()
    backend.broken = {"put"}
    writer = Writer(Store(backend))
    await asyncio.wait_for(writer.put(key(1), record(1)), 1)
    await asyncio.wait_for(writer.drain(), 1)
    writer.close()


async def test_only_so_many_rights_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachedeval.engine.claims._MOST_HELD", 10)
    backend = FaultyBackend()
    store = Store(backend)
    store.put_many({key(n): record(n) for n in range(0, 95, 5)})
    claims = Claims(store)
    most = 0

    async def compute(n: int) -> None:
        nonlocal most
        claimed = await claim(claims, n)
        assert (claimed.record is None) == (n % 5 > 0)
        if claimed.release is not None:
            most = max(most, len(backend._leased))
            await asyncio.sleep(0.01 + n % 3 * 0.01)
            claimed.release()

    await asyncio.wait_for(asyncio.gather(*(compute(n) for n in range(95))), 10)
    assert 5 <= most <= 10
    # They are not claimed one by one: at least half of what may be held at a time.
    assert backend.counts["get"] <= 2 * 95 / 10
    assert not backend._leased
    await claims.drain()
    claims.close()
