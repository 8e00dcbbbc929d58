"""Keys and digests of fixed calls and values, by name; run as a program, prints them as JSON.

It runs under other Pythons than the tests' own, with nothing installed but what the engine needs.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import msgspec
import xxhash

from cachedeval.engine.encoding import encode
from cachedeval.engine.keys import key_of
from cachedeval.engine.node import Call, node, recipe_of
from cachedeval.engine.record import Record, pack, write_notes
from cachedeval.engine.resource import Resource
from cachedeval.engine.values import Codec, payload_digest


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Point:
    x: Any
    y: Any


class Pair(NamedTuple):
    x: Any
    y: Any


class Struct(msgspec.Struct, frozen=True):
    text: str
    scores: dict[str, float]


@node(version="1", name="golden.plain")
def plain(text: str, *, words: int = 5, options: dict[str, Any] | None = None) -> str:
    raise NotImplementedError


@node(version="2", name="golden.graph")
async def graph(model: Any, parts: list[Any], **rest: Any) -> int:
    raise NotImplementedError


@dataclass(frozen=True)
class Item:
    prompt: str
    seed: int | None = None


@node(version="3", name="golden.batch", batch=True)
def batch(items: Sequence[Item]) -> Iterator[tuple[int, str] | None]:
    raise NotImplementedError(items)
    yield None


def helper(x: int) -> int:
    return x + 1


@node(name="golden.source", helpers=[helper])
def by_source(xs: list[int], unit: str = "µs") -> list[str]:
    """Not part of it."""
    total = 0
    for x in xs:  # nor this
        if x not in (1, 2.5, None, ...):
            total += helper(x) ** 2
    return [f"{total!r:>10} {unit}", "ab", *map(lambda y: y + "x", unit), f"{1j}"]  # noqa: C417  syntax of many kinds


VALUES: dict[str, Any] = {
    "constants": [None, True, False],
    "ints": [0, 1, -1, 127, 128, -128, -129, 2**63, -(2**63) - 1, 10**40],
    "floats": [0.0, -0.0, 1.5, math.nan, math.inf, -math.inf, 5e-324],
    "strings": ["", "é", "e\u0301", "👩‍👩‍👧‍👦", "\ud83d", "x" * 300],
    "bytes": [b"", bytes(range(256))],
    "tuples": ((), ("a", "bc"), ("ab", "c")),
    "sets": [{3, 1, 2, "a", b"a", None}, frozenset({"b", "a", frozenset({1.0})})],
    "dicts": {"b": 1, "a": {2: [], "2": {}, (1, "x"): None}, None: "n", 1.5: 2},
    "classes": [Colour.RED, Point(1, [2]), Pair("x", {"y"}), Struct("t", {"b": 1.0, "a": 0.5})],
}


def calls() -> dict[str, Call[Any]]:
    model = Resource("model", {"files": {"w.safetensors": "xxh3:00"}, "scale": 20.0}, lambda: None)
    first = plain("hello", words=3)
    return {
        "plain": plain("hello"),
        "options": plain("hello", options={"z": 1, "a": [Colour.RED]}),
        "resource": graph(model, [], extra=1),
        "graph": graph(model, [first, {"deep": (first, "x")}]),
        "batch": batch(prompt="Who?"),
        "source": by_source([1, 2]),
    }


def golden() -> dict[str, str]:
    """Return what must never change, by name."""
    found = {f"value {name}": xxhash.xxh3_128_hexdigest(encode(v)) for name, v in VALUES.items()}
    for name, call in calls().items():
        recipe = recipe_of(call, lambda above: payload_digest(repr(above).encode()))
        found[f"key {name}"] = key_of(recipe).hex()
    for name, value in {**VALUES, "struct": Struct("t", {"b": 1.0, "a": 0.5})}.items():
        if name != "classes":
            declared = Struct if name == "struct" else Any
            found[f"output {name}"] = payload_digest(Codec(declared).dump(value))
    record = Record(
        b"recipe", b"payload", "sha256:0", 1.5, 0.25, {"tokens": 3.0}, write_notes({"b": 1, "a": 2})
    )
    found["record"] = pack(record).hex()
    return found


if __name__ == "__main__":
    print(json.dumps(golden(), indent=1))  # noqa: T201  what it is for
