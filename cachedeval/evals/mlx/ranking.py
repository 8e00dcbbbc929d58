"""Whether a local model can judge: does it rank right answers above wrong ones?"""

import math
from typing import NamedTuple

from cachedeval.evals.judging.nodes import JudgedItem
from cachedeval.evals.judging.rubric import Criterion, Rubric
from cachedeval.evals.mlx.model import LoadedModel
from cachedeval.evals.mlx.scoring import verdicts

__all__ = ["Ranking", "area", "rank_answers"]

_RUBRIC = Rubric(
    name="correctness",
    criteria=(
        Criterion(name="correctness", description="Is the response right and to the point?"),
    ),
)
_ANSWERS = (
    ("What is the capital of France?", "Paris.", "Berlin."),
    ("How many legs does a spider have?", "Eight.", "Three."),
    ("What is 7 times 8?", "56.", "12."),
    ("What colour is a ripe banana?", "Yellow.", "Blue."),
    ("Which planet is closest to the sun?", "Mercury.", "Neptune."),
    ("At what temperature in degrees Celsius does water boil?", "100.", "5."),
    ("Who wrote Romeo and Juliet?", "William Shakespeare.", "Albert Einstein."),
    ("What is the opposite of hot?", "Cold.", "Green."),
    ("How many days does a week have?", "Seven.", "Forty."),
    ("What do bees make?", "Honey.", "Concrete."),
)


class Ranking(NamedTuple):
    """How well a judge tells ten right answers from ten wrong ones."""

    area: float | None
    """The area under the ROC curve: how often a right answer has a higher score than a wrong one.
    0.5 is chance; None where the judge scored too little."""
    low: float
    high: float
    """Its 95% interval."""
    failed: int
    """How many of the 20 answers have no score."""

    @property
    def can_judge(self) -> bool:
        """Whether it is certain that the judge does better than chance, and scores all answers."""
        return self.area is not None and self.low > 0.5 and not self.failed  # noqa: PLR2004


def rank_answers(loaded: LoadedModel) -> Ranking:
    """Have a model judge ten right and ten wrong answers.

    Args:
        loaded: the model that judges, wearing no adapter.
    """
    items = [
        JudgedItem(_RUBRIC, question, None, answer)
        for question, *answers in _ANSWERS
        for answer in answers
    ]
    found = dict(result for result in verdicts(loaded, items) if result is not None)
    scores = {
        index: verdict.scores["correctness"]
        for index, verdict in found.items()
        if not isinstance(verdict, Exception)
    }
    right = [score for index, score in scores.items() if index % 2 == 0]
    wrong = [score for index, score in scores.items() if index % 2]
    failed = len(items) - len(scores)
    if not right or not wrong:
        return Ranking(None, 0.0, 1.0, failed)
    return Ranking(*area(right, wrong), failed)


def area(right: list[float], wrong: list[float]) -> tuple[float, float, float]:
    """Return the area under the ROC curve, and both ends of its 95% interval.

    The standard error is that of Hanley and McNeil (The meaning and use of the area under a ROC
    curve, Radiology 143, 1982). Where all pairs are in one order it would be 0; half a pair is taken
    off there.

    Args:
        right: the scores of the right answers.
        wrong: the scores of the wrong ones.

    Example:
        >>> area([3.0, 4.0], [1.0, 3.0])
        (0.875, 0.45..., 1.0)
    """
    pairs = len(right) * len(wrong)
    above = sum((a > b) + (a == b) / 2 for a in right for b in wrong)
    found = above / pairs
    used = min(max(above, 0.5), pairs - 0.5) / pairs
    first, second = used / (2 - used), 2 * used**2 / (1 + used)
    variance = (
        used * (1 - used)
        + (len(right) - 1) * (first - used**2)
        + (len(wrong) - 1) * (second - used**2)
    ) / pairs
    reach = 1.959963984540054 * math.sqrt(max(variance, 0.0))
    return found, max(0.0, used - reach), min(1.0, used + reach)
