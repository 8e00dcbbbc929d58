"""Reports: what an evaluation found, the same bytes every time, and how two of them differ."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import msgspec

from cachedeval.engine.errors import InputError
from cachedeval.evals.statistics import FEWEST_PAIRS, Paired, interval, paired, spread

__all__ = [
    "Change",
    "Comparison",
    "ItemResult",
    "JudgeSummary",
    "Judgement",
    "Report",
    "build_report",
    "compare",
    "read_report",
    "read_reports",
]

_DIGITS = 6
"""Decimals that means are rounded to, far below what they can mean."""

_SIGNIFICANT = 0.05
_MOST = 100.0


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What a further judge found of one question; see `ItemResult` for its fields.

    Example:
        >>> Judgement(criteria={"accuracy": 8.0}, rationale="Right, but long.").criteria
        {'accuracy': 8.0}
    """

    criteria: dict[str, float] = {}
    rationale: str = ""
    spread: float | None = None
    error: str | None = None


class ItemResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one question.

    Example:
        >>> item = ItemResult(
        ...     id="q1", question="1 + 1?", response="2", score=80.0, criteria={"accuracy": 8.0}
        ... )
        >>> item.score, item.criteria
        (80.0, {'accuracy': 8.0})
    """

    id: str
    question: str
    reference: str | None = None
    response: str | None = None
    reasoning: str | None = None
    """What the model thought before it answered, where that is apart from the response."""
    truncated: bool = False
    """Whether the response ended at the bound of its length."""
    score: float | None
    """0 to 100; None where the question failed."""
    scores: dict[str, float | None] = {}
    """The score of each judge, by its name; `score` is that of the first."""
    criteria: dict[str, float]
    """The judge's score of each criterion, in the criterion's own range."""
    rationale: str = ""
    spread: float | None = None
    """Standard deviation of the score over repeated verdicts; None where there is one verdict."""
    error: str | None = None
    """Kind and message of the failure: `timed_out: no reply in 60 s`."""
    others: dict[str, Judgement] = {}
    """What the further judges found, by name; their scores are in `scores`."""

    @property
    def kind(self) -> str | None:
        """The kind of the failure, as a report counts it; None where the question has a score."""
        return None if self.error is None else self.error.partition(":")[0]


class JudgeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What one judge found; see `Report` for its fields.

    Example:
        >>> summary = JudgeSummary(
        ...     score=80.0, stderr=None, interval=None, scored=1, failed=0, failures={}, rubric=None,
        ...     criteria={},
        ... )
        >>> summary.score
        80.0
    """

    score: float | None
    stderr: float | None
    interval: list[float] | None
    scored: int
    failed: int
    failures: dict[str, int]
    rubric: str | None
    criteria: dict[str, float]


class Report(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The result of one evaluation.

    The fields are those of the JSON, and `report["score"]` is the same as `report.score`. Two
    reports are equal if their results are; `run` does not count.

    Example:
        >>> item = ItemResult(id="0001", question="Why?", score=80.0, criteria={"clarity": 8.0})
        >>> report = Report(judge="f1", items=[item], score=80.0, questions=1, scored=1)
        >>> report
        <Report base: 80.0, 1 scored, 0 failed>
        >>> report.items[0].criteria
        {'clarity': 8.0}
        >>> [row["score"] for row in report.to_dicts()]
        [80.0]
    """

    score: float | None = None
    """Mean score, 0 to 100; None where no question has a score."""
    stderr: float | None = None
    """Standard error of the mean."""
    interval: list[float] | None = None
    """The 95% interval of the mean, both ends; None below two scores, which say nothing."""
    questions: int = 0
    scored: int = 0
    failed: int = 0
    failures: dict[str, int] = {}
    """How many questions failed, by kind."""
    truncated: int = 0
    """How many responses ended at the bound of their length."""
    model: str | None = None
    adapter: str | None = None
    """None is the base model without an adapter."""
    judge: str
    judges: list[str] = []
    """All judges; the first is `judge`."""
    by_judge: dict[str, JudgeSummary] = {}
    """Score, interval and failures of each judge; those of the first are the report's own."""
    judge_parameters: dict[str, dict[str, Any]] = {}
    """By judge, the parameters of its requests."""
    judge_refused: dict[str, list[str]] = {}
    """By judge, the parameters that its service refused, and that are not sent."""
    rubric: str | None = None
    seed: int | None = None
    criteria: dict[str, float] = {}
    """Mean of each criterion."""
    notes: list[str] = []
    """What else a reader of the scores should know: questions that are repeated, lines of the data that
    were left out, an adapter that changes nothing."""
    items: list[ItemResult]
    run: dict[str, Any] = {}
    """What varies from run to run, and is not in the JSON: `seconds`, `loads`, `nodes`."""

    def __getitem__(self, key: str) -> Any:
        if key not in _FIELDS:
            raise KeyError(key)
        return msgspec.to_builtins(getattr(self, key))

    def __iter__(self) -> Iterator[str]:
        return iter(_FIELDS)

    def __len__(self) -> int:
        return len(_FIELDS)

    def __contains__(self, key: object) -> bool:
        return key in _FIELDS

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Report | Mapping):
            return NotImplemented
        return self.to_dict() == (other.to_dict() if isinstance(other, Report) else dict(other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        score = "no score" if self.score is None else f"{self.score:.1f}"
        certain = "" if self.interval is None else " ({:.1f} to {:.1f})".format(*self.interval)
        name = self.adapter or "base"
        return f"<Report {name}: {score}{certain}, {self.scored} scored, {self.failed} failed>"

    def keys(self) -> tuple[str, ...]:
        """Return the names of the JSON's fields."""
        return _FIELDS

    def get(self, key: str, default: Any = None) -> Any:
        """Return a field as plain data, or the default if there is no such field."""
        return self[key] if key in _FIELDS else default

    def to_dict(self) -> dict[str, Any]:
        """Return the deterministic part as plain data."""
        return {name: self[name] for name in _FIELDS}

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one flat row a question and judge: `pandas.DataFrame(report.to_dicts())`."""
        about = {"model": self.model, "adapter": self.adapter}
        rows = []
        for item in self.items:
            row = msgspec.structs.asdict(item)
            scores = row.pop("scores") or {self.judge: item.score}
            others = row.pop("others")
            for judge, score in scores.items():
                found = {} if judge not in others else msgspec.structs.asdict(others[judge])
                rows.append({**about, "judge": judge, **row, **found, "score": score})
        return rows

    def to_pandas(self) -> Any:
        """Return the rows of `to_dicts` as a `pandas.DataFrame`.

        Raises:
            ImportError: pandas is not installed.
        """
        return import_module("pandas").DataFrame(self.to_dicts())

    def to_json(self) -> str:
        """Return the deterministic part as JSON: the same bytes for the same inputs.

        Raises:
            ValueError: a number is NaN or infinite.
        """
        # In ASCII: a question may hold half of a surrogate pair, which UTF-8 cannot.
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)


_FIELDS = tuple(name for name in Report.__struct_fields__ if name != "run")


class Change(NamedTuple):
    """The scores of one question.

    Example:
        >>> Change("q1", "1 + 1?", a=50.0, b=100.0)
        Change(id='q1', question='1 + 1?', a=50.0, b=100.0)
    """

    id: str
    question: str
    a: float
    """The score in the first report, 0 to 100."""
    b: float
    """The score in the second report."""


class Comparison(NamedTuple):
    """How two reports differ on the questions that have a score in both.

    Example:
        >>> from cachedeval import ItemResult, Report, compare
        >>> def report(*scores: float) -> Report:
        ...     items = [
        ...         ItemResult(id=f"q{n}", question=f"{n}?", score=score, criteria={})
        ...         for n, score in enumerate(scores)
        ...     ]
        ...     return Report(judge="f1", items=items, questions=len(items), scored=len(items))
        >>> compare(report(50.0, 60.0), report(70.0, 60.0))
        <Comparison: too few to tell, +10.0, 2 pairs>
    """

    mean_a: float
    mean_b: float
    paired: Paired
    changes: list[Change]
    """Every pair, the largest difference first."""
    only_a: int
    """Questions that are in one of the two alone."""
    only_b: int
    failed: int
    """Questions in both that lack a score in at least one."""

    @property
    def verdict(self) -> str:
        """How B is compared with A.

        `better`, `worse`, `the same`, `not clearly different`, or `too few to tell`: with fewer
        than six pairs no test can say that one is better.
        """
        test = self.paired
        if test.n < FEWEST_PAIRS:
            return "too few to tell"
        if (test.low > 0 or test.high < 0) and test.p_value < _SIGNIFICANT:
            return "better" if test.difference > 0 else "worse"
        return "the same" if test.same == test.n else "not clearly different"

    def __repr__(self) -> str:
        return f"<Comparison: {self.verdict}, {self.paired.difference:+.1f}, {self.paired.n} pairs>"


def build_report(
    items: Sequence[ItemResult],
    *,
    failures_count_zero: bool,
    rubrics: Mapping[str, str | None] | None = None,
    run: Mapping[str, Any] | None = None,
    **about: Any,
) -> Report:
    """Return the report of an evaluation.

    Args:
        items: the questions' results, in the sample's order.
        failures_count_zero: whether a failed question enters the mean as 0, as in the original;
            otherwise the mean is over the scored ones.
        rubrics: all judges with their rubrics, the first one first; if not given, that is the only one.
        run: what varies from run to run.
        about: what was evaluated: model, adapter, judge, rubric, seed.
    """
    first = about["judge"]
    summaries = {
        judge: _summary(items, judge, first, rubric, failures_count_zero=failures_count_zero)
        for judge, rubric in (rubrics or {first: about.get("rubric")}).items()
    }
    own = msgspec.structs.asdict(summaries[first])
    return Report(
        questions=len(items),
        truncated=sum(item.truncated for item in items),
        judges=list(summaries),
        by_judge=summaries,
        items=list(items),
        run=dict(run or {}),
        **{**own, **about},
    )


def _summary(
    items: Sequence[ItemResult],
    judge: str,
    first: str,
    rubric: str | None,
    *,
    failures_count_zero: bool,
) -> JudgeSummary:
    """Return what a judge found; that of the first is in the items' own fields."""
    found = [item if judge == first else item.others[judge] for item in items]
    given = [item.score if judge == first else item.scores[judge] for item in items]
    scores = [score for score in given if score is not None]
    failed = len(items) - len(scores)
    counted = scores + [0.0] * failed if failures_count_zero else scores
    kinds = sorted(each.error.partition(":")[0] for each in found if each.error is not None)
    overall = spread(counted) if counted else None
    stderr = None if overall is None else overall.stderr
    return JudgeSummary(
        score=None if overall is None else round(overall.mean, _DIGITS),
        stderr=None if stderr is None else round(stderr, _DIGITS),
        interval=None if stderr is None else list(interval(counted)),
        scored=len(scores),
        failed=failed,
        failures={kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        rubric=rubric,
        criteria=_criteria_means(found),
    )


def read_report(path: str | os.PathLike[str]) -> Report:
    """Return the report in a file that `cachedeval run` wrote, with `--out` or with `--json`.

    A report of an earlier version lacks fields; they have their defaults.

    Raises:
        InputError: the file cannot be read, or does not hold exactly one report.
    """
    reports = read_reports(path)
    if len(reports) != 1:
        raise InputError(
            f"report {path}: holds {len(reports)} reports; write each to a separate file with --out"
        )
    return reports[0]


def read_reports(path: str | os.PathLike[str]) -> list[Report]:
    """Return the reports in a file that `cachedeval run` wrote, with `--out` or with `--json`.

    Raises:
        InputError: the file cannot be read, or holds no report.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"report {path}: cannot be read: {error.strerror}") from None
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InputError(f"report {path}: is not JSON: {error}") from None
    found = [value]
    if isinstance(value, dict):
        several = value.get("reports")
        found = several if isinstance(several, list) else [value.get("report", value)]
    if not found or not all(isinstance(each, dict) and "items" in each for each in found):
        raise InputError(f"report {path}: holds no report of `cachedeval run`")
    return [_report(each, f"report {path}") for each in found]


def compare(
    a: Report | Mapping[str, Any], b: Report | Mapping[str, Any], judge: str | None = None
) -> Comparison:
    """Compare two reports by the questions that have a score in both.

    Args:
        a: a report, or the plain data of one.
        b: likewise.
        judge: whose scores are compared; the first judge's if not given.

    Raises:
        InputError: they cannot be compared: another judge or other criteria scored them, or they
            have no question in common.

    Example:
        >>> def report(*scores: float) -> Report:
        ...     items = [
        ...         ItemResult(id=str(n), question="Why?", score=score, criteria={})
        ...         for n, score in enumerate(scores)
        ...     ]
        ...     return build_report(items, failures_count_zero=False, judge="f1")
        >>> found = compare(report(50.0, 60.0), report(70.0, 80.0))
        >>> found.paired.difference, found.paired.better
        (20.0, 2)
    """
    one, other = _report(a, "compare: the first report"), _report(b, "compare: the second report")
    one, other = _by(one, judge), _by(other, judge)
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
        for score in (left.score, right.score):
            if not 0 <= score <= _MOST:
                raise InputError(
                    f"compare: question {left.id} has a score of {score}, not 0 to 100"
                )
        changes.append(Change(left.id, left.question, left.score, right.score))
    if not changes:
        raise InputError(
            f"compare: of the {len(both)} questions in common, none has a score in both reports"
        )
    scores_a, scores_b = [each.a for each in changes], [each.b for each in changes]
    return Comparison(
        mean_a=round(spread(scores_a).mean, _DIGITS),
        mean_b=round(spread(scores_b).mean, _DIGITS),
        paired=paired(scores_a, scores_b),
        changes=sorted(changes, key=lambda each: (-abs(each.b - each.a), each.id)),
        only_a=len(one.items) - len(both),
        only_b=len(other.items) - len(both),
        failed=len(both) - len(changes),
    )


def _by(report: Report, judge: str | None) -> Report:
    """Return a report in which this judge is the first one.

    Raises:
        InputError: it is none of the report's judges.
    """
    if judge in {None, report.judge}:
        return report
    if judge not in report.by_judge:
        raise InputError(
            f"compare: judge {judge} is not among the judges of a report: "
            f"{', '.join(report.judges or [report.judge])}"
        )
    items = [
        msgspec.structs.replace(
            item,
            score=item.scores.get(judge),
            **msgspec.structs.asdict(item.others.get(judge, Judgement())),
        )
        for item in report.items
    ]
    rubric = report.by_judge[judge].rubric
    return msgspec.structs.replace(report, judge=judge, rubric=rubric, items=items)


def _report(value: Report | Mapping[str, Any], where: str) -> Report:
    if isinstance(value, Report):
        return value
    try:
        return msgspec.convert(dict(value), Report)
    except msgspec.ValidationError as error:
        raise InputError(f"{where} does not have the form of a report: {error}") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _criteria_means(items: Sequence[ItemResult | Judgement]) -> dict[str, float]:
    names = dict.fromkeys(name for item in items for name in item.criteria)
    means = {}
    for name in names:
        values = [item.criteria[name] for item in items if name in item.criteria]
        means[name] = round(spread(values).mean, _DIGITS)
    return means


def _listed(item: ItemResult) -> str:
    return ", ".join(item.criteria) or "none"
