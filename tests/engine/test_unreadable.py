"""Records that are whole, and whose values cannot be read any more: each is a miss."""

import asyncio
import dataclasses
import enum
import itertools
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from support.cancellable import ends

from cachedeval import Backend, EncodingError, Engine, Node, node, open_backend
from cachedeval.engine.maintenance import contents_of, lines_of, value_of, verify
from cachedeval.engine.record import pack, unpack
from cachedeval.engine.values import Unstored

pytestmark = pytest.mark.slow

NAME = "unreadable.step"


@pytest.fixture(params=["memory", "disk"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    url = "memory:" if request.param == "memory" else f"disk:{tmp_path / 'cache'}"
    backend = open_backend(url)
    yield backend
    backend.close()


def step(declared: Any, value: Callable[[int], Any]) -> Node[Any]:
    """Return the step as it is at some time: what it declares and returns."""

    def function(x: int) -> Any:
        return value(x)

    function.__annotations__["return"] = declared
    # A closure would be part of the key.
    function_ = _without_closure(function, value)
    return node(version="1", name=NAME)(function_)


def _without_closure(function: Any, value: Callable[[int], Any]) -> Any:
    functions[declared_key := f"f{len(functions)}"] = value
    space: dict[str, Any] = {"functions": functions, "__name__": __name__}
    exec(f"def step(x: int):\n    return functions[{declared_key!r}](x)", space)  # noqa: S102
    space["step"].__annotations__ = function.__annotations__
    return space["step"]


functions: dict[str, Callable[[int], Any]] = {}


@node(version="1", name="unreadable.source")
def source(x: int) -> int:
    return x


@node(version="1", name="unreadable.after")
def after(x: Any) -> str:
    return repr(x)


class OddError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("even its text cannot be read")


def raising(error: BaseException) -> Any:
    """Return a dataclass that refuses what is below 100, with this error."""

    def check(self: Any) -> None:
        if self.x < 100:
            raise error

    return dataclasses.make_dataclass("R", [("x", int)], namespace={"__post_init__": check})


@dataclasses.dataclass
class Plain:
    x: int


class Struct(msgspec.Struct):
    x: int


class Refusing(msgspec.Struct):
    x: int

    def __post_init__(self) -> None:
        assert self.x >= 100


class Pair(NamedTuple):
    a: int
    b: str


class Triple(NamedTuple):
    a: int
    b: str
    c: int


@dataclasses.dataclass
class Other:
    y: int


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Left(enum.Enum):
    BLUE = 2


class Picky(enum.Enum):
    BLUE = 2

    @classmethod
    def _missing_(cls, value: object) -> Any:
        raise LookupError(value)


ERRORS: list[BaseException] = [
    AssertionError("x must be above 100"),
    KeyError("x"),
    ValueError("x"),
    TypeError("x"),
    AttributeError("x"),
    RuntimeError("x"),
    OSError("x"),
    MemoryError(),
    RecursionError("x"),
    StopIteration(),
    EncodingError("x"),
    UnicodeDecodeError("utf-8", b"", 0, 1, "x"),
    OddError(),
]

Hundred: Any = raising(ERRORS[0])


def _above(declared: Any, x: int) -> Any:
    return declared(x + 100)


Change = tuple[Any, Callable[[int], Any], Any, Callable[[int], Any]]

CHANGES: dict[str, Change] = {
    **{
        f"it raises {type(error).__name__}": (
            Plain,
            Plain,
            (raised := raising(error)),
            partial(_above, raised),
        )
        for error in ERRORS
    },
    "inside a list": (
        list[Plain],
        lambda x: [Plain(x)],
        list[Hundred],
        lambda _: [],
    ),
    "in the canonical encoding": (
        dict[str, Any],
        lambda x: {"x": (x, 2**70)},
        Hundred,
        lambda _: Hundred(2**62),
    ),
    "a struct that asserts": (Struct, Struct, Refusing, lambda x: Refusing(x + 100)),
    "another set of fields": (Plain, Plain, Other, Other),
    "one more field": (Pair, lambda x: Pair(x, ""), Triple, lambda x: Triple(x, "", 0)),
    "a member that was removed": (Colour, lambda _: Colour.RED, Left, lambda _: Left.BLUE),
    "a member that is looked for": (Colour, lambda _: Colour.RED, Picky, lambda _: Picky.BLUE),
    "another type": (int, lambda x: x, str, str),
    "a set of dicts": (Any, lambda _: [{}], set[Any], lambda _: {1}),
}


def run_alone(engine: Engine, now: Node[Any]) -> Any:
    return engine.run(now(1))


def run_among_others(engine: Engine, now: Node[Any]) -> Any:
    return engine.run([source(1), now(1), source(2)])[1]


def run_twice_at_once(engine: Engine, now: Node[Any]) -> Any:
    async def both() -> tuple[Any, Any]:
        return await asyncio.gather(engine.arun(now(1)), engine.arun([now(1)]))

    one, [other] = asyncio.run(both())
    assert one == other
    return one


def run_with_outcomes(engine: Engine, now: Node[Any]) -> Any:
    return engine.run([now(1)], on_outcome=lambda outcome: outcome.value)[0]


def run_after_a_missing_step(engine: Engine, now: Node[Any]) -> Any:
    engine.forget([source(1)])
    return engine.run(now(source(1)))


def run_before_a_missing_step(engine: Engine, now: Node[Any]) -> Any:
    value = now.function(1)
    assert engine.run(after(now(1))) == repr(value)
    return engine.run(now(1))


def run_between(engine: Engine, now: Node[Any]) -> Any:
    engine.forget([source(1)])
    value = now.function(1)
    assert engine.run(after(now(source(1)))) == repr(value)
    return engine.run(now(source(1)))


WAYS = [
    run_alone,
    run_among_others,
    run_twice_at_once,
    run_with_outcomes,
    run_after_a_missing_step,
    run_before_a_missing_step,
    run_between,
]


def store(backend: Backend, then: Node[Any]) -> None:
    with Engine(backend) as engine:
        engine.run([then(1), then(source(1))])


@pytest.mark.parametrize(
    ("change", "way", "backend"),
    [
        *itertools.product(CHANGES, WAYS, ["memory"]),
        *itertools.product(CHANGES, [run_between], ["disk"]),
    ],
    indirect=["backend"],
)
def test_what_cannot_be_read_is_a_counted_miss(
    change: str, way: Any, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    declared, value, *new = CHANGES[change]
    store(backend, step(declared, value))
    now = step(*new)
    with Engine(backend) as engine:
        assert engine.plan([now(1)])[NAME].computed == 1
        assert engine.explain(now(1)).state == "changed"
        assert ends(lambda: way(engine, now)) == new[1](1)
        assert engine.stats[NAME].computed == 1
        assert engine.stats[NAME].failed == 0
        assert engine.store.counts.unreadable == 1
        assert engine.store.counts.corrupt == 0
        [told] = caplog.records
        assert told.levelno == logging.WARNING
        assert NAME in told.getMessage()
    with Engine(backend) as engine:
        assert ends(lambda: way(engine, now)) == new[1](1)
        assert engine.store.counts.unreadable == 0
        assert NAME not in engine.stats or engine.stats[NAME].computed == 0


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_is_no_exception_stops_no_thread_of_the_engine(
    error: BaseException, backend: Backend
) -> None:
    store(backend, step(Plain, Plain))
    refusing = raising(error)
    with Engine(backend) as engine:
        good = step(refusing, lambda x: refusing(x + 100))
        assert ends(lambda: run_after_a_missing_step(engine, good)) == refusing(101)
        never = step(refusing, lambda _: dataclasses.replace(Plain(5)))
        [outcome] = ends(lambda: engine.settle([never(7)]))
        assert isinstance(outcome.error, Exception)
        assert ends(lambda: engine.run(source(5))) == 5


def test_a_node_that_was_defined_again_reads_no_result_of_the_other(backend: Backend) -> None:
    one = step(Plain, Plain)
    with Engine(backend) as engine:
        assert engine.run(one(1)) == Plain(1)
        other = step(Other, Other)
        assert engine.run([other(1), other(source(1))]) == [Other(1), Other(1)]
        with pytest.raises(EncodingError, match="was defined again, with other source"):
            engine.run(one(1))


def test_a_record_that_cannot_be_read_can_be_forgotten(backend: Backend) -> None:
    store(backend, step(Plain, Plain))
    now = step(Other, Other)
    with Engine(backend) as engine:
        assert engine.forget([now(1)]) == 1
        assert engine.forget([now(1)]) == 0
        assert engine.explain(now(5)).state == "changed"


def test_a_record_that_cannot_be_read_was_not_used(backend: Backend) -> None:
    store(backend, step(Plain, Plain))
    with Engine(backend) as engine:
        engine.run(step(Other, Other)(1))
    assert sum(entry.hits for entry in backend.scan()) == 0


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = {"a": (value,)}
    return value


def at_depth(depth: int, work: Callable[[], Any]) -> Any:
    return work() if depth <= 0 else at_depth(depth - 1, work)


@pytest.mark.parametrize("value", [nested, deep])
@pytest.mark.parametrize("declared", [Any, object])
def test_a_deep_value_comes_back_wherever_it_is_asked_for(
    declared: Any, value: Callable[[int], Any], backend: Backend
) -> None:
    now = step(declared, value)
    for levels in (10, 100, 150, 200, 300, 400, 700):
        with Engine(backend) as engine:
            [outcome] = engine.settle([now(levels)])
            assert outcome.record is not None
            payload = outcome.record.payload
            storable = not isinstance(payload, Unstored)
            if isinstance(payload, Unstored):
                assert "nested too deeply" in payload.why
            assert storable or levels > 100
        for room in (400, 200, 100, 60):
            depth = sys.getrecursionlimit() - room - _frames()
            with Engine(backend) as engine:
                [outcome] = at_depth(depth, partial(engine.settle, [now(levels)]))
                assert (outcome.state == "hit") == storable
                if storable:
                    assert _levels(at_depth(depth, outcome.copy)) == levels
                assert engine.store.counts.unreadable == 0


def _frames() -> int:
    frame, count = sys._getframe(), 0
    while frame is not None:
        frame, count = frame.f_back, count + 1  # type: ignore[assignment]
    return count


def _levels(value: Any) -> int:
    for count in itertools.count():
        if value in ([], 0):
            return count
        value = value[0] if isinstance(value, list) else value["a"][0]
    raise AssertionError


FORGED = {
    "no format": b"",
    "an unknown format": b"x",
    "no value": b"m",
    "a deep list": b"m" + b"\x91" * 100_000,
    "a deep canonical list": b"c" + b"l\x01" * 100_000,
    "a deep canonical set": b"c" + b"S\x01" * 100_000,
    "a deep canonical dict": b"c" + b"d\x01" * 100_000,
    "a canonical dict as a key": b"cd\x01d\x00N",
    "many members": b"m\xdd\xff\xff\xff\xff",
    "many pairs": b"m\xdf\xff\xff\xff\xff",
    "many bytes": b"m\xc6\xff\xff\xff\xff",
    "many canonical members": b"cl" + b"\xff" * 9,
    "many canonical bytes": b"cb" + b"\xff" * 9,
    "no UTF-8": b"m\xa2\xc3\x28",
    "no canonical UTF-8": b"cs\x02\xc3\x28",
    "an extension": b"m\xc7\x03\x01abc",
    "a time that is none": b"m\xd7\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    "something behind it": b"m\x01\x01",
}

NOT_OF_A_NODE = {
    "700 classes": b"c" + b"cs\x01a\x01s\x01x" * 700 + b"N",
    "700 enums": b"c" + b"es\x01as\x01x" * 700 + b"N",
    "700 codecs": b"c" + b"xs\x11collections.dequel\x01" * 700 + b"N",
    "a codec that is not known": b"cxs\x03a.bN",
    "a codec with other data": b"cxs\x09uuid.UUIDN",
    "a codec of a package without codecs": b"cxs\x07torch.xN",
}
"""What can be shown as data, and is no value of any node."""

FORGED |= NOT_OF_A_NODE


@pytest.mark.parametrize("payload", FORGED.values(), ids=FORGED.keys())
@pytest.mark.parametrize("declared", [Any, int])
def test_a_forged_payload_is_a_miss_everywhere(
    declared: Any, payload: bytes, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    now = step(declared, lambda x: x)
    store(backend, now)
    for entry in backend.scan():
        record = unpack(backend.get_many([entry.key])[entry.key])
        forged = msgspec.structs.replace(record, payload=payload, notes=payload[1:])
        backend.put_many({entry.key: pack(forged)})
    with Engine(backend) as engine:
        assert len(lines_of(engine.store)) == contents_of(engine.store).records == 3
        assert len(verify(engine.store).corrupt) == 3
        for entry in backend.scan():
            shown = payload in NOT_OF_A_NODE.values()
            with suppress(EncodingError) if shown else pytest.raises(EncodingError):
                value_of(unpack(backend.get_many([entry.key])[entry.key]))
        assert engine.explain(now(2)).state == "changed"
        assert str(engine.explain(after(now(1))))
        assert engine.plan([after(now(source(1)))])[NAME].calls == 1
        for way in WAYS:
            assert ends(partial(way, engine, now)) == 1
        assert engine.stats[NAME].failed == 0
        assert len(caplog.records) == 1
