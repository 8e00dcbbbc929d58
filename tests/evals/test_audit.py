"""An audit confirms what is right and finds what is not."""

import time
from collections.abc import Iterator

import msgspec
import pytest

from cachedeval import Engine, InputError, node
from cachedeval.engine.keys import key_of, node_of
from cachedeval.engine.record import Record, pack
from cachedeval.engine.values import payload_digest
from cachedeval.evals.audit import audit
from cachedeval_memory import MemoryBackend

computed = 0


class Answer(msgspec.Struct, frozen=True):
    text: str
    finish_reason: str


@node(version="1", name="answer")
def answer(question: str) -> Answer:
    global computed  # noqa: PLW0603  counted where a test can see it
    computed += 1
    if "broken" in question:
        raise ValueError("made to fail")
    return Answer(f"{question}: it is well known that this is so", "stop")


CALLS = [answer(f"question {n}") for n in range(8)]


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


@pytest.fixture
def engine(backend: MemoryBackend) -> Iterator[Engine]:
    with Engine(backend) as engine:
        engine.run(CALLS)
        yield engine


def falsify(backend: MemoryBackend, engine: Engine, question: str, value: Answer) -> bytes:
    """Store another value under a call's key, packed: as an unsound key would have left it."""
    for entry, record in engine.store.records():
        if isinstance(record, Record) and question.encode() in record.recipe:
            payload = answer.codec.dump(value)
            lie = msgspec.structs.replace(record, payload=payload, digest=payload_digest(payload))
            backend.put_many({entry.key: pack(lie)})
            assert node_of(lie.recipe) == "answer"
            assert key_of(lie.recipe) == entry.key
            return entry.key
    raise AssertionError(question)


def test_what_comes_out_the_same_is_confirmed_and_computed_once(engine: Engine) -> None:
    before = computed
    found = audit(engine, CALLS, 3)
    assert (found.stored, found.audited, found.same) == (8, 3, 3)
    assert found.differ == found.failed == []
    assert computed - before == 3


def test_a_stored_answer_that_differs_is_reported_with_the_place(
    engine: Engine, backend: MemoryBackend
) -> None:
    key = falsify(
        backend, engine, "question 5", Answer("question 5: it is well known that it is not", "stop")
    )
    found = audit(engine, CALLS, 100)
    assert (found.audited, found.same) == (8, 7)
    (differing,) = found.differ
    assert differing.key == key
    assert differing.call.inputs == {"question": "question 5"}
    assert differing.created <= time.time()
    (difference,) = differing.differences
    assert difference.where == "text"
    assert "it is not" in difference.was
    assert "this is so" in difference.now


def test_what_cannot_be_computed_again_is_reported(engine: Engine, backend: MemoryBackend) -> None:
    broken = answer("broken")
    engine.settle([broken])
    recipe = broken.node.recipe(broken.inputs)
    payload = answer.codec.dump(Answer("…", "stop"))
    record = Record(recipe, payload, payload_digest(payload), 1.0, 1.0)
    backend.put_many({key_of(recipe): pack(record)})
    (failed,) = audit(engine, [broken], 1).failed
    assert failed.error == "ValueError: made to fail"
    assert failed.differences == []


def test_the_cache_is_not_written(engine: Engine, backend: MemoryBackend) -> None:
    falsify(backend, engine, "question 1", Answer("a lie", "stop"))
    before = {entry.key: backend.get_many([entry.key]) for entry in backend.scan()}
    audit(engine, CALLS, 100)
    assert {entry.key: backend.get_many([entry.key]) for entry in backend.scan()} == before


def test_the_same_call_twice_is_one_result(engine: Engine) -> None:
    found = audit(engine, [*CALLS, *CALLS, answer("question 3")], 100)
    assert (found.stored, found.audited) == (8, 8)


def test_only_what_is_stored_is_audited(engine: Engine) -> None:
    found = audit(engine, [answer("never asked"), CALLS[0]], 100)
    assert (found.stored, found.same) == (1, 1)
    with pytest.raises(InputError, match="none of the 1 results is in the cache"):
        audit(engine, [answer("never asked")], 5)
    with pytest.raises(InputError, match="it must be 1 or more"):
        audit(engine, CALLS, 0)


def test_a_seed_draws_the_same_sample(engine: Engine, backend: MemoryBackend) -> None:
    for n in range(8):
        falsify(backend, engine, f"question {n}", Answer("a lie", "stop"))
    drawn = [[f.key for f in audit(engine, CALLS, 3, seed=s).differ] for s in (1, 1, 2, 3, 4)]
    assert drawn[0] == drawn[1]
    assert len({tuple(sorted(keys)) for keys in drawn}) > 1
