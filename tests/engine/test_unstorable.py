"""Outputs that cannot be stored: refused before the work where the type says so, else handed on."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from support.faulty import FaultyBackend

from cachedeval import Computed, EncodingError, Engine, Node, node
from cachedeval.engine.values import UNSTORED


class Custom:
    pass


class Pair(NamedTuple):
    x: int
    y: int


@dataclass
class Item:
    x: int


ran: list[str] = []


@node(version="1", name="unstorable.plain")
def plain(x: int) -> Any:
    ran.append("plain")
    return Custom() if x else 1


@node(version="1", name="unstorable.async")
async def in_a_loop(x: int) -> Any:
    ran.append("async")
    return Computed(Custom() if x else 1, cost={"usd": 1.0})


@node(version="1", name="unstorable.batch", batch=True)
def batched(items: Sequence[Item]) -> Iterator[tuple[int, Any]]:
    for index, item in enumerate(items):
        ran.append("batch")
        yield index, Custom() if item.x else 1


@node(version="1", name="unstorable.after")
def after(value: Any) -> str:
    ran.append("after")
    return type(value).__name__


@pytest.mark.parametrize("step", [plain, in_a_loop, batched])
def test_it_is_handed_on_and_computed_again(
    step: Node[Any], caplog: pytest.LogCaptureFixture
) -> None:
    backend = FaultyBackend()
    for stored in (True, False):
        ran.clear()
        with Engine(backend) as engine, caplog.at_level(logging.WARNING, "cachedeval"):
            calls = [step(1), step(2), step(0)]
            first, second, good = engine.run(calls)
            assert (type(first), type(second), good) == (Custom, Custom, 1)
            assert engine.stats[step.name].computed == 2 + stored
            assert len(ran) == 2 + stored
            [warned] = caplog.records
            text = warned.getMessage()
            assert text.startswith(f"{step.name} returned a value that cannot be stored")
            assert "a value of type Custom has no canonical encoding" in text
            assert engine.plan(calls)[step.name].hits == 1
        caplog.clear()
        assert len(list(backend.scan())) == 1


def test_later_steps_get_it_and_are_not_stored_either() -> None:
    backend = FaultyBackend()
    for _ in range(2):
        ran.clear()
        with Engine(backend) as engine:
            assert engine.run([after(plain(1)), after([plain(2)])]) == ["Custom", "list"]
            assert ran.count("plain") == ran.count("after") == 2
        assert list(backend.scan()) == []


def test_later_steps_of_one_that_has_an_encoding_are_stored() -> None:
    @node(version="1", name="unstorable.pair")
    def pair(x: int) -> Any:
        return Pair(x, x)

    backend = FaultyBackend()
    for computed in (1, 0):
        with Engine(backend) as engine:
            assert engine.run(after(pair(1))) == "Pair"
            assert engine.run(pair(1)) == Pair(1, 1)
            assert engine.stats[after.name].computed == computed


def test_one_that_is_not_what_the_step_declares_is_handed_on() -> None:
    @node(version="1", name="unstorable.wrong")
    def wrong(x: int) -> int:
        return str(x)  # type: ignore[return-value]

    with Engine() as engine:
        assert str(engine.run(wrong(1))) == "1"
        [outcome] = engine.settle([wrong(1)])
        assert (outcome.state, outcome.value) == ("computed", "1")


@pytest.mark.parametrize("mode", ["off", "refresh"])
def test_other_modes(mode: Any) -> None:
    with Engine(mode=mode) as engine:
        assert engine.run([after(plain(1)), after(plain(1))]) == ["Custom"] * 2


def test_two_steps_that_wait_for_one_get_the_same(caplog: pytest.LogCaptureFixture) -> None:
    with Engine() as engine:
        one, other = engine.run([plain(1), plain(1)])
    assert one is other
    assert len(caplog.records) == 1


def test_its_digest_is_of_this_process_alone() -> None:
    with Engine() as engine:
        outcomes = engine.settle([plain(1), plain(2)])
    digests = {outcome.digest for outcome in outcomes}
    assert len(digests) == 2
    assert all(digest.startswith(UNSTORED) for digest in digests)


@pytest.mark.parametrize(
    "declared",
    [
        *[Custom, list[Custom], Custom | None, dict[str, list[Custom]], Computed[Custom]],
        *[Callable[[int], int], type[int], Iterator[int]],
    ],
)
def test_a_declared_type_that_cannot_be_stored_is_refused_at_decoration(declared: Any) -> None:
    def function(x: int) -> Any:
        raise AssertionError(x)

    function.__annotations__["return"] = declared
    with pytest.raises(EncodingError, match=r"test_unstorable.*returns what cannot be stored"):
        node(version="1")(function)


def test_a_batched_node_that_declares_one_is_refused() -> None:
    with pytest.raises(EncodingError, match="Custom cannot be stored"):

        @node(version="1", batch=True)
        def _(_: Sequence[Item]) -> Iterator[tuple[int, Custom]]:
            yield 0, Custom()


def test_a_type_that_is_defined_later_is_no_fault() -> None:
    @node(version="1", name="unstorable.later")
    def step(x: int) -> "Later":
        return Item(x)

    globals()["Later"] = Item
    with Engine() as engine:
        assert engine.run(step(1)) == Item(1)


if TYPE_CHECKING:
    Later = Item
