"""The steps that every peer caches, as plain functions of the standard library.

The steps cost nothing, so that what is timed is the caching alone. An answer is about 700 bytes, as
150 tokens are. A verdict is a score and a sentence.
"""

from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

__all__ = [
    "Steps",
    "answer_of",
    "answers",
    "generation",
    "judge",
    "mean",
    "question_of",
    "verdict_of",
]


class Steps(NamedTuple):
    """The pipeline's steps as a peer caches them.

    Attributes:
        generation: of a model's name, a question and a limit of tokens.
        judge: of a judge's name, a question and an answer.
        mean: of the verdicts; None where the peer caches no such step.
        run: the whole pipeline for a number of questions, where it is not called step by step.
    """

    generation: Callable[[str, str, int], Any]
    judge: Callable[[str, str, str], Any]
    mean: Callable[[list[Any]], float] | None = None
    run: Callable[[int], float] | None = None


_computed = count()


def question_of(number: int, changed: int = -1) -> str:
    """Return the text of a question; the changed one has another."""
    mark = " (changed)" if number == changed else ""
    return f"Question {number}{mark}: what follows from premise {number * 7919}? " + "x" * 80


def answer_of(question: str) -> str:
    """Return an answer of about 700 bytes that depends on the question."""
    next(_computed)
    return f"The answer to {question!r} is as follows. " + f"{len(question)} reasons. " * 42


def answers() -> int:
    """Return how many answers this process has computed."""
    return next(_computed)


def verdict_of(question: str, answer: str) -> dict[str, Any]:
    """Return a verdict: a score of 0 to 10 and a rationale."""
    return {"score": (len(question) * len(answer)) % 11, "rationale": "It is complete. " * 8}


def generation(model: str, question: str, max_tokens: int) -> str:
    """Answer."""
    del model, max_tokens
    return answer_of(question)


def judge(model: str, question: str, answer: str) -> dict[str, Any]:
    """Judge."""
    del model
    return verdict_of(question, answer)


def mean(verdicts: list[dict[str, Any]]) -> float:
    """Average."""
    return sum(float(verdict["score"]) for verdict in verdicts) / len(verdicts)
