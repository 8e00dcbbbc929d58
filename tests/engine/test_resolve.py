from collections.abc import Mapping

import pytest
from msgspec import structs

from cachedeval import Call, Resource, node
from cachedeval.engine.encoding import Identified, Output
from cachedeval.engine.keys import key_of, read_recipe
from cachedeval.engine.node import describe, recipe_of, substitute
from cachedeval.engine.record import Record
from cachedeval.engine.resolve import graph_of, resolve
from cachedeval.engine.steps import to_record
from cachedeval.engine.values import Codec


@node(version="1", name="double")
def double(x: int, note: str = "") -> int:
    return x * 2 + len(note)


@node(version="1", name="total")
def total(xs: list[int], by: object = None) -> int:
    return sum(xs) + (by is not None)


def nothing(_: Mapping[bytes, bytes]) -> dict[bytes, Record]:
    return {}


def test_a_graph_by_depth_each_call_once() -> None:
    a, b = double(1), double(2)
    c = total([a, b, a])
    d = total([c, double(c)], by={"a": a})
    levels = graph_of([d, b, c])
    assert levels[0] == [a, b] or levels[0] == [b, a]
    assert [len(level) for level in levels] == [2, 1, 1, 1]
    assert [call.depth for call in (a, c, d)] == [0, 1, 3]


def test_one_look_up_a_level_and_none_for_what_waits() -> None:
    asked: list[int] = []
    call = total([double(double(1)), double(3)])

    def lookup(recipes: Mapping[bytes, bytes]) -> dict[bytes, Record]:
        asked.append(len(recipes))
        return {
            key: to_record(double, recipe, 2, 0.0)
            for key, recipe in recipes.items()
            if read_recipe(recipe).inputs["x"] == 1
        }

    known = resolve([call], lookup)
    assert asked == [2, 1]
    assert len(known.open) == 3
    assert known.open[-1] is call
    assert [c.inputs["x"] for c in known.keys if c.node is double][0] == 3  # noqa: RUF015
    assert call not in known.keys


def test_what_cannot_have_a_key_has_failed() -> None:
    bad = double(object())  # type: ignore[arg-type]
    known = resolve([total([bad])], nothing)
    assert known.outcomes[bad].state == "failed"
    assert len(known.open) == 1


def test_a_recipe_names_outputs_and_resources_by_digest() -> None:
    model = Resource("model", {"w": 1}, lambda: 1)
    above = double(1)
    call = total([above, 2], by={"deep": (model,)})
    inputs = read_recipe(recipe_of(call, lambda _: "sha256:aa")).inputs
    assert inputs["xs"] == [Output("sha256:aa"), 2]
    assert inputs["by"] == {"deep": (model.identified,)}
    assert isinstance(inputs["by"]["deep"][0], Identified)
    assert not call.plain
    assert above.plain


def test_containers_are_copied() -> None:
    given = {"a": [1, {2}], "b": (3, [4])}
    got = substitute(given, lambda call: call, lambda resource: resource)
    assert got == given
    assert got is not given
    assert got["a"] is not given["a"]
    assert got["a"][1] is not given["a"][1]
    assert got["b"][1] is not given["b"][1]


def test_a_record_that_is_of_another_recipe_answers_nothing() -> None:
    call = double(1)

    def lookup(recipes: Mapping[bytes, bytes]) -> dict[bytes, Record]:
        return {key: to_record(double, b"another", 2, 0.0) for key in recipes}

    known = resolve([call], lookup)
    assert known.keys[call][0] == key_of(recipe_of(call, lambda _: ""))


def test_a_call_in_short() -> None:
    call: Call[int] = double(1, "x" * 100)
    assert describe(call) == f"double(x=1, note='{'x' * 38}…)"
    model = Resource("model", {"w": 1}, lambda: 1)
    assert describe(total([double(1)], by=model)) == "total(xs=[<call of double>], by=<model>)"

    @node(version="1", name="many")
    def many(a: int, b: int, c: int, d: int) -> int:
        return a + b + c + d

    assert describe(many(1, 2, 3, 4)) == "many(a=1, b=2, c=3, …)"


class Unreadable:
    """A store in which the records of some numbers hold what `double` does not return."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers
        self.lacks_totals = False

    def __call__(self, recipes: Mapping[bytes, bytes]) -> dict[bytes, Record]:
        found = {}
        for key, recipe in recipes.items():
            told = read_recipe(recipe)
            if told.node == "total" and self.lacks_totals:
                continue
            record = to_record(double, recipe, 4, 0.0)
            if told.inputs.get("x") in self._numbers:
                record = structs.replace(record, payload=b"m\xa4four")
            found[key] = record
        return found


def test_an_unused_value_is_not_read() -> None:
    inner = double(1)
    outer = total([inner])
    known = resolve([outer], Unreadable(1))
    assert not known.open
    assert known.outcomes[outer].value == 4
    for roots, read_all in (([outer, inner], False), ([outer], True)):
        known = resolve(roots, Unreadable(1), read_all=read_all)
        assert known.open == [inner, outer]
        assert outer not in known.keys


def test_a_value_that_cannot_be_read_is_missing_where_it_is_an_input() -> None:
    store = Unreadable(1, 2)
    store.lacks_totals = True
    # The second look finds that an input of the first unreadable one is unreadable, too.
    deepest = double(2)
    inner = double(1, deepest)
    good = double(3)
    outer = total([inner, good])
    known = resolve([outer], store)
    assert known.open == [deepest, inner, outer]
    assert known.keys.keys() == {deepest}
    assert known.outcomes.keys() == {good}


def test_a_value_that_many_wait_for_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[bytes] = []
    load = Codec.load

    def counted(codec: Codec, payload: bytes) -> object:
        reads.append(payload)
        return load(codec, payload)

    monkeypatch.setattr(Codec, "load", counted)
    store = Unreadable()
    store.lacks_totals = True
    inner = double(1)
    known = resolve([total([inner], by=n) for n in range(20)], store)
    assert len(known.open) == 20
    assert len(reads) == 1
