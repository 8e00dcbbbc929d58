"""The steps of an evaluation as users see them: `generation` and `judge`, not their nodes."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from cachedeval.engine.errors import EncodingError
from cachedeval.engine.maintenance import inputs_of, summary, value_of
from cachedeval.evals.generation import decode, render, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cachedeval.engine.explain import Explanation, Reason
    from cachedeval.engine.record import Record

__all__ = ["PARSING", "UNCOUNTED", "reasons_of", "step_of", "summarise"]

PARSING = "judge_parse"
"""The node that reads a judge's reply. It takes no time, and users need not know of it."""

EFFECT = "adapter_effect"
"""The node that finds out whether an adapter changes anything."""

UNCOUNTED = frozenset({render.name, text.name, PARSING, EFFECT})
"""Nodes that take no time beside that of the step that they belong to, and are not counted there."""

_JUDGE, _GENERATION = "judge", "generation"
_STEPS = {
    **dict.fromkeys((render.name, decode.name, text.name, EFFECT), _GENERATION),
    PARSING: _JUDGE,
    "reference": _JUDGE,  # of caches of earlier versions
    "scorer": _JUDGE,
    "custom_scorer": _JUDGE,
    "local_judge": _JUDGE,
}

_QUESTION = 30
_OUTPUT = "(output of "


def step_of(node: str) -> str:
    """Return the step that a node belongs to.

    Example:
        >>> step_of("reference")
        'judge'
    """
    return _STEPS.get(node, node)


def reasons_of(explanations: "Iterable[Explanation]") -> "list[Reason]":
    """Group explanations by reason, as `cachedeval.engine.explain` does, named by step.

    A node that only waits for another node of the same step is left out.
    """
    from cachedeval.engine import explain  # only `explain` needs it; a run needs `step_of` alone

    return [
        _named(reason)
        for reason in explain.reasons_of(explanations)
        if not (
            reason.state == "waits" and {*map(step_of, reason.waits_for)} == {step_of(reason.node)}
        )
    ]


def _named(reason: "Reason") -> "Reason":
    waits_for = Counter[str]()
    for node, calls in reason.waits_for.items():
        waits_for[step_of(node)] += calls
    return reason._replace(
        node=step_of(reason.node),
        changed=[each._replace(where=_by_step(each.where)) for each in reason.changed],
        waits_for=dict(waits_for),
        because=[_named(cause) for cause in _first_of_step(reason.because)],
    )


def _by_step(where: str) -> str:
    """Return the path to a field with a step's name in place of a node's."""
    name, found, rest = where.partition(_OUTPUT)
    if not found:
        return where
    node, end, path = rest.partition(")")
    return f"{name}{_OUTPUT}{step_of(node)}{end}{path}"


def _first_of_step(causes: "Iterable[Reason]") -> "Iterator[Reason]":
    """Yield causes; of nodes of one step that follow each other, the first alone."""
    for cause in causes:
        before = [each for each in cause.because if step_of(each.node) == step_of(cause.node)]
        if before:
            yield from _first_of_step(before)
        else:
            yield cause


def summarise(node: str, record: "Record") -> str:
    """Return question and answer, a verdict's scores, or what else a record holds.

    Args:
        node: the step's name, as `cachedeval.engine.maintenance` lists it.
        record: its result.
    """
    try:
        value = value_of(record)
    except EncodingError:  # the engine's own records, and what cannot be read
        return summary(node, record)
    match value:
        case {"text": str(answer)} if node == text.name:
            return answer
        case {"tokens": bytes(tokens)} if node == render.name:
            return f"{_begun(_asked(inputs_of(record)))} → {len(tokens) // 4} tokens"
        case {"tokens": bytes(tokens), "finish": str(finish)} if node == decode.name:
            return f"{len(tokens) // 4} tokens, {finish}"
        case {"scores": dict(scores)}:
            shown = ", ".join(f"{name} {score}" for name, score in scores.items())
            asked = inputs_of(record).get("question")
            return f"{_begun(asked)} → {shown}" if isinstance(asked, str) else shown
    return summary(node, record)


def _asked(inputs: dict[str, Any]) -> str:
    for message in reversed(inputs.get("messages") or ()):
        if isinstance(message, dict) and message.get("role") == "user":
            return str(message.get("content"))
    return ""


def _begun(question: str) -> str:
    """Return how a question begins, so that the answer is seen too."""
    line = " ".join(question.split())
    return line if len(line) <= _QUESTION else f"{line[: _QUESTION - 1]}…"
