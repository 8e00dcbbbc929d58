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
from cachedeval.evals.report import ItemResult

__all__ = ["EvalTarget", "SampleCalls", "item_result"]


class SampleCalls(NamedTuple):
    """A question, and the calls that answer and score it."""

    question: Question
    answer: Call[Generation]
    verdicts: tuple[Call[Any], ...]


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
        judge_binder: JudgeBinder,
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
            judge_binder: binds an answer to the calls that score it.
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
            samples.append(SampleCalls(question, call, judge_binder(question, call)))
        return cls(model_name, adapter_name, samples)

    def calls(self) -> Iterator[Call[Any]]:
        """Yield the calls whose outcomes make up the report."""
        for sample in self.samples:
            yield sample.answer
            yield from sample.verdicts

    def unusable(self, outcomes: Mapping[Call[Any], Outcome]) -> AdapterError | None:
        """Return the error of an adapter that cannot answer any question, or None."""
        errors = [outcomes[sample.answer].error for sample in self.samples]
        refused = [error for error in errors if isinstance(error, AdapterError)]
        return refused[0] if refused and len(refused) == len(errors) else None


def item_result(
    sample: SampleCalls, outcomes: Mapping[Call[Any], Outcome], judge: Judge
) -> ItemResult:
    """Return the item of a question: its answer and its score, or why it has none."""
    answer = outcomes[sample.answer]
    verdicts = [outcomes[call] for call in sample.verdicts]
    error = next((o.error for o in (answer, *verdicts) if o.error is not None), None)
    scored = None if error is not None else judge.read([o.value for o in verdicts], sample.question)
    kind = str(getattr(error, "kind", type(error).__name__))
    score = None if scored is None else scored.score
    answered = answer.value if answer.error is None else None
    return ItemResult(
        id=sample.question.id,
        question=sample.question.question,
        reference=sample.question.reference,
        response=None if answered is None else answered.text,
        truncated=answered is not None and answered.finish_reason == "length",
        score=score,
        scores={judge.name: score},
        criteria={} if scored is None else scored.criteria,
        rationale="" if scored is None else scored.rationale,
        spread=None if scored is None else scored.spread,
        error=None if error is None else f"{kind}: {error}",
    )
