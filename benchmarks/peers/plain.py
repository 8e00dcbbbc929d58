"""The plain functions that a decorator is put on."""

from typing import Any

from benchmarks.workload import answer_of, verdict_of

__all__ = ["generation", "judge", "mean"]


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
