from pathlib import Path
from typing import Any

from support.bound import asked, bench_of, judge_of, recipe

from cachedeval.engine.node import Call
from cachedeval.engine.outcome import Outcome
from cachedeval.engine.record import Record
from cachedeval.engine.resource import Resource
from cachedeval.evals.generation import Generation, generation
from cachedeval.evals.judging.failures import TimedOut
from cachedeval.evals.judging.nodes import judge_parse
from cachedeval.evals.judging.verdict import Verdict
from cachedeval.evals.targets import Bound, Subject, read_item

QUESTIONS = [asked("Why?", "So."), asked("Who?", "Me.")]
GREEDY = {"max_tokens": 8, "temperature": 0.0, "top_p": 1.0}


def subject(judge: str = "f1", adapter: str | None = None, **options: Any) -> Subject:
    return Subject.bind(
        QUESTIONS,
        model=Resource("model", "base", object),
        model_name="base",
        adapter=None if adapter is None else Resource("adapter", adapter, Path),
        adapter_name=adapter,
        answer={**GREEDY, **options.pop("answer", {})},
        seed=options.pop("seed", 42),
        bench=bench_of(judge_of(judge, **options)),
    )


def done(call: Call[Any], value: Any) -> Outcome:
    return Outcome(call, "computed", Record(b"", call.node.codec.dump(value), "", 0.0, 0.0))


def settled(bound: Bound, answer: Generation, verdicts: list[Any]) -> dict[Call[Any], Outcome]:
    outcomes = {bound.answer: done(bound.answer, answer)}
    for call, verdict in zip(bound.verdicts, verdicts, strict=True):
        failed = isinstance(verdict, Exception)
        outcomes[call] = Outcome(call, "failed", error=verdict) if failed else done(call, verdict)
    return outcomes


def test_each_question_has_an_answer_and_its_verdicts() -> None:
    bound = subject("cerebras:m", repeats=2).bound
    assert [one.question for one in bound] == QUESTIONS
    for one in bound:
        assert one.answer.node is generation
        assert [call.node for call in one.verdicts] == [judge_parse, judge_parse]
        assert all(one.answer in call.upstream for call in one.verdicts)
    calls = list(subject("cerebras:m", repeats=2).calls())
    assert [call.node.name for call in calls[:3]] == ["generation", "judge_parse", "judge_parse"]
    assert len(calls) == 6


def test_the_seed_counts_above_temperature_0_alone() -> None:
    def keys(seed: int, temperature: float) -> list[bytes]:
        bound = subject(seed=seed, answer={"temperature": temperature}).bound
        return [recipe(one.answer) for one in bound]

    assert keys(1, 0.0) == keys(2, 0.0)
    assert keys(1, 0.5) != keys(2, 0.5)


def test_an_adapter_changes_the_answers_key_and_not_the_verdicts() -> None:
    base, tuned = subject(), subject(adapter="tuned")
    for one, other in zip(base.bound, tuned.bound, strict=True):
        assert recipe(one.answer) != recipe(other.answer)
        assert [recipe(c) for c in one.verdicts] == [recipe(c) for c in other.verdicts]
    assert (base.adapter_name, tuned.adapter_name) == (None, "tuned")


def test_a_scored_question() -> None:
    (bound, _) = subject().bound
    outcomes = settled(bound, Generation("So.", "stop"), [Verdict({"f1": 1.0})])
    item = read_item(bound, outcomes, judge_of("f1"))
    assert (item.question, item.reference, item.response) == ("Why?", "So.", "So.")
    assert (item.score, item.criteria, item.error, item.kind) == (100, {"f1": 1}, None, None)
    assert (item.scores, item.truncated, item.reasoning) == ({"f1": 100}, False, None)
    outcomes = settled(bound, Generation("So.", "length"), [Verdict({"f1": 1.0})])
    assert read_item(bound, outcomes, judge_of("f1")).truncated


def test_a_verdict_that_failed_leaves_the_answer_and_no_score() -> None:
    (bound, _) = subject("cerebras:m", repeats=2).bound
    scores = {"accuracy": 5.0, "relevance": 5.0, "completeness": 5.0, "clarity": 5.0}
    outcomes = settled(
        bound, Generation("So.", "stop"), [Verdict(scores), TimedOut("no reply in 60 s")]
    )
    item = read_item(bound, outcomes, judge_of("cerebras:m", repeats=2))
    assert (item.score, item.criteria, item.spread) == (None, {}, None)
    assert item.response == "So."
    assert (item.error, item.kind) == ("timed_out: no reply in 60 s", "timed_out")


def test_an_answer_that_failed_is_why_whatever_else_failed() -> None:
    (bound, _) = subject().bound
    outcomes = {
        bound.answer: Outcome(bound.answer, "failed", error=ValueError("too long")),
        bound.verdicts[0]: Outcome(bound.verdicts[0], "failed", error=TimedOut("later")),
    }
    item = read_item(bound, outcomes, judge_of("f1"))
    assert item.response is None
    assert (item.error, item.kind) == ("ValueError: too long", "ValueError")
