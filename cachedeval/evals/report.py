"""Reports: what an evaluation found, the same bytes every time, and beside it what varies."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from cachedeval.evals.statistics import spread

__all__ = ["Item", "Report", "build_report"]

_DIGITS = 6
"""Means are rounded to so many decimals, far below what they can mean."""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One question's result."""

    id: str
    question: str
    reference: str | None
    response: str | None
    score: float | None
    """0 to 100, or None where it failed."""
    criteria: dict[str, float]
    """The judge's score of each criterion, in the criterion's own range."""
    rationale: str
    error: str | None
    """Kind and message of what failed."""
    spread: float | None = None
    """Standard deviation of the score over repeated verdicts; None where there is one."""
    kind: str | None = None
    """The kind of failure alone, as the report counts it."""


class Report(Mapping[str, Any]):
    """The result of one evaluation: a mapping with the fields of the JSON's `report` part.

    Attributes:
        run: what varies from run to run: `seconds`, `loads`, `nodes` with their counts.
    """

    def __init__(self, report: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        self._report = dict(report)
        self.run = dict(run)

    def __getitem__(self, key: str) -> Any:
        return self._report[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._report)

    def __len__(self) -> int:
        return len(self._report)

    def __repr__(self) -> str:
        score = "no score" if self.score is None else f"{self.score:.1f}"
        return f"<Report {score}, {self['scored']} scored, {self['failed']} failed>"

    @property
    def score(self) -> float | None:
        """Mean score of those scored, 0 to 100; None where none was."""
        score: float | None = self._report["score"]
        return score

    @property
    def scored(self) -> int:
        """How many questions were scored."""
        return int(self._report["scored"])

    @property
    def failed(self) -> int:
        """How many questions failed."""
        return int(self._report["failed"])

    def to_dict(self) -> dict[str, Any]:
        """Return the deterministic part as plain data."""
        return dict(self._report)

    def to_json(self) -> str:
        """Return the deterministic part as JSON: the same bytes for the same inputs."""
        return json.dumps(self._report, indent=2, allow_nan=False)


def build_report(
    items: Sequence[Item], *, failures_count_zero: bool, **about: Any
) -> dict[str, Any]:
    """Return the deterministic part of a report.

    Args:
        items: the questions' results, in the sample's order.
        failures_count_zero: whether a failed question enters the mean as 0, as the original did;
            otherwise the mean is over the scored ones.
        about: what was evaluated: model, adapter, judge, seed.
    """
    scores = [item.score for item in items if item.score is not None]
    failed = len(items) - len(scores)
    counted = scores + [0.0] * failed if failures_count_zero else scores
    kinds = sorted(item.kind for item in items if item.kind is not None)
    overall = spread(counted) if counted else None
    return {
        "score": None if overall is None else round(overall.mean, _DIGITS),
        "stderr": None
        if overall is None or overall.stderr is None
        else round(overall.stderr, _DIGITS),
        "questions": len(items),
        "scored": len(scores),
        "failed": failed,
        "failures": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        **about,
        "criteria": _criteria_means(items),
        "items": [
            {
                "id": item.id,
                "question": item.question,
                "reference": item.reference,
                "response": item.response,
                "score": item.score,
                "criteria": item.criteria,
                "rationale": item.rationale,
                "spread": item.spread,
                "error": item.error,
            }
            for item in items
        ],
    }


def _criteria_means(items: Sequence[Item]) -> dict[str, float]:
    names = dict.fromkeys(name for item in items for name in item.criteria)
    means = {}
    for name in names:
        values = [item.criteria[name] for item in items if name in item.criteria]
        means[name] = round(spread(values).mean, _DIGITS)
    return means
