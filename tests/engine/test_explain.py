import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from support.faulty import FaultyBackend

from cachedeval import Call, Engine, Resource, node
from cachedeval.engine.keys import key_of
from cachedeval.engine.node import recipe_of
from cachedeval.engine.resource import Handle


class Answer(msgspec.Struct):
    text: str
    reason: str = "stop"


@dataclass
class Inputs:
    model: Handle[str]
    prompt: str
    max_tokens: int = 256


@node(version="1", name="generation", batch=True)
def generation(batch: Sequence[Inputs]) -> Iterator[tuple[int, Answer]]:
    for index, inputs in enumerate(batch):
        with inputs.model as model:
            yield index, Answer(f"{model} on {inputs.prompt}")


@node(version="1", name="judge")
def judge(answer: Answer, criterion: str = "accuracy") -> str:
    return f"{len(answer.text)} {criterion}"


@node(version="1", name="parse")
def parse(reply: str) -> int:
    return int(reply.partition(" ")[0])


@node(version="1", name="mean")
def mean(scores: list[int]) -> float:
    return sum(scores) / len(scores)


def adapter(name: str, scale: int = 20, weights: str = "1f") -> Resource[str]:
    identity = {"files": {"adapters.safetensors": f"xxh3:{weights}"}, "scale": scale}
    return Resource("adapter", identity, lambda: name)


def why(engine: Engine, call: Call[Any]) -> str:
    return str(engine.explain(call))


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


GOOD = adapter("good")


def test_a_hit_and_a_new_one(engine: Engine) -> None:
    call = generation(GOOD, "Who?")
    explanation = engine.explain(call)
    assert (explanation.state, explanation.differences) == ("new", [])
    assert str(explanation) == "generation: nothing of this step is in the cache yet"
    engine.run(call)
    assert engine.explain(call).state == "hit"
    assert why(engine, call) == "generation: in the cache"


def test_the_fields_that_differ_down_to_the_file(engine: Engine) -> None:
    engine.run(generation(GOOD, "Who?"))
    assert why(engine, generation(adapter("x", 10, "9c"), "Who?")) == (
        "generation: model / files / adapters.safetensors: xxh3:1f → xxh3:9c; "
        "model / scale: 20 → 10"
    )
    assert why(engine, generation(GOOD, "Who?", 128)) == "generation: max_tokens: 256 → 128"


def test_the_nearest_record_is_the_one_with_most_in_common(engine: Engine) -> None:
    bad = adapter("bad", 10, "9c")
    engine.run(
        [generation(m, p, t) for m in (GOOD, bad) for p in ("Who?", "What?") for t in (8, 16)]
    )
    assert why(engine, generation(bad, "What?", 32)) == "generation: max_tokens: 16 → 32"
    assert why(engine, generation(GOOD, "What is", 8)) == "generation: prompt: 'What?' → 'What is'"


def test_the_nearest_of_many_is_the_most_alike(engine: Engine) -> None:
    questions = [f"What is the capital of {country}?" for country in ("France", "Spain", "Peru")]
    engine.run([generation(GOOD, q, n) for q in questions for n in range(1, 50)])
    asked = generation(GOOD, "What is the capital of Spain, then?", 500)
    assert "prompt: 'What is the capital of Spain?' → 'What is the capital of Spain" in why(
        engine, asked
    )


def test_through_the_graph(engine: Engine) -> None:
    engine.run(parse(judge(generation(GOOD, "Who?"))))
    assert why(engine, parse(judge(generation(adapter("x", 10), "Who?")))) == (
        "parse: waits for judge\n  because generation: model / scale: 20 → 10"
    )
    assert why(engine, parse(judge(generation(GOOD, "Who?"), "tone"))) == (
        "parse: waits for judge\n  because judge: criterion: 'accuracy' → 'tone'"
    )


def test_an_output_that_differs_is_followed_to_its_cause(engine: Engine) -> None:
    other = adapter("other", 10)
    engine.run(parse(judge(generation(GOOD, "Who?"))))
    engine.run(generation(other, "Who?"))
    # The answer is known by now, and it is another one than before.
    explanation = engine.explain(parse(judge(generation(other, "Who?"))))
    assert str(explanation) == (
        "parse: waits for judge\n"
        "  because judge: answer (output of generation) / text: 'good on Who?' → 'other on Who?'\n"
        "    because generation has another output: model / scale: 20 → 10"
    )
    assert explanation.upstream[0].upstream[0].state == "hit"


def test_a_long_way_up(engine: Engine) -> None:
    @node(version="1", name="source")
    def source(x: int) -> int:
        return x

    @node(version="1", name="plus")
    def plus(x: int, y: int = 1) -> int:
        return x + y

    @node(version="1", name="times")
    def times(x: int) -> int:
        return x * 10

    engine.run(times(plus(source(1))))
    engine.run(plus(source(5)))
    assert why(engine, times(plus(source(5)))) == (
        "times: x (output of plus): 2 → 6\n"
        "  because plus has another output: x (output of source): 1 → 5\n"
        "    because source has another output: x: 1 → 5"
    )


def test_a_list_of_outputs(engine: Engine) -> None:
    def scores(prompts: str, model: Resource[str] = GOOD) -> Call[float]:
        return mean([parse(judge(generation(model, p))) for p in prompts])

    engine.run(scores("abc"))
    assert why(engine, scores("abc" * 4)) == "mean: scores / 3: (absent) → 9; " + "; ".join(
        f"scores / {n}: (absent) → 9" for n in range(4, 12)
    )
    told = why(engine, scores("defghijkl")).splitlines()
    assert told[0] == "mean: waits for parse"
    assert len(told) == 7
    assert told[-1] == "  and 4 more"


def test_shared_causes_are_reported_once(engine: Engine) -> None:
    engine.run(mean([parse(judge(generation(GOOD, "a")))]))
    one = judge(generation(adapter("x", 10), "a"))
    assert why(engine, mean([parse(one), parse(one)])).splitlines() == [
        "mean: waits for parse",
        "  because generation: model / scale: 20 → 10",
    ]


def test_two_steps_waited_for(engine: Engine) -> None:
    @node(version="1", name="both")
    def both(a: Any, b: Any, c: Any) -> int:
        return len([a, b, c])

    call = both(generation(GOOD, "x"), judge(generation(GOOD, "x")), generation(GOOD, "y"))
    assert why(engine, call) == (
        "both: waits for generation and judge\n"
        "  because generation: nothing of this step is in the cache yet"
    )


def test_a_version_that_differs(engine: Engine) -> None:
    def f(x: int) -> int:
        return x

    engine.run(node(version="1", name="f")(f)(1))
    assert why(engine, node(version="2", name="f")(f)(1)) == "f: version: 1 → 2"
    assert why(engine, node(name="f")(f)(1)) == "f: version: 1 → by its source"

    def g(x: int) -> int:
        return 1 * x

    engine.run(node(name="g")(f)(1))
    told = why(engine, node(name="g")(g)(1))
    assert re.fullmatch(r"g: its source: \w{8}… → \w{8}…", told)


def test_what_is_read_from_around_is_named(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    @node(name="f")
    def f(x: int) -> int:
        return x * FACTOR

    engine.run(f(1))
    monkeypatch.setitem(globals(), "FACTOR", 3)
    assert why(engine, f(1)) == "f: (outside) / FACTOR: 2 → 3"


FACTOR = 2


def test_inputs_that_came_and_went(engine: Engine) -> None:
    def f(x: int, old: Any = None) -> Any:
        return x, old

    def g(x: int, new: Any = 1) -> Any:
        return x, new

    engine.run(node(version="1", name="f")(f)(1))
    assert why(engine, node(version="1", name="f")(g)(1)) == (
        "f: old: None → (absent); new: (absent) → 1"
    )


def test_a_damaged_record_is_reported() -> None:
    backend = FaultyBackend()
    with Engine(backend) as other:
        other.run([judge(Answer("a")), judge(Answer("b"))])
        recipe = recipe_of(judge(Answer("a")), lambda _: "")
        backend.put_many({key_of(recipe): b"corrupt"})
        assert why(other, judge(Answer("a"))) == "judge: its record is corrupt or cannot be read"
        assert "answer / text: 'b' → 'c'" in why(other, judge(Answer("c")))


def test_a_value_that_cannot_be_read_any_more(engine: Engine) -> None:
    def f(x: int) -> str:
        return str(x)

    def g(x: int) -> int:
        return x

    engine.run(node(version="1", name="f")(f)(1))
    assert why(engine, node(version="1", name="f")(g)(1)) == (
        "f: its record is corrupt or cannot be read"
    )


def test_inputs_that_cannot_be_part_of_a_key(engine: Engine) -> None:
    explanation = engine.explain(judge(object()))  # type: ignore[arg-type]
    assert (explanation.state, explanation.reason) == (
        *["failed", "judge: its inputs cannot be part of a key"],
    )


def test_a_pruned_identity_is_shown_by_its_digest() -> None:
    backend = FaultyBackend()
    with Engine(backend) as engine:
        engine.run(generation(GOOD, "Who?"))
        for entry, record in list(engine.store.records()):
            if b"(identity)" in getattr(record, "recipe", b""):
                backend.delete_many([entry.key])
        told = why(engine, generation(adapter("x", 10), "Who?"))
    assert re.fullmatch(r"generation: model: sha256:\w{8}… → sha256:\w{8}…", told)


def test_many_are_explained_with_one_reading() -> None:
    backend = FaultyBackend()
    with Engine(backend) as engine:
        engine.run([judge(Answer(f"{n}")) for n in range(1000)])
        backend.counts.clear()
        found = engine.explain_many([judge(Answer(f"{n}"), "tone") for n in range(1000)])
        assert {e.reason for e in found} == {"judge: criterion: 'accuracy' → 'tone'"}
        assert backend.counts["scan"] == 1
        assert backend.counts["get"] == 3
        assert not backend.counts["put"]


def test_nothing_runs_or_opens() -> None:
    def never() -> str:
        raise AssertionError

    with Engine() as engine:
        call = parse(judge(generation(Resource("adapter", 1, never), "Who?")))
        assert engine.explain(call).state == "waits"
        assert engine.plan([call])["generation"].computed == 1
        assert engine._runtime is None
        assert not engine.stats
