"""A call has no value before it runs: what needs one is an error that says so."""

import asyncio
import copy
import inspect
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any
from unittest.mock import ANY

import msgspec
import pytest

from cachedeval import Call, Computed, Engine, node


@node(version="1", name="double")
def double(x: int) -> int:
    """Twice."""
    return 2 * x


@dataclass
class Point:
    x: int


class Held(msgspec.Struct):
    x: int


class Colour(Enum):
    RED = 1


def unpack(call: Any) -> None:
    _, *_ = call


def assign(call: Any) -> None:
    call[0] = 1


def delete(call: Any) -> None:
    del call[0]


def enter(call: Any) -> None:
    with call:
        pass


USES: dict[str, Callable[[Any], Any]] = {
    "add": lambda c: c + 1,
    "radd": lambda c: 1 + c,
    "concatenate": lambda c: "a" + c,
    "sum": lambda c: sum([c, c]),
    "mul": lambda c: c * 2,
    "rmul": lambda c: "a" * c,
    "neg": lambda c: -c,
    "or": lambda c: c | {},
    "in place": lambda c: operator.iadd(c, 1),  # type: ignore[no-untyped-call]
    "if": lambda c: 1 if c else 2,
    "not": lambda c: not c,
    "or default": lambda c: c or 1,
    "any": lambda c: any([c]),
    "for": lambda c: [1 for _ in c],
    "star": lambda c: [*c],
    "unpack": unpack,
    "dict": dict,
    "reversed": lambda c: list(reversed(c)),
    "in": lambda c: 3 in c,
    "index": lambda c: c[0],
    "slice": lambda c: c[1:],
    "assign": assign,
    "delete": delete,
    "len": len,
    "equal": lambda c: c == 3,
    "equal to None": lambda c: c == None,  # noqa: E711
    "equal to a point": lambda c: c == Point(1),
    "equal to a struct": lambda c: c == Held(1),
    "equal to an enum": lambda c: c == Colour.RED,
    "reflected": lambda c: c == [1],
    "unequal": lambda c: c != "x",
    "in a list": lambda c: c in [1, 2],
    "less": lambda c: c < 3,
    "sorted": lambda c: sorted([c, c]),
    "max": lambda c: max(c, 1),
    "f-string": lambda c: f"Summarise {c}",
    "format": "{:>5}".format,
    "int": int,
    "float": float,
    "round": round,
    "floor": math.floor,
    "range": range,
    "bytes": bytes,
    "with": enter,
}


@pytest.mark.parametrize("use", USES)
def test_what_needs_a_value_says_how_to_get_it(use: str) -> None:
    with pytest.raises(TypeError, match=r"<call of double> has no value .*engine\.run\(call\)"):
        USES[use](double(3))


def test_awaiting_a_call_says_how_to_await_a_run() -> None:
    async def wait() -> None:
        await double(3)

    async def loop() -> None:
        async for _ in double(3):
            pass

    async def gather() -> None:
        await asyncio.gather(double(3))

    for use in (wait, loop, gather):
        with pytest.raises(TypeError, match=r"await engine\.arun\(call\)"):
            asyncio.run(use())


def test_a_value_s_attribute_is_named() -> None:
    with pytest.raises(AttributeError, match=r"no 'upper': .* engine\.run\(call\)\.upper"):
        double(3).upper()
    assert not hasattr(double(3), "shape")
    assert not hasattr(double(3), "_repr_html_")
    assert not hasattr(double(3), "__array__")


def test_calls_can_still_be_held_compared_and_shown() -> None:
    one, other = double(3), double(3)
    assert one == one  # noqa: PLR0124
    assert one != other
    assert one is not None
    assert one in [other, one]
    assert [other, one].index(one) == 1
    assert {one: 1, other: 2}[other] == 2
    assert len({one, other, one}) == 2
    assert repr(one) == str(one) == f"{one!r}" == "<call of double>"
    assert copy.copy(one).inputs == copy.deepcopy(one).inputs == {"x": 3}
    assert one == ANY
    assert one != object()
    assert isinstance(one, Call)
    assert not inspect.iscoroutine(one)
    assert not callable(one)


def test_node_call_is_the_plain_function() -> None:
    @node(version="1")
    async def later(x: int) -> Computed[int]:
        return Computed(x + 1)

    assert double.call(4) == double.call(x=4) == 8
    computed = asyncio.run(later.call(1))
    assert isinstance(computed, Computed)
    assert computed.value == 2
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        double.call()  # type: ignore[call-arg]


def test_a_call_of_the_plain_function_stores_nothing() -> None:
    with Engine() as engine:
        assert double.call(7) == 14
        assert not engine.stats
        assert engine.plan(double(7))["double"].computed == 1
