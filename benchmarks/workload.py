"""The steps of the pipeline that every peer runs, as plain functions of the standard library."""

from typing import Any

__all__ = ["answer_of", "question_of", "verdict_of"]


def question_of(number: int, changed: int = -1) -> str:
    """Return the text of a question; the changed one has another."""
    mark = " (changed)" if number == changed else ""
    return f"Question {number}{mark}: what follows from premise {number * 7919}? " + "x" * 80


def answer_of(question: str) -> str:
    """Return an answer of about 700 bytes that depends on the question."""
    return f"The answer to {question!r} is as follows. " + f"{len(question)} reasons. " * 42


def verdict_of(question: str, answer: str) -> dict[str, Any]:
    """Return a verdict: a score of 0 to 10 and a rationale."""
    return {"score": (len(question) * len(answer)) % 11, "rationale": "It is complete. " * 8}
