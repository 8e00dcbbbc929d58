import gc
import logging
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cachedeval import EncodingError, Engine, Resource, node
from cachedeval.engine.resource import Handle, ResourcePool


class Things:
    """Opens numbered things and notes what becomes of them."""

    def __init__(self) -> None:
        self.opened: list[Any] = []
        self.closed: list[Any] = []
        self.fail = 0
        self.wait = 0.0

    def resource(self, identity: Any, *, size: int = 10, label: str = "thing") -> Resource[str]:
        def open_() -> str:
            time.sleep(self.wait)
            if self.fail:
                self.fail -= 1
                raise OSError("not now")
            self.opened.append(identity)
            return f"{label} {identity}"

        return Resource(label, identity, open_, close=self.closed.append, size=lambda _: size)


@pytest.fixture
def things() -> Things:
    return Things()


def test_opened_once_shared_and_freed_when_asked(things: Things) -> None:
    pool = ResourcePool()
    for _ in range(2):
        # Two of one identity are one.
        with pool.hold(things.resource(1)) as one, pool.hold(things.resource(1)) as same:
            assert one == same == "thing 1"
            pool.cleanup()
            assert things.closed == []
    assert (things.opened, pool.loads) == ([1], 1)
    pool.cleanup()
    pool.cleanup()
    assert things.closed == ["thing 1"]
    with pool.hold(things.resource(1)):
        assert pool.loads == 2


def test_two_labels_of_one_identity_are_two(things: Things) -> None:
    pool = ResourcePool()
    model, tokenizer = (things.resource(1, label=label) for label in ("model", "tokenizer"))
    with pool.hold(model) as one, pool.hold(tokenizer) as other:
        assert (one, other) == ("model 1", "tokenizer 1")


def test_a_budget_frees_what_was_used_least_recently(things: Things) -> None:
    pool = ResourcePool(budget=25)
    for identity in (1, 2, 1, 3):
        with pool.hold(things.resource(identity)):
            pass
    assert things.closed == ["thing 2"]
    with pool.hold(things.resource(1)), pool.hold(things.resource(3)):
        with pool.hold(things.resource(4)):
            assert things.closed == ["thing 2"]  # what is held stays, whatever it takes
        assert things.closed == ["thing 2", "thing 4"]
    assert things.opened == [1, 2, 3, 4]


def test_what_is_larger_than_the_budget_is_freed_after_use(things: Things) -> None:
    pool = ResourcePool(budget=5)
    with pool.hold(things.resource(1)):
        assert things.closed == []
    assert things.closed == ["thing 1"]


def test_none_is_an_object_too() -> None:
    opened: list[int] = []
    resource: Resource[Any] = Resource("none", 1, lambda: opened.append(1))
    pool = ResourcePool()
    for _ in range(3):
        with pool.hold(resource) as value:
            assert value is None
    assert opened == [1]


def test_one_that_cannot_be_opened_is_tried_again(things: Things) -> None:
    things.fail = 1
    pool = ResourcePool()
    with pytest.raises(OSError, match="not now"), pool.hold(things.resource(1)):
        pass
    with pool.hold(things.resource(1)) as thing:
        assert thing == "thing 1"
    assert pool.loads == 1


def test_threads_that_want_one_open_it_once(things: Things) -> None:
    things.wait = 0.05
    pool = ResourcePool()

    def use(_: int) -> str:
        with pool.hold(things.resource(1)) as thing:
            return thing

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(use, range(16))) == {"thing 1"}
    assert (things.opened, pool.loads) == ([1], 1)


def test_threads_that_wait_share_the_failure(things: Things) -> None:
    things.wait, things.fail = 0.2, 1
    pool = ResourcePool()
    start = threading.Barrier(4)

    def use(_: int) -> str:
        start.wait()
        try:
            with pool.hold(things.resource(1)) as thing:
                return thing
        except OSError as error:
            return str(error)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(use, range(4))) == ["not now"] * 4
    assert use_alone(pool, things) == "thing 1"


def use_alone(pool: ResourcePool, things: Things) -> str:
    with pool.hold(things.resource(1)) as thing:
        return thing


def test_a_failing_close_is_reported_and_harmless(caplog: pytest.LogCaptureFixture) -> None:
    def close(_: int) -> None:
        raise OSError("stuck")

    pool = ResourcePool(budget=0)
    closed: list[int] = []
    bad = Resource("bad", 1, lambda: 1, close=close, size=lambda _: 1)
    good = Resource("good", 2, lambda: 2, close=closed.append, size=lambda _: 1)
    with caplog.at_level(logging.WARNING, "cachedeval"), pool.hold(bad), pool.hold(good):
        pass
    assert closed == [2]
    assert [record.getMessage() for record in caplog.records] == ["bad could not be closed"]


def test_memory_comes_back_even_from_cycles() -> None:
    class Model:
        def __init__(self) -> None:
            self.itself = self

    kept: list[weakref.ref[Model]] = []

    def open_() -> Model:
        model = Model()
        kept.append(weakref.ref(model))
        return model

    pool = ResourcePool()
    gc.disable()
    try:
        with pool.hold(Resource("model", 1, open_)):
            pass
        assert kept[0]() is not None
        pool.cleanup()
        assert kept[0]() is None
    finally:
        gc.enable()


def test_what_is_held_when_the_pool_closes_is_freed_later(things: Things) -> None:
    pool = ResourcePool()
    with pool.hold(things.resource(1)):
        pool.close()
        assert things.closed == []
    assert things.closed == ["thing 1"]


def test_an_identity_may_be_found_out_later() -> None:
    asked = []

    def identity() -> dict[str, int]:
        asked.append(1)
        return {"scale": 20}

    resource = Resource("model", identity, lambda: None)
    assert not asked
    assert resource.identified == Resource("model", {"scale": 20}, lambda: None).identified
    assert resource.identity == {"scale": 20}
    assert asked == [1]


def test_an_identity_is_plain_data() -> None:
    with pytest.raises(EncodingError):
        _ = Resource("model", object(), lambda: None).identified


@node(version="1")
def use(thing: Handle[str], x: int) -> str:
    with thing as opened, thing as again:
        assert opened is again
        return f"{opened} {x}"


@node(version="1")
async def use_async(thing: Handle[str], x: int) -> str:
    with thing as opened:
        return f"{opened} {x}"


def test_nothing_is_opened_for_a_hit(things: Things) -> None:
    from cachedeval_memory import MemoryBackend  # noqa: PLC0415

    backend = MemoryBackend()
    for _ in range(2):
        with Engine(backend) as engine:
            calls = [use(things.resource(1), n) for n in range(20)]
            assert engine.run(calls) == [f"thing 1 {n}" for n in range(20)]
            assert engine.run(use_async(things.resource(1), 1)) == "thing 1 1"
    assert things.opened == [1]
    assert things.closed == ["thing 1"]


def test_an_open_that_fails_fails_its_step_and_is_tried_next_time(things: Things) -> None:
    things.fail = 1
    with Engine() as engine:
        outcome = engine.settle([use(things.resource(1), 1)])[0]
        assert isinstance(outcome.error, OSError)
        assert engine.run(use(things.resource(1), 1)) == "thing 1 1"


def test_resources_inside_lists_and_dicts(things: Things) -> None:
    @node(version="1")
    def all_of(things: Any) -> list[str]:
        found = []
        for thing in (*things["a"], things["b"]):
            with thing as opened:
                found.append(opened)
        return found

    with Engine() as engine:
        one, two = things.resource(1), things.resource(2)
        assert engine.run(all_of({"a": [one], "b": two})) == ["thing 1", "thing 2"]
        engine.run(all_of({"a": [one], "b": one}))
        assert engine.stats[all_of.name].computed == 2
