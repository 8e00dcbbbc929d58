"""Nodes with a bound: one stored result serves every bound that it reaches."""

import threading
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from cachedeval import Engine, node
from cachedeval.engine.keys import key_of
from cachedeval.engine.node import Bound, Call
from cachedeval.engine.result import Outcome

WORDS = {"short": "abc", "long": "abcdefghijklmnop"}


class Cut(msgspec.Struct, frozen=True):
    text: str
    ended: bool


def within(cut: Cut, most: int) -> Cut | None:
    if len(cut.text) > most:
        return Cut(cut.text[:most], ended=False)
    return cut if cut.ended or len(cut.text) == most else None


spelt: list[tuple[str, int]] = []


@node(version="1", name="spell", bound=Bound("most", within))
def spell(word: str, *, most: int) -> Cut:
    spelt.append((word, most))
    text = WORDS[word]
    return Cut(text[:most], ended=len(text) <= most)


@node(version="1", name="length")
def length(cut: Cut) -> int:
    return len(cut.text)


@pytest.fixture(autouse=True)
def nothing_spelt() -> None:
    spelt.clear()


def calls(most: int) -> list[Call[int]]:
    return [length(spell(word, most=most)) for word in WORDS]


def fresh(most: int) -> list[tuple[str, int]]:
    """Return digests and values that an empty cache gives."""
    with Engine() as engine:
        outcomes = engine.settle([call.upstream[0] for call in calls(most)])
        return [(outcome.digest, len(outcome.value.text)) for outcome in outcomes]


def outcome_of(engine: Engine, word: str, most: int) -> Outcome:
    return engine.settle([spell(word, most=most)])[0]


@pytest.mark.parametrize("bounds", [(4, 8, 4, 16, 99, 8, 2), (16, 4, 3, 2, 17), (1, 2, 3)])
def test_every_bound_has_the_output_of_a_fresh_run(bounds: tuple[int, ...]) -> None:
    with Engine() as engine:
        for most in bounds:
            found = engine.settle([call.upstream[0] for call in calls(most)])
            assert [(each.digest, len(each.value.text)) for each in found] == fresh(most)


def test_a_larger_bound_computes_only_what_was_cut() -> None:
    with Engine() as engine:
        assert engine.run(calls(4)) == [3, 4]
        spelt.clear()
        assert engine.run(calls(8)) == [3, 8]
        assert spelt == [("long", 8)]
        assert engine.run(calls(8)) == [3, 8]
        assert spelt == [("long", 8)]


def test_a_smaller_bound_computes_nothing_and_later_steps_are_hits() -> None:
    with Engine() as engine:
        engine.run(calls(4))
        engine.run(calls(8))
        spelt.clear()
        before = engine.stats["length"].computed
        assert engine.run(calls(4)) == [3, 4]
        assert spelt == []
        assert engine.stats["length"].computed == before


def test_two_bounds_in_one_run() -> None:
    with Engine() as engine:
        many = [length(spell("long", most=most)) for most in (2, 9, 5)]
        assert engine.run(many) == [2, 9, 5]
    assert ("long", 9) in spelt
    with Engine() as engine:
        assert engine.run(many[::-1], mode="off") == [5, 9, 2]


def test_two_bounds_in_two_threads() -> None:
    with Engine() as engine:
        found: dict[int, list[int]] = {}

        def run(most: int) -> None:
            found[most] = engine.run([length(spell("long", most=most))])

        threads = [threading.Thread(target=run, args=(most,)) for most in (3, 7, 11)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == {most: [most] for most in (3, 7, 11)}


def test_plan_and_explanation_know_the_bound() -> None:
    with Engine() as engine:
        engine.run(calls(4))
        assert engine.plan(calls(3))["spell"].hits == 2
        assert engine.plan(calls(8))["spell"].computed == 1
        why = str(engine.explain(spell("long", most=8)))
        assert why == "spell: most: a smaller one → 8"


def test_a_record_that_cannot_be_read_is_a_miss() -> None:
    with Engine() as engine:
        first = outcome_of(engine, "long", 4)
        assert first.record is not None
        bad = msgspec.structs.replace(first.record, payload=b"m\x93")
        store = engine.store
        store.put_many({key_of(bad.recipe): bad})
        assert outcome_of(engine, "long", 4).value == Cut("abcd", ended=False)
        assert store.counts.unreadable == 1


class Item(msgspec.Struct, frozen=True):
    text: str


batches: list[list[str]] = []


@node(version="1", name="prepare", executor="one thread")
def prepare(text: str) -> str:
    if text == "bad":
        raise ValueError(text)
    return text.upper()


@node(version="1", name="together", batch=True, executor="one thread")
def together(batch: Sequence[Item]) -> Iterator[tuple[int, str] | None]:
    batches.append([item.text for item in batch])
    for index, item in enumerate(batch):
        yield index, item.text * 2
        yield None


def test_a_batch_waits_for_steps_that_its_own_thread_runs_first() -> None:
    batches.clear()
    names = [f"n{number}" for number in range(40)]
    with Engine() as engine:
        engine.run([prepare(name) for name in names[::3]])  # some inputs are known at the start
        assert engine.run([together(prepare(name)) for name in names]) == [
            name.upper() * 2 for name in names
        ]
        assert [len(batch) for batch in batches] == [40]


def test_a_step_that_fails_does_not_hold_a_batch_back() -> None:
    batches.clear()
    with Engine() as engine:
        outcomes = engine.settle([together(prepare(name)) for name in ("a", "bad", "b")])
    assert [outcome.state for outcome in outcomes] == ["computed", "failed", "computed"]
    assert batches == [["A", "B"]]


def test_a_chain_of_batches_of_one_node_ends() -> None:
    batches.clear()
    with Engine() as engine:
        chain = [together(prepare(together(prepare(name)))) for name in ("a", "b")]
        assert engine.run(chain) == ["AAAA", "BBBB"]
