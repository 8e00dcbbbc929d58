"""What is evaluated: a model with or without an adapter, and the calls that score its questions."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from cachedeval.engine.node import Call
from cachedeval.engine.resource import Resource
from cachedeval.engine.result import Outcome
from cachedeval.evals.data import Question
from cachedeval.evals.generation import AdapterError, Generation, generation
from cachedeval.evals.judging.judge import Judge, JudgeBinder
from cachedeval.evals.report import ItemResult, Judgement

__all__ = ["EvalTarget", "SampleCalls", "item_result"]


class SampleCalls(NamedTuple):
    """A question, and the calls that answer and score it."""

    question: Question
    answer: Call[Generation]
    verdicts: tuple[tuple[Call[Any], ...], ...]
    """Those of each judge, in the judges' order."""


class EvalTarget(NamedTuple):
    """A model with or without an adapter, and the calls of its questions."""

    model_name: str
    adapter_name: str | None
    samples: list[SampleCalls]

    @classmethod
    def bind(
        cls,
        questions: Sequence[Question],
        *,
        model: Resource[Any],
        model_name: str,
        adapter: Resource[Path] | None,
        adapter_name: str | None,
        answer: Mapping[str, Any],
        seed: int,
        judge_binders: Sequence[JudgeBinder],
    ) -> Self:
        """Bind each question to the call that answers it and those that score it.

        Args:
            questions: the sample.
            model: the base model.
            model_name: its name in reports.
            adapter: the adapter, or None.
            adapter_name: its name in reports.
            answer: `max_tokens`, `temperature` and `top_p` of the answers.
            seed: of the sampling; greedy answers do not depend on it.
            judge_binders: bind an answer to the calls that score it, one for each judge.
        """
        samples = []
        for question in questions:
            call = generation(
                model=model,
                adapter=adapter,
                messages=question.messages,
                seed=seed if answer["temperature"] else None,
                **answer,
            )
            verdicts = tuple(bind(question, call) for bind in judge_binders)
            samples.append(SampleCalls(question, call, verdicts))
        return cls(model_name, adapter_name, samples)

    def calls(self) -> Iterator[Call[Any]]:
        """Yield the calls whose outcomes make up the report."""
        for sample in self.samples:
            yield sample.answer
            for verdicts in sample.verdicts:
                yield from verdicts

    def unusable(self, outcomes: Mapping[Call[Any], Outcome]) -> AdapterError | None:
        """Return the error of an adapter that cannot answer any question, or None."""
        errors = [outcomes[sample.answer].error for sample in self.samples]
        refused = [error for error in errors if isinstance(error, AdapterError)]
        return refused[0] if refused and len(refused) == len(errors) else None


def item_result(
    sample: SampleCalls, outcomes: Mapping[Call[Any], Outcome], judges: Sequence[Judge]
) -> ItemResult:
    """Return the item of a question: its answer, and its score by each judge or why it has none."""
    answer = outcomes[sample.answer]
    answered = answer.value if answer.error is None else None
    scores: dict[str, float | None] = {}
    found: list[Judgement] = []
    for judge, calls in zip(judges, sample.verdicts, strict=True):
        verdicts = [outcomes[call] for call in calls]
        error = next((o.error for o in (answer, *verdicts) if o.error is not None), None)
        if error is not None:
            kind = str(getattr(error, "kind", type(error).__name__))
            scores[judge.name] = None
            found.append(Judgement(error=f"{kind}: {error}"))
            continue
        scored = judge.read([o.value for o in verdicts], sample.question)
        scores[judge.name] = scored.score
        found.append(
            Judgement(criteria=scored.criteria, rationale=scored.rationale, spread=scored.spread)
        )
    first, *further = found
    return ItemResult(
        id=sample.question.id,
        question=sample.question.question,
        reference=sample.question.reference,
        response=None if answered is None else answered.text,
        truncated=answered is not None and answered.finish_reason == "length",
        score=scores[judges[0].name],
        scores=scores,
        criteria=first.criteria,
        rationale=first.rationale,
        spread=first.spread,
        error=first.error,
        others={judge.name: each for judge, each in zip(judges[1:], further, strict=True)},
    )
