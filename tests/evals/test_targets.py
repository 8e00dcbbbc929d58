from pathlib import Path
from typing import Any

from support.bound import asked, bench_of, judge_of, recipe

from cachedeval.engine.node import Call
from cachedeval.engine.record import Record, write_notes
from cachedeval.engine.resource import Resource
from cachedeval.engine.result import Outcome
from cachedeval.evals.answering import AnswerSettings
from cachedeval.evals.generation import Decoded, Generation, NoAnswerError, text
from cachedeval.evals.judging.nodes import judge_parse
from cachedeval.evals.judging.options import JudgeOptions
from cachedeval.evals.judging.verdict import Verdict
from cachedeval.evals.targets import EvalTarget, SampleCalls, item_result
from cachedeval.services.errors import APITimeoutError

QUESTIONS = [asked("Why?", "So."), asked("Who?", "Me.")]
WARM = JudgeOptions(temperature=0.7)


class Folder:
    """Stands for a model's folder."""

    weights: Resource[Any] = Resource("model", "base", object)
    tokenizer: Resource[Any] = Resource("tokenizer", "base", object)


def target(judge: str = "f1", adapter: str | None = None, **options: Any) -> EvalTarget:
    model: Any = Folder()
    settings = AnswerSettings(
        max_tokens=8, seed=options.pop("seed", 42), **options.pop("answer", {})
    )
    return EvalTarget.bind(
        QUESTIONS,
        [settings.prompt(question, model.tokenizer) for question in QUESTIONS],
        model=model,
        model_name="base",
        adapter=None if adapter is None else Resource("adapter", adapter, Path),
        adapter_name=adapter,
        settings=settings,
        judge_binders=[bench_of(judge_of(judge, **options))],
    )


def done(call: Call[Any], value: Any, notes: bytes = b"") -> Outcome:
    record = Record(b"", call.node.codec.dump(value), "", 0.0, 0.0, {}, notes)
    return Outcome(call, "computed", record)


def settled(
    sample: SampleCalls, answer: Generation, verdicts: list[Any]
) -> dict[Call[Any], Outcome]:
    outcomes = {sample.answer: done(sample.answer, answer)}
    for call, verdict in zip(*sample.verdicts, verdicts, strict=True):
        failed = isinstance(verdict, Exception)
        outcomes[call] = Outcome(call, "failed", error=verdict) if failed else done(call, verdict)
    return outcomes


def test_each_question_has_an_answer_and_its_verdicts() -> None:
    samples = target("cerebras:m", repeats=2, options=WARM).samples
    assert [one.question for one in samples] == QUESTIONS
    for one in samples:
        assert one.answer.node is text
        assert [call.node for call in one.verdicts[0]] == [judge_parse, judge_parse]
        assert all(one.answer in call.upstream for call in one.verdicts[0])
    calls = list(target("cerebras:m", repeats=2, options=WARM).calls())
    names = ["decode", "text", "judge_parse", "judge_parse"]
    assert [call.node.name for call in calls[:4]] == names
    assert len(calls) == 8


def test_the_seed_counts_above_temperature_0_alone() -> None:
    def keys(seed: int, temperature: float) -> list[bytes]:
        samples = target(seed=seed, answer={"temperature": temperature}).samples
        return [recipe(one.decoded) for one in samples]

    assert keys(1, 0.0) == keys(2, 0.0)
    assert keys(1, 0.5) != keys(2, 0.5)


def test_an_adapter_changes_the_answers_key_and_not_the_verdicts() -> None:
    base, tuned = target(), target(adapter="tuned")
    for one, other in zip(base.samples, tuned.samples, strict=True):
        assert recipe(one.decoded) != recipe(other.decoded)
        assert [recipe(c) for c in one.verdicts[0]] == [recipe(c) for c in other.verdicts[0]]
    assert (base.adapter_name, tuned.adapter_name) == (None, "tuned")


def test_a_scored_question() -> None:
    (sample, _) = target().samples
    outcomes = settled(sample, Generation("So."), [Verdict({"f1": 1.0})])
    item = item_result(sample, outcomes, [judge_of("f1")])
    assert (item.question, item.reference, item.response) == ("Why?", "So.", "So.")
    assert (item.score, item.criteria, item.error, item.kind) == (100, {"f1": 1}, None, None)
    assert (item.scores, item.truncated, item.reasoning) == ({"f1": 100}, False, None)
    about = {"reasoning": "Hm.", "truncated": True}
    outcomes[sample.answer] = done(sample.answer, Generation("So."), write_notes(about))
    item = item_result(sample, outcomes, [judge_of("f1")])
    assert (item.reasoning, item.truncated, item.score) == ("Hm.", True, 100)


def test_a_thought_without_an_answer_is_shown_and_has_no_score() -> None:
    (sample, _) = target().samples
    error = NoAnswerError("Hm.", Decoded(b"1234" * 3, "length"))
    outcomes = {
        call: Outcome(call, "failed", error=error) for call in (sample.answer, *sample.verdicts[0])
    }
    item = item_result(sample, outcomes, [judge_of("f1")])
    assert (item.response, item.reasoning, item.truncated, item.score) == (None, "Hm.", True, None)
    assert item.kind == "NoAnswer"
    assert "within 3 tokens: raise --max-tokens" in str(item.error)


def test_a_verdict_that_failed_leaves_the_answer_and_no_score() -> None:
    (sample, _) = target("cerebras:m", repeats=2, options=WARM).samples
    scores = {"accuracy": 5.0, "relevance": 5.0, "completeness": 5.0, "clarity": 5.0}
    outcomes = settled(
        sample, Generation("So."), [Verdict(scores), APITimeoutError("no reply in 60 s")]
    )
    item = item_result(sample, outcomes, [judge_of("cerebras:m", repeats=2, options=WARM)])
    assert (item.score, item.criteria, item.spread) == (None, {}, None)
    assert item.response == "So."
    assert (item.error, item.kind) == ("timed_out: no reply in 60 s", "timed_out")


def test_an_answer_that_failed_is_why_whatever_else_failed() -> None:
    (sample, _) = target().samples
    ((verdict,),) = sample.verdicts
    outcomes: dict[Call[Any], Outcome] = {
        sample.answer: Outcome(sample.answer, "failed", error=ValueError("too long")),
        verdict: Outcome(verdict, "failed", error=APITimeoutError("later")),
    }
    item = item_result(sample, outcomes, [judge_of("f1")])
    assert item.response is None
    assert (item.error, item.kind) == ("ValueError: too long", "ValueError")
