"""What is evaluated: a model with or without an adapter, and the calls that score its questions."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from cachedeval.engine.node import Call
from cachedeval.engine.resource import Resource
from cachedeval.engine.result import Outcome
from cachedeval.evals.adapters import adapter_effect
from cachedeval.evals.answering import AnswerSettings
from cachedeval.evals.data import Question
from cachedeval.evals.generation import (
    AdapterError,
    Decoded,
    Generation,
    NoAnswerError,
    PromptError,
    Rendered,
)
from cachedeval.evals.judging.judge import Judge, JudgeBinder
from cachedeval.evals.models import ModelResource
from cachedeval.evals.report import ItemResult, Judgement

__all__ = ["EvalTarget", "SampleCalls", "item_result", "notes_of"]


class SampleCalls(NamedTuple):
    """A question, and the calls that answer and score it."""

    question: Question
    decoded: Call[Decoded]
    answer: Call[Generation]
    verdicts: tuple[tuple[Call[Any], ...], ...]
    """Those of each judge, in the judges' order."""


class EvalTarget(NamedTuple):
    """A model with or without an adapter, and the calls of its questions."""

    model_name: str
    adapter_name: str | None
    samples: list[SampleCalls]
    effect: Call[str] | None = None
    """Finds out whether the adapter changes anything; None for the base model."""
    notes: Sequence[str] = ()
    """What is to be known of the sample."""

    @classmethod
    def bind(
        cls,
        questions: Sequence[Question],
        prompts: Sequence[Call[Rendered]],
        *,
        model: ModelResource,
        model_name: str,
        adapter: Resource[Path] | None,
        adapter_name: str | None,
        settings: AnswerSettings,
        judge_binders: Sequence[JudgeBinder],
        notes: Sequence[str] = (),
    ) -> Self:
        """Bind each question to the calls that answer it and those that score it.

        Args:
            questions: the sample.
            prompts: the calls that render the questions.
            model: the base model.
            model_name: its name in reports.
            adapter: the adapter, or None.
            adapter_name: its name in reports.
            settings: how questions are answered.
            judge_binders: bind an answer to the calls that score it, one for each judge.
            notes: what is to be known of the sample.
        """
        samples = []
        for question, prompt in zip(questions, prompts, strict=True):
            decoded, answer = settings.answer(prompt, model, adapter)
            verdicts = tuple(bind(question, answer) for bind in judge_binders)
            samples.append(SampleCalls(question, decoded, answer, verdicts))
        effect = None if adapter is None else adapter_effect(adapter)
        return cls(model_name, adapter_name, samples, effect, notes)

    def calls(self) -> Iterator[Call[Any]]:
        """Yield the calls whose outcomes make up the report."""
        if self.effect is not None:
            yield self.effect
        yield from self.scoring()

    def scoring(self) -> Iterator[Call[Any]]:
        """Yield the calls that answer and score the questions."""
        for sample in self.samples:
            yield sample.decoded
            yield sample.answer
            for verdicts in sample.verdicts:
                yield from verdicts

    def unusable(self, outcomes: Mapping[Call[Any], Outcome]) -> AdapterError | PromptError | None:
        """Return the error of an adapter, or of a chat template, that no question can pass, or None."""
        errors = [outcomes[sample.answer].error for sample in self.samples]
        refused = [error for error in errors if isinstance(error, (AdapterError, PromptError))]
        kinds = {(type(error), str(error)) for error in refused}
        return refused[0] if len(kinds) == 1 and len(refused) == len(errors) else None


def notes_of(
    targets: Sequence[EvalTarget], outcomes: Mapping[Call[Any], Outcome]
) -> list[list[str]]:
    """Return the notes of each target's report: on the sample, its adapter, and equal answers."""
    found: list[list[str]] = []
    answers: list[tuple[str, list[str]]] = []
    for target in targets:
        notes = list(target.notes)
        effect = None if target.effect is None else outcomes[target.effect]
        if effect is not None and effect.error is None and effect.value:
            notes.append(f"the adapter changes nothing: {effect.value}")
        name = target.adapter_name or "the base model"
        mine = [outcomes[sample.answer] for sample in target.samples]
        if all(outcome.record is not None for outcome in mine):
            digests = [outcome.digest for outcome in mine]
            same = next((other for other, theirs in answers if theirs == digests), None)
            if same is not None:
                notes.append(f"gives the same answer as {same} to every question")
            answers.append((name, digests))
        found.append(notes)
    return found


def item_result(
    sample: SampleCalls, outcomes: Mapping[Call[Any], Outcome], judges: Sequence[Judge]
) -> ItemResult:
    """Return the item of a question: its answer, and its score by each judge or why it has none."""
    answer = outcomes[sample.answer]
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
    provenance = {} if answer.record is None else answer.record.provenance
    thought = provenance.get("reasoning")
    truncated = provenance.get("truncated") is True
    if isinstance(answer.error, NoAnswerError):
        thought, truncated = answer.error.reasoning, answer.error.truncated
    return ItemResult(
        id=sample.question.id,
        question=sample.question.question,
        reference=sample.question.reference,
        response=None if answer.error is not None else answer.value.text,
        reasoning=thought if isinstance(thought, str) else None,
        truncated=truncated,
        score=scores[judges[0].name],
        scores=scores,
        criteria=first.criteria,
        rationale=first.rationale,
        spread=first.spread,
        error=first.error,
        others={judge.name: each for judge, each in zip(judges[1:], further, strict=True)},
    )
