"""Comparing two reports, question by question."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cachedeval.engine.errors import InputError
from cachedeval.evals.statistics import Paired, paired, spread

__all__ = ["Change", "Comparison", "compare_reports", "read_report"]


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
