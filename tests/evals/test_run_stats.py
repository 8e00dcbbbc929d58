from typing import Any

import pytest
from support.bound import answer_to, asked, bench_of, judge_of

from cachedeval.engine.engine import Engine
from cachedeval.engine.node import Call, Computed, node
from cachedeval.engine.record import Record, write_notes
from cachedeval.engine.result import Outcome
from cachedeval.evals.models import ModelResource
from cachedeval.evals.run_stats import Progress, RunStats


@node(version="1", name="double")
def double(number: int) -> int:
    return 2 * number


@node(version="1", name="add")
def add(one: int, other: int) -> int:
    if one == 6:
        raise ValueError("six")
    return one + other


def graph(count: int) -> list[Call[Any]]:
    return [add(double(n), double(n + 1)) for n in range(count)]


def seen_of(engine: Engine, calls: list[Call[Any]]) -> list[tuple[str, int, int]]:
    seen: list[tuple[str, int, int]] = []
    engine.settle(calls, on_outcome=Progress(calls, lambda *told: seen.append(told)))
    return seen


def test_each_outcome_is_reported_with_its_node_total() -> None:
    with Engine() as engine:
        calls = graph(5)
        seen = seen_of(engine, calls)
        for name, total in (("double", 10), ("add", 5)):
            told = [(done, of) for step, done, of in seen if step == name]
            assert sorted(done for done, _ in told) == sorted(set(dict(told)))
            assert max(done for done, _ in told) == total
            assert {of for _, of in told} == {total}


def test_hits_are_reported_together() -> None:
    with Engine() as engine:
        engine.settle(graph(3))
        assert seen_of(engine, graph(3)) == [("double", 6, 6), ("add", 3, 3)]


def test_a_shared_call_counts_once() -> None:
    with Engine() as engine:
        shared = double(1)
        seen = seen_of(engine, [add(shared, shared), add(shared, double(2))])
    assert ("double", 2, 2) in seen
    assert max(done for step, done, _ in seen if step == "add") == 2


def outcome(call: Call[Any], state: Any, computed: Computed[Any]) -> Outcome:
    if state == "failed":
        return Outcome(call, state, error=ValueError("failed"))
    cost, provenance = computed.cost, computed.provenance
    return Outcome(call, state, Record(b"", b"", "", 0.0, 2.0, cost, write_notes(provenance)))


def stats_of(judge: str = "cerebras:gpt-oss-120b") -> RunStats:
    return RunStats([], [judge_of(judge)])


def judged(state: str, prompt: int = 0, completion: int = 0) -> Outcome:
    question = asked("Why?", "So.")
    (verdict,) = bench_of(judge_of())(question, answer_to(question))
    cost = {"prompt_tokens": float(prompt), "completion_tokens": float(completion)}
    return outcome(verdict.inputs["reply"], state, Computed(None, cost=cost))


def answered(state: str, **told: int) -> Outcome:
    decoded = answer_to(asked("Why?")).inputs["decoded"]
    return outcome(decoded, state, Computed(None, provenance=told))


def test_nothing_happened() -> None:
    run = stats_of().as_dict()
    nothing = {"calls": 0, "hits": 0, "computed": 0, "failed": 0}
    assert run["nodes"] == {"generation": nothing, "judge": nothing}
    assert run["loads"] == 0
    assert run["seconds"] >= 0
    assert run["judge_spent"] == {"prompt_tokens": 0, "completion_tokens": 0, "usd": None}
    assert run["near_ties"] == {"met": 0, "changed": 0}


def test_answers_and_judgements_are_counted_apart() -> None:
    stats = stats_of()
    for state in ("computed", "hit", "hit", "failed"):
        stats(answered(state))
    stats(judged("computed"))
    nodes = stats.as_dict()["nodes"]
    assert nodes["generation"] == {"calls": 4, "hits": 2, "computed": 1, "failed": 1}
    assert nodes["judge"] == {"calls": 1, "hits": 0, "computed": 1, "failed": 0}


def test_tokens_are_spent_by_what_is_computed_and_saved_by_hits() -> None:
    stats = stats_of()
    for state, tokens in (("computed", 1000), ("computed", 2000), ("hit", 500), ("failed", 9)):
        stats(judged(state, tokens, 100))
    run = stats.as_dict()
    assert run["judge_spent"]["prompt_tokens"] == 3000
    assert run["judge_spent"]["completion_tokens"] == 200
    assert run["judge_spent"]["usd"] == pytest.approx((3000 * 0.35 + 200 * 0.75) / 1e6)
    assert run["judge_saved"]["prompt_tokens"] == 500
    assert run["judge_saved"]["usd"] == pytest.approx((500 * 0.35 + 100 * 0.75) / 1e6)


@pytest.mark.parametrize("judge", ["cerebras:unheard-of", "openai:gpt-oss-120b"])
def test_money_is_not_guessed(judge: str) -> None:
    stats = stats_of(judge)
    stats(judged("computed", 1000, 100))
    assert stats.as_dict()["judge_spent"] == {
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "usd": None,
    }


def test_near_ties_of_what_was_computed_now() -> None:
    stats = stats_of()
    stats(answered("computed", near_ties=3, changed=1))
    stats(answered("computed", near_ties=2, changed=0))
    stats(answered("hit", near_ties=9, changed=9))
    assert stats.as_dict()["near_ties"] == {"met": 5, "changed": 1}


class Loaded(ModelResource):
    """A model that was read so often."""

    def __init__(self, loads: int) -> None:
        self.count = loads

    @property
    def loads(self) -> int:
        return self.count


def test_loads_are_those_since_it_began_of_models_that_came_later_too() -> None:
    models = [Loaded(2)]
    stats = RunStats(models, [judge_of("f1")])
    models[0].count += 1
    models.append(Loaded(1))
    assert stats.as_dict()["loads"] == 2


def test_a_second_observer_is_notified() -> None:
    stats = stats_of()
    seen: list[Outcome] = []
    stats.on_outcome = seen.append
    one = answered("computed")
    stats(one)
    assert seen == [one]
