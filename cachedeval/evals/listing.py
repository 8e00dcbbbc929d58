"""Telling a stored result in one line, by what its step is."""

from typing import Any

from cachedeval.engine.errors import EncodingError
from cachedeval.engine.maintenance import inputs_of, summary, value_of
from cachedeval.engine.record import Record
from cachedeval.evals.generation import generation

__all__ = ["summarise"]

_QUESTION = 30


def summarise(node: str, record: Record) -> str:
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
        case {"text": str(text)} if node == generation.name:
            return f"{_begun(_asked(inputs_of(record)))} → {text}"
        case {"scores": dict(scores)}:
            told = ", ".join(f"{name} {score}" for name, score in scores.items())
            asked = inputs_of(record).get("question")
            return f"{_begun(asked)} → {told}" if isinstance(asked, str) else told
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
