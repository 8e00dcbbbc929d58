"""Steps that return calls: the calls run, and are cached in their own right."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cachedeval import Call, Computed, Engine, node

ran: list[str] = []


@node(version="1")
def double(x: int) -> int:
    ran.append(f"double {x}")
    return 2 * x


@node(version="1")
async def adouble(x: int) -> int:
    ran.append(f"adouble {x}")
    return 2 * x


@node(version="1")
def fail(x: int) -> int:
    raise ValueError(f"no {x}")


@node(version="1")
def plan(count: int) -> list[Call[int]]:
    ran.append(f"plan {count}")
    return [double(number) for number in range(count)]


@node(version="1")
async def aplan(count: int) -> list[int]:
    ran.append(f"aplan {count}")
    return [adouble(number) for number in range(count)]


@node(version="1")
def tree(depth: int) -> Any:
    ran.append(f"tree {depth}")
    return {"here": double(depth), "below": (tree(depth - 1), "leaf") if depth else None}


@node(version="1")
def total(numbers: list[int]) -> int:
    ran.append("total")
    return sum(numbers)


@node(version="1")
def failing(count: int) -> list[int]:
    return [double(0), fail(count)]


@node(version="1")
def itself(x: int) -> Any:
    return [itself(x)]


@node(version="1")
def wrong(count: int) -> list[str]:
    return [double(number) for number in range(count)]


@dataclass(frozen=True)
class Item:
    x: int


@node(version="1", batch=True)
def batched(items: Sequence[Item]) -> Iterator[tuple[int, Any]]:
    for at, _ in enumerate(items):
        yield at, [double(at)]


@pytest.fixture(params=["memory", "disk"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    ran.clear()
    return "memory:" if request.param == "memory" else f"disk:{tmp_path / 'cache'}"


def test_the_calls_run_and_are_cached_in_their_own_right(url: str) -> None:
    with Engine(url) as engine:
        assert engine.run(plan(3)) == [0, 2, 4]
        assert engine.run(double(2)) == 4
        assert ran == ["plan 3", "double 0", "double 1", "double 2"]
        ran.clear()
        assert engine.run(plan(4)) == [0, 2, 4, 6]
        assert ran == ["plan 4", "double 3"]
        ran.clear()
        assert engine.run(plan(4)) == [0, 2, 4, 6], "it runs again, and its calls are hits"
        assert ran == ["plan 4"]


def test_later_steps_are_stored_by_the_values(url: str) -> None:
    with Engine(url) as engine:
        for _ in range(2):
            assert engine.run(total(plan(3))) == 6
        assert ran.count("total") == 1
        assert ran.count("plan 3") == 2


def test_async_steps_return_calls_too(url: str) -> None:
    with Engine(url) as engine:
        for _ in range(2):
            assert engine.run([aplan(2), total(aplan(3))]) == [[0, 2], 6]
        assert ran.count("adouble 1") == 1


def test_calls_may_be_nested_and_return_calls(url: str) -> None:
    with Engine(url) as engine:
        below: Any = {"here": 0, "below": None}
        for depth in (1, 2):
            below = {"here": 2 * depth, "below": (below, "leaf")}
        assert engine.run(tree(2)) == below
        assert engine.stats[double.name].computed == 3


@node(version="1")
def priced(count: int) -> Computed[list[int]]:
    return Computed([double(number) for number in range(count)], cost={"usd": 1.5})


@node(version="1")
async def apriced(count: int) -> Computed[list[int]]:
    return Computed([double(number) for number in range(count)], cost={"usd": 2.5})


def test_the_cost_of_a_step_that_returns_calls_counts(url: str) -> None:
    with Engine(url) as engine:
        assert engine.run([priced(2), apriced(2)]) == [[0, 2], [0, 2]]
        assert engine.stats[priced.name].cost == {"usd": 1.5}
        assert engine.stats[apriced.name].cost == {"usd": 2.5}


def test_a_call_that_fails_fails_the_step(url: str) -> None:
    with Engine(url) as engine:
        with pytest.raises(ValueError, match="no 1") as caught:
            engine.run(failing(1))
        assert any("failing" in note for note in caught.value.__notes__)
        found = engine.run([failing(2), plan(1)], return_exceptions=True)
        assert isinstance(found[0], ValueError)
        assert found[1] == [0]


def test_a_step_that_returns_itself_is_an_error(url: str) -> None:
    with Engine(url) as engine, pytest.raises(Exception, match="itself"):
        engine.run(itself(1))


def test_a_batched_step_cannot_return_calls(url: str) -> None:
    with Engine(url) as engine, pytest.raises(Exception, match="is batched and returned calls"):
        engine.run(batched(1))


def test_many_at_once_and_without_a_cache(url: str) -> None:
    with Engine(url) as engine:
        counts = list(range(60))
        assert engine.run([plan(n) for n in counts]) == [[2 * x for x in range(n)] for n in counts]
        assert engine.stats[double.name].computed == 59
        assert engine.run(plan(2), mode="off") == [0, 2]
        assert engine.plan(plan(2))[plan.name].computed == 1
        assert "plan" in str(engine.explain(plan(2)))


def test_a_map_over_steps_that_return_calls(url: str) -> None:
    with Engine(url) as engine:
        assert list(engine.map(plan, range(4))) == [[], [0], [0, 2], [0, 2, 4]]
        assert list(engine.map(aplan, range(3))) == [[], [0], [0, 2]]


def test_values_of_another_type_than_declared_are_handed_on_with_a_warning(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Engine(url) as engine:
        found: Any = engine.run(wrong(2))
        assert found == [0, 2]
    assert "returned a value that cannot be stored" in caplog.text
