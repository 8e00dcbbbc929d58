"""Judging answers: the steps from question, reference and answer to a verdict.

A judge over HTTP is two steps. `judge_call` holds the raw reply, which was paid for; `judge_parse`
reads it, for nothing. So a better parser never pays again.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cachedeval.engine.node import Computed, node
from cachedeval.engine.resource import Handle
from cachedeval.evals.generation import EXECUTOR, Generation
from cachedeval.evals.judging.prompt import Item
from cachedeval.evals.judging.rubric import Rubric
from cachedeval.evals.judging.verdict import Verdict, parse_verdict

if TYPE_CHECKING:
    from cachedeval.evals.judging.client import JudgeClient

__all__ = [
    "JudgedItem",
    "LocalJudgeInputs",
    "judge_call",
    "judge_parse",
    "local_judge",
]


@node(version="2", name="judge")
async def judge_call(
    *,
    judge: "Handle[JudgeClient]",
    rubric: Handle[Rubric],
    question: str,
    reference: str | None,
    response: Generation,
    parameters: dict[str, Any],
    repeat: int,
) -> Computed[str]:
    """Return a judge's raw reply, known to hold a verdict.

    It is stored for the parameters that were really sent.
    """
    del repeat  # independent draws of the same verdict may differ in it alone
    with judge as client, rubric as asked:
        reply, sent = await client.ask(asked, question, reference, response.text, parameters)
    return Computed(
        reply.content,
        cost={
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
        },
        provenance={"finish_reason": reply.finish_reason},
        inputs=None if sent == parameters else {"parameters": sent},
    )


@node(version="3", name="judge_parse")
def judge_parse(
    *,
    reply: str,
    rubric: Handle[Rubric],
    question: str,
    reference: str | None,
    response: Generation,
) -> Verdict:
    """Return the verdict in a judge's reply."""
    with rubric as asked:
        return parse_verdict(reply, asked.criteria, Item(question, reference, response.text))


class JudgedItem(NamedTuple):
    """What a local model judges, and by what."""

    rubric: Rubric
    question: str
    reference: str | None
    response: str


class LocalJudgeInputs(msgspec.Struct, frozen=True):
    """The inputs of one judgement by a model on this machine.

    Attributes:
        judge: the model.
        rubric: what it scores.
        question: what was asked.
        reference: the right answer, where there is one.
        response: what was answered.
    """

    judge: Handle[Any]
    rubric: Handle[Rubric]
    question: str
    reference: str | None
    response: Generation


@node(version="4", name="local_judge", batch=True, executor=EXECUTOR)
def local_judge(
    batch: Sequence[LocalJudgeInputs],
) -> Iterator[tuple[int, Verdict | Exception] | None]:
    """Judge answers by the probabilities that a model gives the scores."""
    groups: dict[str, list[int]] = {}
    for index, inputs in enumerate(batch):
        groups.setdefault(inputs.judge.resource.identified.digest, []).append(index)
    for indexes in groups.values():
        items = []
        for index in indexes:
            inputs = batch[index]
            with inputs.rubric as rubric:
                items.append(
                    JudgedItem(rubric, inputs.question, inputs.reference, inputs.response.text)
                )
        with batch[indexes[0]].judge as service:
            for result in service.judge(items):
                yield None if result is None else (indexes[result[0]], result[1])
