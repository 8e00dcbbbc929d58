"""Tags: stored with each result, and no part of its key."""

from typing import Any

import pytest

from cachedeval import Backend, Computed, Engine, InputError, node, open_backend
from cachedeval.engine.record import Record, unpack, write_notes


def only_record(backend: Backend) -> Record:
    (entry,) = backend.scan()
    return unpack(backend.get_many([entry.key])[entry.key])


def step(*, tags: Any, name: str = "tagged", computed: bool = False) -> Any:
    @node(version="1", name=name, tags=tags)
    def tagged(x: int) -> Any:
        return Computed(x, cost={"letters": 1}, provenance={"by": "hand"}) if computed else x

    return tagged


@pytest.mark.parametrize("computed", [False, True])
def test_a_record_holds_the_tags_of_its_node(*, computed: bool) -> None:
    backend = open_backend("memory:")
    with Engine(backend) as engine:
        assert engine.run(step(tags=("b", "a", "b"), computed=computed)(1)) == 1
    record = only_record(backend)
    assert record.tags == ("a", "b")
    assert record.provenance.get("by") == ("hand" if computed else None)


def test_a_step_without_tags_stores_what_it_always_stored() -> None:
    backend = open_backend("memory:")
    with Engine(backend) as engine:
        engine.run(step(tags=())(1))
    assert "tags" not in only_record(backend).provenance
    assert only_record(backend).tags == ()


def test_other_tags_are_no_miss() -> None:
    backend = open_backend("memory:")
    with Engine(backend) as engine:
        engine.run(step(tags=("a",))(1))
        engine.run(step(tags=("b",))(1))
        engine.run(step(tags=())(1))
        assert (engine.stats["tagged"].hits, engine.stats["tagged"].computed) == (2, 1)
    assert only_record(backend).tags == ("a",)


@pytest.mark.parametrize("tags", ["summaries", [1], ("a", ""), (None,)])
def test_a_tag_is_a_string(tags: Any) -> None:
    with pytest.raises(InputError, match="tags are strings"):
        step(tags=tags)


@pytest.mark.parametrize(("found", "read"), [("x", ()), (["x", 1, "y"], ("x", "y")), (None, ())])
def test_tags_of_another_program_are_read_with_care(found: Any, read: tuple[str, ...]) -> None:
    record = Record(b"", b"", "", 0.0, 0.0, {}, write_notes({"tags": found}))
    assert record.tags == read
