"""Audits stored answers: computes them again and compares.

This finds what nothing else can: a key that leaves out something that the answer depends on.
"""

import os
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from cachedeval.engine.difference import Difference, differences
from cachedeval.engine.engine import Engine
from cachedeval.engine.errors import InputError
from cachedeval.engine.keys import key_of
from cachedeval.engine.node import Call
from cachedeval.engine.resolve import resolve
from cachedeval.engine.result import Outcome
from cachedeval.evals.evaluator import AdapterEvaluator
from cachedeval.evals.run_stats import OnProgress, Progress

__all__ = ["Audit", "Finding", "audit", "audit_answers"]


class Finding(NamedTuple):
    """A stored result that was not confirmed."""

    key: bytes
    call: Call[Any]
    created: float
    """When it was stored; seconds since the epoch."""
    differences: list[Difference]
    """The fields that differ, around the first place in which they do."""
    error: str | None
    """Why it could not be computed again; None where it could."""


class Audit(NamedTuple):
    """What an audit found."""

    stored: int
    """How many of the calls are in the cache."""
    same: int
    differ: list[Finding]
    failed: list[Finding]

    @property
    def audited(self) -> int:
        """How many were computed again."""
        return self.same + len(self.differ) + len(self.failed)


def audit(
    engine: Engine,
    calls: Sequence[Call[Any]],
    sample: int,
    *,
    seed: int | None = None,
    on_progress: OnProgress | None = None,
) -> Audit:
    """Compute a sample of stored results again, without the cache, and compare.

    Args:
        engine: what runs them; the cache is only read.
        calls: of which those that are in the cache are audited; the same result counts once.
        sample: how many are drawn; all if there are fewer.
        seed: of the draw; None draws others every time.
        on_progress: called with a step's name, how many of its calls are done, and how many
            there are.

    Raises:
        InputError: the sample is not positive, or none of the calls is in the cache.

    Example:
        >>> from cachedeval import node
        >>> @node(version="1")
        ... def double(x: int) -> int:
        ...     return 2 * x
        >>> with Engine() as engine:
        ...     _ = engine.run([double(1), double(2)])
        ...     found = audit(engine, [double(1), double(2), double(3)], sample=5)
        >>> found.stored, found.same, found.differ
        (2, 2, [])
    """
    if sample < 1:
        raise InputError(f"audit: the sample is {sample}; it must be 1 or more")
    known = resolve(calls, engine.store.peek_many).outcomes
    stored: dict[bytes, Outcome] = {}
    for call in calls:
        outcome = known.get(call)
        if outcome is not None and outcome.record is not None:
            stored.setdefault(key_of(outcome.record.recipe), outcome)
    if not stored:
        raise InputError(
            f"audit: none of the {len(calls)} results is in the cache; run the evaluation first"
        )
    keys = random.Random(seed).sample(sorted(stored), min(sample, len(stored)))  # noqa: S311  no secret
    drawn = [stored[key].call for key in keys]
    again = engine.settle(
        drawn,
        mode="off",
        on_outcome=None if on_progress is None else Progress(drawn, on_progress),
    )
    findings = [_compare(key, stored[key], now) for key, now in zip(keys, again, strict=True)]
    found = [finding for finding in findings if finding is not None]
    return Audit(
        stored=len(stored),
        same=findings.count(None),
        differ=[finding for finding in found if finding.error is None],
        failed=[finding for finding in found if finding.error is not None],
    )


def audit_answers(
    evaluator: AdapterEvaluator,
    adapters: Sequence[str | os.PathLike[str] | None],
    training_data_path: str | os.PathLike[str],
    num_questions: int,
    sample: int,
    *,
    seed: int | None = None,
    on_progress: OnProgress | None = None,
) -> Audit:
    """Audit the stored answers of an evaluation; arguments as in `evaluate_adapters` and `audit`.

    Raises:
        InputError: what was evaluated cannot be found or read, or nothing of it is stored.
    """
    targets = evaluator.targets(adapters, training_data_path, num_questions)
    calls = [sample.answer for target in targets for sample in target.samples]
    return audit(evaluator.engine, calls, sample, seed=seed, on_progress=on_progress)


def _compare(key: bytes, was: Outcome, now: Outcome) -> Finding | None:
    assert was.record is not None  # noqa: S101  for the type checker: only such are audited
    error = None if now.error is None else f"{type(now.error).__name__}: {now.error}"
    if error is None and was.digest == now.digest:
        return None
    fields = []
    if error is None:
        fields = list(differences(_plain(was), _plain(now)))
    return Finding(key, was.call, was.record.created, fields, error)


def _plain(outcome: Outcome) -> Any:
    value = outcome.value
    return msgspec.structs.asdict(value) if isinstance(value, msgspec.Struct) else value
