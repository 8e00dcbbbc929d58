"""The judges that a user can name."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from cachedeval.engine.digest_cache import DigestCache
from cachedeval.engine.errors import InputError
from cachedeval.engine.node import Call, Node
from cachedeval.engine.result import Outcome
from cachedeval.evals.data import Question
from cachedeval.evals.generation import Generation
from cachedeval.evals.judging.judge import DECIMALS, Judge, JudgeBinder, Score
from cachedeval.evals.judging.nodes import Metric, reference_score
from cachedeval.evals.judging.rubric import load_rubric
from cachedeval.evals.judging.rubric_judges import LocalJudge, LocalModelOf, RemoteJudge
from cachedeval.evals.judging.spec import parse_judge
from cachedeval.evals.judging.verdict import Verdict

if TYPE_CHECKING:
    from cachedeval.evals.judging.pricing import Prices

__all__ = ["open_judge"]


def open_judge(
    name: str,
    *,
    criteria: str = "default",
    per_criterion: bool = False,
    repeats: int = 1,
    limits: str | None = None,
    local_model: LocalModelOf,
) -> Judge:
    """Return the judge that a user names.

    Args:
        name: `cerebras:MODEL`, `openai:MODEL`, `mlx:PATH`, `exact` or `f1`.
        criteria: name or file of the rubric; the reference metrics have none.
        per_criterion: ask for each criterion apart.
        repeats: independent verdicts a question; only of judges over HTTP.
        limits: the file of the judge's settings.
        local_model: returns the resource of a model folder.

    Raises:
        InputError: there is no such judge or rubric, or a setting is bad.
    """
    spec = parse_judge(name)
    if repeats != 1 and not spec.over_http:
        raise InputError(
            f"repeats {repeats}: judge {spec} gives the same verdict every time; leave it out"
        )
    if spec.provider == "exact" or spec.provider == "f1":  # noqa: PLR1714  mypy narrows by this
        if criteria != "default":
            raise InputError(
                f"criteria {criteria!r}: judge {spec} compares with the reference answers and has "
                "no criteria; leave them out, or take a judge that scores by a rubric"
            )
        return _Reference(spec.provider)
    rubric = load_rubric(criteria)
    if spec.over_http:
        return RemoteJudge(
            spec, rubric, per_criterion=per_criterion, repeats=repeats, limits=limits
        )
    return LocalJudge(spec, rubric, local_model, per_criterion=per_criterion)


class _Reference:
    """A metric against the reference answer."""

    node: Node[Any] = reference_score
    rubric_name: str | None = None

    def __init__(self, metric: Metric) -> None:
        self.name: str = metric
        self.prices: Prices = {}
        self._metric = metric

    def prepare(self, known_digests: DigestCache) -> JudgeBinder:
        del known_digests

        def bind(question: Question, answer: Call[Generation]) -> tuple[Call[Verdict], ...]:
            call = reference_score(
                metric=self._metric, reference_answer=question.reference, response=answer
            )
            return (call,)

        return bind

    def read(self, verdicts: Sequence[Verdict], question: Question) -> Score:
        del question
        (verdict,) = verdicts
        scores = {name: round(score, DECIMALS) for name, score in verdict.scores.items()}
        return Score(round(100 * verdict.scores[self._metric], DECIMALS), scores, "", None)

    def unreadable(self, outcomes: Iterable[Outcome]) -> list[Call[Any]]:
        del outcomes
        return []

    def check_access(self) -> None:
        """Find nothing: a metric is always there."""
