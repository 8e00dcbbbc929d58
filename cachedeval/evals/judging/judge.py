"""What a judge is: it binds an answer to the steps that score it, and reads their verdicts."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from cachedeval.engine.digest_cache import DigestCache
from cachedeval.engine.node import Call, Node
from cachedeval.engine.result import Outcome
from cachedeval.evals.data import Question
from cachedeval.evals.generation import Generation
from cachedeval.evals.judging.pricing import Prices
from cachedeval.evals.judging.verdict import Verdict

__all__ = ["DECIMALS", "Judge", "JudgeBinder", "Score", "asked"]

DECIMALS = 6
"""Kept of a score, far below what it can mean."""

JudgeBinder = Callable[[Question, Call[Generation]], tuple[Call[Verdict], ...]]
"""Binds an answer to the steps whose verdicts score it."""


class Score(NamedTuple):
    """What verdicts come to."""

    score: float
    """0 to 100."""
    criteria: dict[str, float]
    rationale: str
    spread: float | None
    """The standard deviation of the score over repeated verdicts; None where there is one."""


class Judge(Protocol):
    """Someone who scores answers."""

    name: str
    """As reports call it."""
    rubric_name: str | None
    node: Node[Any]
    """The step that is counted as judging."""
    prices: Prices
    """What tokens cost, by judge; empty for judges that cost nothing."""

    def prepare(self, known_digests: DigestCache) -> JudgeBinder:
        """Find and identify what is judged by; nothing is loaded or connected.

        Raises:
            InputError: it cannot be found.
        """
        ...

    def check_questions(self, questions: Sequence[Question]) -> None:
        """Check that the questions can be scored, before they are answered.

        Raises:
            InputError: some cannot: they lack the reference answer.
        """
        ...

    def read(self, verdicts: Sequence[Verdict], question: Question) -> Score:
        """Return the score that a question's verdicts come to."""
        ...

    def unreadable(self, outcomes: Iterable[Outcome]) -> list[Call[Any]]:
        """Return the calls whose stored results no parser can read."""
        ...

    def check_access(self) -> None:
        """Find out whether the judge can be asked, without asking.

        Raises:
            InputError: it cannot; a key is missing.
        """
        ...


def asked(question: Question) -> str:
    """Return what a judge is asked about: the last message, or the whole chat as lines."""
    if len(question.messages) == 1:
        return question.question
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in question.messages)
