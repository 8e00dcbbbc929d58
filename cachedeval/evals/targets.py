"""What is evaluated: a model with or without an adapter, and the calls that score its questions."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from cachedeval.engine.node import Call
from cachedeval.engine.outcome import Outcome
from cachedeval.engine.resource import Resource
from cachedeval.evals.data import Question
from cachedeval.evals.generation import AdapterError, Generation, generation
from cachedeval.evals.judging.judge import Bench, Judge
from cachedeval.evals.report import ItemResult

__all__ = ["Bound", "Subject", "read_item"]


class Bound(NamedTuple):
    """A question bound to its steps."""

    question: Question
    answer: Call[Generation]
    verdicts: tuple[Call[Any], ...]


class Subject(NamedTuple):
    """A model, with or without an adapter, and its questions."""

    model_name: str
    adapter_name: str | None
    bound: list[Bound]

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
        bench: Bench,
    ) -> Self:
        """Bind each question to a generation and to what judges it.

        Args:
            questions: the sample.
            model: the base model.
            model_name: what reports call it.
            adapter: the adapter, or None.
            adapter_name: what reports call it.
            answer: `max_tokens`, `temperature` and `top_p` of the answers.
            seed: of the sampling; greedy answers do not depend on it.
            bench: binds an answer to what judges it.
        """
        bound = []
        for question in questions:
            call = generation(
                model=model,
                adapter=adapter,
                messages=question.messages,
                seed=seed if answer["temperature"] else None,
                **answer,
            )
            bound.append(Bound(question, call, bench(question, call)))
        return cls(model_name, adapter_name, bound)

    def calls(self) -> Iterator[Call[Any]]:
        """Yield the calls whose outcomes the report is made of."""
        for bound in self.bound:
            yield bound.answer
            yield from bound.verdicts

    def unusable(self, outcomes: Mapping[Call[Any], Outcome]) -> AdapterError | None:
        """Return why the adapter could answer nothing at all, if that is so."""
        errors = [outcomes[bound.answer].error for bound in self.bound]
        refused = [error for error in errors if isinstance(error, AdapterError)]
        return refused[0] if refused and len(refused) == len(errors) else None


def read_item(bound: Bound, outcomes: Mapping[Call[Any], Outcome], judge: Judge) -> ItemResult:
    """Return the item of a question: its answer and its score, or why it has none."""
    answer = outcomes[bound.answer]
    verdicts = [outcomes[call] for call in bound.verdicts]
    error = next((o.error for o in (answer, *verdicts) if o.error is not None), None)
    scored = None if error is not None else judge.read([o.value for o in verdicts], bound.question)
    kind = str(getattr(error, "kind", type(error).__name__))
    score = None if scored is None else scored.score
    answered = answer.value if answer.error is None else None
    return ItemResult(
        id=bound.question.id,
        question=bound.question.question,
        reference=bound.question.reference,
        response=None if answered is None else answered.text,
        truncated=answered is not None and answered.finish_reason == "length",
        score=score,
        scores={judge.name: score},
        criteria={} if scored is None else scored.criteria,
        rationale="" if scored is None else scored.rationale,
        spread=None if scored is None else scored.spread,
        error=None if error is None else f"{kind}: {error}",
    )
