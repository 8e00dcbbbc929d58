"""Reports: the result of an evaluation, with the same bytes every time, and how two of them differ."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cachedeval.engine.errors import InputError
from cachedeval.evals.statistics import Paired, paired, spread

__all__ = [
    "Change",
    "Comparison",
    "Item",
    "Report",
    "build_report",
    "compare_reports",
    "read_report",
]

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


class Change(NamedTuple):
    """One question's scores."""

    id: str
    question: str
    a: float
    b: float


class Comparison(NamedTuple):
    """How two reports differ on the questions that both have a score of."""

    mean_a: float
    mean_b: float
    paired: Paired
    changes: list[Change]
    """Every pair, the largest difference first."""
    only_a: int
    """Questions that only one of the two asked."""
    only_b: int
    failed: int
    """Questions that both asked and at least one has no score of."""


class _Item(msgspec.Struct):
    id: str
    question: str
    score: float | None
    criteria: dict[str, float]


class _Report(msgspec.Struct):
    judge: str
    items: list[_Item]
    rubric: str | None = None


def read_report(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the report in a file that `cachedeval run` wrote, with `--out` or with `--json`.

    Raises:
        InputError: the file cannot be read, or holds no report, or several.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"report {path}: cannot be read: {error.strerror}") from None
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"report {path}: is not JSON: {error}") from None
    several = value.get("reports") if isinstance(value, dict) else None
    if isinstance(several, list) and len(several) != 1:
        raise InputError(
            f"report {path}: holds {len(several)} reports; write each to a file of its own with "
            "--out"
        )
    found = value.get("report", value) if isinstance(value, dict) else value
    if not isinstance(found, dict) or "items" not in found:
        raise InputError(f"report {path}: holds no report of `cachedeval run`")
    return found


def compare_reports(a: Mapping[str, Any], b: Mapping[str, Any]) -> Comparison:
    """Compare two reports by the questions that both have a score of.

    Raises:
        InputError: they cannot be compared: another judge or other criteria scored them, or no
            question is in both.
    """
    one, other = _checked(a, "the first"), _checked(b, "the second")
    for what in ("judge", "rubric"):
        was, now = getattr(one, what), getattr(other, what)
        if was != now:
            raise InputError(
                f"compare: the {what} of the first report is {was}, of the second {now}; scores "
                f"by different {what}s cannot be compared"
            )
    theirs = {item.id: item for item in other.items}
    both = [(item, theirs[item.id]) for item in one.items if item.id in theirs]
    if not both:
        raise InputError(
            "compare: the two reports have no question in common; evaluate both with the same "
            "data, --seed and --sampling"
        )
    changes = []
    for left, right in both:
        if left.score is None or right.score is None:
            continue
        if left.criteria.keys() != right.criteria.keys():
            raise InputError(
                f"compare: question {left.id} was scored by other criteria in each report: "
                f"{_listed(left)} and {_listed(right)}"
            )
        changes.append(Change(left.id, left.question, left.score, right.score))
    if not changes:
        raise InputError(
            f"compare: of the {len(both)} questions in common, none has a score in both reports"
        )
    scores_a, scores_b = [each.a for each in changes], [each.b for each in changes]
    return Comparison(
        mean_a=spread(scores_a).mean,
        mean_b=spread(scores_b).mean,
        paired=paired(scores_a, scores_b),
        changes=sorted(changes, key=lambda each: (-abs(each.b - each.a), each.id)),
        only_a=len(one.items) - len(both),
        only_b=len(other.items) - len(both),
        failed=len(both) - len(changes),
    )


def _checked(report: Mapping[str, Any], which: str) -> _Report:
    try:
        return msgspec.convert(dict(report), _Report)
    except msgspec.ValidationError as error:
        raise InputError(f"compare: {which} is no report of this version: {error}") from None


def _listed(item: _Item) -> str:
    return ", ".join(item.criteria) or "none"
