"""Judges without a model: the built-in scorers, as a step and by name."""

# Lazy imports: a run of hits needs neither the scorers nor `difflib`.

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cachedeval.engine.digest_cache import DigestCache
from cachedeval.engine.errors import CachedevalError, InputError
from cachedeval.engine.node import Call, Node, node
from cachedeval.engine.result import Outcome
from cachedeval.evals.data import Question
from cachedeval.evals.generation import Generation
from cachedeval.evals.judging.judge import DECIMALS, JudgeBinder, Score
from cachedeval.evals.judging.verdict import Verdict

if TYPE_CHECKING:
    from cachedeval.evals.judging.pricing import Prices

__all__ = ["BUILT_IN", "Scorer", "ScorerError", "open_scorer", "scorer"]


class ScorerError(CachedevalError):
    """A scorer raised an exception, or returned no score."""

    kind = "scorer_failed"


@node(version="1", name="scorer")
def scorer(
    metric: str, setting: str | None, reference_answer: str | None, response: Generation
) -> Verdict:
    """Return how well an answer agrees with the reference, 0 to 1.

    Raises:
        ScorerError: there is no score: the search for a pattern takes too long.
    """
    try:
        found = _measure(metric, setting, response.text, reference_answer)
    except (TimeoutError, ValueError) as error:
        raise ScorerError(f"{metric}: {error}") from None
    return Verdict(found if isinstance(found, dict) else {metric: found})


def _measure(
    metric: str, setting: str | None, response: str, reference: str | None
) -> float | dict[str, float]:
    from cachedeval.evals.scorers import choice, numeric, patterns, structured, text

    if metric == "json":
        if setting is not None:
            return structured.fits_schema(response, json.loads(setting))
        return structured.equals_json(response, reference)
    if metric == "regex":
        return patterns.matches(response, reference, setting or "")
    if metric == "numeric":
        return numeric.numeric(response, reference or "", setting or "0")
    measures: dict[str, Callable[[str, str], float | dict[str, float]]] = {
        "choice": choice.choice,
        "contains": text.contains,
        "exact": text.exact,
        "f1": text.f1,
        "rouge_l": text.rouge_l,
        "tool_call": structured.tool_call,
    }
    return measures[metric](response, reference or "")


# What each scorer takes.


def _nothing(given: str) -> str | None:
    if given:
        raise ValueError("takes nothing after its name")
    return None


def _pattern(given: str) -> str:
    from cachedeval.evals.scorers.patterns import check_pattern

    if not given:
        raise ValueError(r"which pattern? As in regex:'answer is (\d+)'")
    check_pattern(given)
    return given


def _tolerance(given: str) -> str | None:
    from cachedeval.evals.scorers.numeric import read_tolerance

    if not given:
        return None
    read_tolerance(given)
    return given.strip()


def _schema(given: str) -> str | None:
    from cachedeval.evals.scorers.structured import check_schema

    if not given:
        return None
    try:
        found = json.loads(Path(given).read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"the schema {given} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"the schema {given} is not JSON: {error}") from None
    check_schema(found)
    return json.dumps(found, sort_keys=True)


def _library(given: str) -> str | None:
    import rapidfuzz.distance  # noqa: F401

    return _nothing(given)


# What each scorer needs of a reference; the answer says what is missing.


def _some(reference: str) -> str | None:
    del reference
    return None


def _with_number(reference: str) -> str | None:
    from cachedeval.evals.scorers.numeric import last_number

    return None if last_number(reference) is not None else "there is no number in it"


def _with_letter(reference: str) -> str | None:
    from cachedeval.evals.scorers.choice import letter_of

    return None if letter_of(reference) else "it is not the letter of a choice"


def _with_json(reference: str) -> str | None:
    from cachedeval.evals.scorers.structured import parse_json

    try:
        parse_json(reference)
    except ValueError as error:
        return f"it is not JSON ({error}); to check the form alone, give a schema, json:SCHEMA"
    return None


def _with_call(reference: str) -> str | None:
    from cachedeval.evals.scorers.structured import tool_calls

    try:
        tool_calls(reference)
    except ValueError as error:
        return str(error)
    return None


def _always(setting: str | None) -> bool:
    del setting
    return True


def _with_group(pattern: str | None) -> bool:
    from cachedeval.evals.scorers.patterns import check_pattern

    return check_pattern(pattern or "")


class _Kind(NamedTuple):
    """What a scorer takes and needs."""

    read: Callable[[str], str | None] = _nothing
    """Reads what follows the name; raises ValueError."""
    lacks: Callable[[str], str | None] = _some
    """Returns why a reference is of no use, or None."""
    compares: Callable[[str | None], bool] = _always
    """Returns whether the scorer needs a reference, by its setting."""
    extra: str = ""
    """What to install where a package is missing."""


BUILT_IN: Mapping[str, _Kind] = {
    "choice": _Kind(lacks=_with_letter),
    "contains": _Kind(),
    "exact": _Kind(),
    "f1": _Kind(),
    "json": _Kind(_schema, _with_json, lambda _: False, "schema"),
    "numeric": _Kind(_tolerance, _with_number),
    "regex": _Kind(_pattern, compares=_with_group),
    "rouge_l": _Kind(_library, extra="rouge"),
    "tool_call": _Kind(lacks=_with_call),
}
"""The scorers by name."""


class Scorer:
    """A judge that computes its score.

    Args:
        name: as reports call it.
        step: the step that computes it.
        bind: binds question and answer to the step.
        score: returns the score of a verdict, 0 to 1.
        check: returns why a question cannot be scored, or None.
    """

    rubric_name: str | None = None

    def __init__(
        self,
        name: str,
        step: Node[Any],
        bind: Callable[[Question, Call[Generation]], Call[Verdict]],
        score: Callable[[Mapping[str, float]], float],
        check: Callable[[Question], str | None] = lambda _: None,
    ) -> None:
        self.name = name
        self.node = step
        self.prices: Prices = {}
        self._bind = bind
        self._score = score
        self._check = check

    def prepare(self, known_digests: DigestCache) -> JudgeBinder:
        """Find and identify what is judged by; see `Judge`."""
        del known_digests
        return lambda question, answer: (self._bind(question, answer),)

    def check_questions(self, questions: Sequence[Question]) -> None:
        """Check that the questions can be scored, before they are answered.

        Raises:
            InputError: some cannot: they have no reference answer.
        """
        found = [(question, why) for question in questions if (why := self._check(question))]
        if found:
            question, why = found[0]
            asked = " ".join(question.question.split())
            asked = asked if len(asked) <= 60 else f"{asked[:59]}…"  # noqa: PLR2004
            raise InputError(
                f"judge {self.name}: cannot score {len(found)} of {len(questions)} questions; the "
                f"first is {asked!r}: {why}. Leave them out of the data, or take another judge"
            )

    def read(self, verdicts: Sequence[Verdict], question: Question) -> Score:
        """Return the score that a question's verdict comes to."""
        del question
        (verdict,) = verdicts
        scores = {name: round(score, DECIMALS) for name, score in verdict.scores.items()}
        return Score(round(100 * self._score(verdict.scores), DECIMALS), scores, "", None)

    def unreadable(self, outcomes: Iterable[Outcome]) -> list[Call[Any]]:
        """Return the calls whose stored results no parser can read."""
        del outcomes
        return []

    def check_access(self) -> None:
        """Find nothing: a scorer is always there."""


def open_scorer(name: str) -> Scorer | None:
    """Return the built-in scorer of a name such as `f1` or `numeric:0.01`; None if there is none.

    Raises:
        InputError: what follows the name is bad, or a package is missing.
    """
    metric, _, given = name.strip().partition(":")
    if metric not in BUILT_IN:
        return None
    kind = BUILT_IN[metric]
    try:
        setting = kind.read(given)
    except ValueError as error:
        raise InputError(f"judge {name}: {error}") from None
    except ImportError as error:
        raise InputError(
            f"judge {name}: needs the package {error.name}: pip install 'cachedeval[{kind.extra}]'"
        ) from None
    compares = kind.compares(setting)
    reads = compares or (metric == "json" and setting is None)  # where there is one

    def check(question: Question) -> str | None:
        reference = question.reference
        if reference is None or not reference.strip():
            return (
                f"it has no reference answer, and {metric} compares with one" if compares else None
            )
        why = kind.lacks(reference) if reads else None
        return why and f"its reference answer is {_begun(reference)!r}: {why}"

    def bind(question: Question, answer: Call[Generation]) -> Call[Verdict]:
        return scorer(
            metric=metric,
            setting=setting,
            # What is not compared is no part of the key, and a blank reference is none.
            reference_answer=question.reference
            if reads and (question.reference or "").strip()
            else None,
            response=answer,
        )

    shown = f"{metric}:{Path(given).name}" if metric == "json" and given else name.strip()
    return Scorer(shown, scorer, bind, lambda scores: scores[metric], check)


def _begun(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 40 else f"{line[:39]}…"  # noqa: PLR2004
