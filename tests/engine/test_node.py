import functools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from support.faulty import FaultyBackend

from cachedeval import Computed, EncodingError, Engine, InputError, Node, Resource, node


@node(version="1")
def double(x: int) -> int:
    """Twice."""
    return x * 2


def test_a_call_runs_nothing_and_a_node_keeps_its_papers() -> None:
    call = double(3)
    assert repr(call) == "<call of tests.engine.test_node.double>"
    assert (double.__name__, double.__doc__) == ("double", "Twice.")
    assert repr(double) == "<node tests.engine.test_node.double 1>"
    assert double.function(3) == 6


@pytest.mark.parametrize("make", [node, node(version="1"), node(name="x")])
def test_a_lambda_is_refused(make: Any) -> None:
    with pytest.raises(InputError, match="a lambda has no name"):
        make(lambda x: x)


@pytest.mark.parametrize("what", [len, functools.partial(print), int, object(), print])
def test_what_is_no_function_is_refused(what: Any) -> None:
    with pytest.raises(InputError, match="a node is made of a function"):
        node(version="1")(what)


def test_a_version_is_a_string() -> None:
    with pytest.raises(InputError, match="a version is a string"):
        Node(double.function, version=1)  # type: ignore[arg-type]


def test_a_batched_node_is_not_async() -> None:
    async def f(batch: list[Any]) -> None: ...

    with pytest.raises(InputError, match="not async"):
        Node(f, version="1", batch=True)


def test_an_async_step_has_no_executor() -> None:
    async def f(x: int) -> int:
        return x

    with pytest.raises(InputError, match="takes no executor"):
        node(version="1", executor="mlx")(f)


def test_without_source_there_must_be_a_version() -> None:
    made: dict[str, Any] = {}
    exec("def f(x): return x", made)  # noqa: S102  that is the case
    with pytest.raises(InputError, match=r"give the node one, @node\(version="):
        node(made["f"])
    with Engine() as engine:
        assert engine.run(node(version="1")(made["f"])(1)) == 1


def make(factor: int, **options: Any) -> Node[int]:
    """Make nodes of one name."""
    sources = {
        1: "def f(x): return x * 1",
        2: "def f(x): return x * 2",
    }
    made: dict[str, Any] = {"__name__": "made"}
    exec(sources[factor], made)  # noqa: S102
    return Node(made["f"], **options)


def test_a_version_redefined_under_one_name_hits_and_warns_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Engine() as engine, caplog.at_level(logging.WARNING, "cachedeval"):
        assert engine.run([make(1, version="1")(n) for n in range(3)]) == [0, 1, 2]
        assert not caplog.records
        assert engine.run([make(2, version="1")(n) for n in range(3)]) == [0, 1, 2]
        assert engine.run(make(2, version="2")(1)) == 2
    assert len(caplog.records) == 1
    assert "the source of made.f has changed since results of its version '1'" in caplog.text


def test_without_a_version_redefined_under_one_name_misses() -> None:
    def first() -> Node[int]:
        @node(name="same")
        def f(x: int) -> int:
            return x * 1

        return f

    def second() -> Node[int]:
        @node(name="same")
        def f(x: int) -> int:
            return x * 2

        return f

    with Engine() as engine:
        assert engine.run([first()(1), second()(1), first()(1)]) == [1, 2, 1]
        assert engine.stats["same"].computed == 2


def test_names_versions_and_inputs_part_keys() -> None:
    backend = FaultyBackend()

    def f(x: Any, y: Any = 0) -> list[Any]:
        return [x, y]

    nodes = [node(version=v, name=n)(f) for v in ("1", "2") for n in ("a", "b")]
    with Engine(backend) as engine:
        for n in nodes:
            engine.run([n(1), n(1, 0), n(x=1), n(1, y=1), n(1.0), n("1"), n(True), n((1,)), n([1])])
        assert {s.computed for s in engine.stats.values()} == {14}


@node(version="1")
def anything(first: Any, /, *args: Any, key: Any = None, **kwargs: Any) -> list[Any]:
    return [first, list(args), key, kwargs]


def test_variadic_nodes() -> None:
    with Engine() as engine:
        assert engine.run(anything(1)) == [1, [], None, {}]
        assert engine.run(anything(1, 2, double(2), key=3, z=double(4))) == [1, [2, 4], 3, {"z": 8}]
        assert engine.run(anything(1, first=2)) == [1, [], None, {"first": 2}]
        assert engine.stats[anything.name].computed == 3
        engine.run(anything(1, 2, 4, key=3, z=8))
        # What is computed is known by its output's digest, a literal by itself.
        assert engine.stats[anything.name].computed == 4


@node(version="1")
async def asynchronous(x: int, *, y: int = 2) -> int:
    return x * y


def test_async_nodes() -> None:
    with Engine() as engine:
        assert engine.run(asynchronous(double(3))) == 12


@dataclass
class Point:
    x: int
    y: int = 0


class Verdict(msgspec.Struct):
    score: float


def test_declared_outputs() -> None:
    @node(version="1")
    def point(x: int) -> Point:
        return Point(x)

    @node(version="1")
    def verdict(of: Point) -> Computed[Verdict]:
        assert type(of) is Point
        return Computed(Verdict(of.x / 2), cost={"usd": 0.5}, provenance={"model": "m"})

    @node(version="1")
    def pair(of: Verdict) -> tuple[str, set[int]]:
        assert type(of) is Verdict
        return "x", {1}

    with Engine() as engine:
        for state in ("computed", "hit"):
            outcomes = engine.settle([verdict(point(3)), pair(verdict(point(3)))])
            assert [o.value for o in outcomes] == [Verdict(1.5), ("x", {1})]
            assert outcomes[0].state == state
            record = outcomes[0].record
            assert record is not None
            assert record.cost == {"usd": 0.5}
            assert record.provenance["model"] == "m"


def test_dataclass_inputs() -> None:
    @node(version="1")
    def norm(p: Point) -> int:
        return p.x + p.y

    with Engine() as engine:
        assert engine.run([norm(Point(1, 2)), norm(Point(1, 2)), norm(Point(2, 1))]) == [3, 3, 3]
        assert engine.stats[norm.name].computed == 2


@pytest.mark.parametrize("provenance", [{"x": object()}, {1: 2}])
def test_provenance_that_cannot_be_stored_fails_its_call_alone(provenance: Any) -> None:
    @node(version="1", name="unstorable")
    def unstorable(good: bool) -> Any:  # noqa: FBT001
        return 1 if good else Computed(1, provenance=provenances[0])

    provenances = [provenance]
    values_node: Node[Any] = Node(unstorable.function, version="1", name="unstorable")
    backend = FaultyBackend()
    with Engine(backend) as engine:
        outcomes = engine.settle([values_node(True), values_node(False)])
    assert [o.state for o in outcomes] == ["computed", "failed"]
    assert isinstance(outcomes[1].error, EncodingError)
    assert "cost or provenance is not plain data" in str(outcomes[1].error)
    assert len(list(backend.scan())) == 1


@pytest.mark.parametrize("cost", [{"usd": "much"}, {"usd": None}])
def test_a_cost_is_a_number(cost: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        Computed(1, cost=cost)


def test_an_input_that_cannot_be_encoded_fails_its_call_alone() -> None:
    with Engine() as engine:
        outcomes = engine.settle([double(print), double(1), anything(double(object()))])  # type: ignore[arg-type]
        assert [o.state for o in outcomes] == ["failed", "computed", "failed"]
        assert "input 'x': a builtin_function_or_method is code" in str(outcomes[0].error)
        assert outcomes[2].error is not None


def test_calls_and_resources_where_they_are_not_looked_for() -> None:
    @node(version="1")
    def f(x: Any) -> Any:
        return x

    resource = Resource("r", 1, lambda: 1)
    with Engine() as engine:
        for inside in ({double(1)}, Point(double(1)), {resource}, Point(resource)):  # type: ignore[arg-type]
            with pytest.raises(EncodingError, match="inside lists, tuples and dicts"):
                engine.run(f(inside))


def test_an_input_that_contains_itself() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(EncodingError, match="contains itself"):
        double(loop)  # type: ignore[arg-type]


def test_nested_inputs() -> None:
    @node(version="1")
    def total(parts: Any) -> int:
        a, (b, c) = parts["a"], parts["rest"]
        return int(a[0] + b + c)

    with Engine() as engine:
        assert engine.run(total({"a": [double(1)], "rest": (double(2), 3)})) == 9


def test_a_step_gets_copies() -> None:
    @node(version="1")
    def grow(xs: list[int], table: dict[str, list[int]], some: set[int]) -> int:
        xs.append(0)
        table["x"].append(0)
        some.clear()
        return len(xs)

    xs, table, some = [1], {"x": [1]}, {1}
    with Engine() as engine:
        assert engine.run([grow(xs, table, some), grow([1], {"x": [1]}, {1})]) == [2, 2]
        assert (xs, table, some) == ([1], {"x": [1]}, {1})
        assert engine.run(grow(xs, table, some)) == 2
        assert engine.stats[grow.name].computed == 1


def test_a_step_cannot_change_what_its_neighbours_get() -> None:
    @node(version="1")
    def source() -> list[int]:
        return [1]

    @node(version="1")
    def spoil(xs: list[int], by: int) -> list[int]:
        xs.append(by)
        return xs

    with Engine() as engine:
        assert engine.run([spoil(source(), 2), spoil(source(), 3)]) == [[1, 2], [1, 3]]
        assert engine.run(source()) == [1]


def test_a_step_that_mutates_an_input_is_not_stored(caplog: pytest.LogCaptureFixture) -> None:
    @node(version="1")
    def move(p: Point) -> int:
        p.x += 1
        return p.x

    backend = FaultyBackend()
    with Engine(backend) as engine, caplog.at_level(logging.WARNING, "cachedeval"):
        assert engine.run(move(Point(1))) == 2
    assert not list(backend.scan())
    assert "move(p=Point(x=2, y=0)) is not stored: p / x changed while it ran" in caplog.text


def test_an_input_that_changes_between_call_and_run_counts_as_it_is_then() -> None:
    xs = [1]

    @node(version="1")
    def total(xs: list[int]) -> int:
        return sum(xs)

    call = total(xs)
    xs.append(2)
    with Engine() as engine:
        assert engine.run([call, total([1, 2]), total([1])]) == [3, 3, 1]
        assert engine.stats[total.name].computed == 2


def test_a_declared_type_that_changes_under_one_version_is_a_miss() -> None:
    def one(x: int) -> Any:
        return x

    def other(x: int) -> Point:
        return Point(x)

    with Engine() as engine:
        assert engine.run(node(version="1", name="f")(one)(1)) == 1
        assert engine.run(node(version="1", name="f")(other)(1)) == Point(1)
        assert engine.run(node(version="1", name="f")(other)(1)) == Point(1)
        stats = engine.stats["f"]
        assert (stats.computed, stats.hits) == (2, 1)


@dataclass
class Item:
    x: int
    tags: list[str]


@node(version="1", batch=True)
def batched(batch: Sequence[Item]) -> Iterator[tuple[int, str] | None]:
    for index, item in enumerate(batch):
        yield index, f"{item.x}{item.tags}"


def test_a_batched_node_is_called_like_its_items_are_made() -> None:
    with Engine() as engine:
        assert engine.run([batched(1, ["a"]), batched(x=2, tags=[])]) == ["1['a']", "2[]"]
        with pytest.raises(
            TypeError, match=r"batched\(\) missing 1 required positional argument: 'tags'"
        ):
            batched(1)


@node(version="1")
def names(table: dict[str, int]) -> list[str]:
    return list(table)


@node(version="1")
def keywords(**words: int) -> list[str]:
    return list(words)


@node(version="1")
def reversed_table(table: dict[str, Any]) -> dict[str, Any]:
    return dict(reversed(table.items()))


def test_the_order_of_a_dict_reaches_the_step_and_comes_back() -> None:
    backend = FaultyBackend()
    for _ in range(2):
        with Engine(backend) as engine:
            assert engine.run(names({"a": 1, "b": 2})) == ["a", "b"]
            assert engine.run(names({"b": 2, "a": 1})) == ["b", "a"]
            assert engine.run(keywords(a=1, b=2)) == ["a", "b"]
            assert engine.run(keywords(b=2, a=1)) == ["b", "a"]
            table = {"z": {"y": 1, "x": 2}, "a": [{"n": 1, "m": 2}]}
            for _ in range(2):
                found = engine.run(reversed_table(table))
                assert [*found, *found["z"], *found["a"][0]] == ["a", "z", "y", "x", "n", "m"]
            assert engine.run(names(reversed_table({"p": 1, "o": 2}))) == ["o", "p"]
