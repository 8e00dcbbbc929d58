"""`cachedeval cache audit`, on real answers of a real model."""

from pathlib import Path

import msgspec
import pytest
from support.evaluation import JUDGE, QUESTIONS, Evaluation

from cachedeval import open_backend
from cachedeval.engine.keys import node_of
from cachedeval.engine.record import pack, unpack
from cachedeval.engine.values import payload_digest
from cachedeval.evals.generation import Generation, text

pytestmark = pytest.mark.slow


def falsify(cache: str) -> str:
    """Change the end of one stored answer and pack it: what an unsound key would have kept."""
    backend = open_backend(cache)
    for entry in backend.scan():
        record = unpack(backend.get_many([entry.key])[entry.key])
        if node_of(record.recipe) == text.name:
            said = text.codec.load(record.payload).text + " NOT"
            payload = text.codec.dump(Generation(said))
            lie = msgspec.structs.replace(record, payload=payload, digest=payload_digest(payload))
            backend.put_many({entry.key: pack(lie)})
            backend.close()
            return entry.key.hex()
    raise AssertionError("no answer is stored")


def test_right_answers_are_confirmed(judged: Evaluation) -> None:
    found = judged("cache audit", "--sample", "3", "--json", judge=JUDGE)
    assert (found.status, found.err) == (0, "")
    assert found.json == {
        "stored": QUESTIONS,
        "audited": 3,
        "same": 3,
        "differ": [],
        "failed": [],
    }
    shown = judged("cache audit", "--sample", "100", judge=JUDGE)
    assert shown.out == (
        f"{QUESTIONS} of {QUESTIONS} stored answers computed again: "
        f"{QUESTIONS} the same, 0 differ, 0 failed\n"
    )


def test_a_wrong_answer_is_found_and_shown(judged: Evaluation) -> None:
    key = falsify(judged.cache)
    found = judged("cache audit", "--sample", "100", judge=JUDGE)
    assert (found.status, found.err) == (3, "")
    assert "1 differ" in found.out
    assert key in found.out
    assert "What is" in found.out
    assert "text stored:" in found.out
    assert "NOT" in found.out
    told = judged("cache audit", "--sample", "100", "--json", judge=JUDGE)
    assert told.status == 3
    (differing,) = told.json["differ"]
    assert differing["key"] == key
    assert "text" in [each["where"] for each in differing["differences"]]


def test_the_cache_is_left_as_it_was(judged: Evaluation) -> None:
    def stats() -> object:
        return judged.place.run("cache", "stats", "--json", "--cache", judged.cache).json["nodes"][
            "text"
        ]

    falsify(judged.cache)
    before = stats()
    assert judged("cache audit", "--sample", "100", judge=JUDGE).status == 3
    assert stats() == before
    assert judged("cache audit", "--sample", "100", judge=JUDGE).status == 3, (
        "it reports, and repairs nothing"
    )


def test_without_stored_answers_there_is_nothing_to_audit(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    found = evaluation("cache audit", "--cache", f"disk:{tmp_path}/empty")
    assert found.status == 2
    assert f"none of the {QUESTIONS} results is in the cache" in found.err
    assert found.err.count("\n") == 1


def test_a_sample_is_one_or_more(evaluation: Evaluation) -> None:
    assert evaluation("cache audit", "--sample", "0").status == 2
