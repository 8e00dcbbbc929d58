"""How certain a score is, and whether two sets of scores differ."""

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Paired", "Spread", "paired", "spread"]

_DRAWS = 10_000


class Spread(NamedTuple):
    """A mean and how far to trust it."""

    n: int
    mean: float
    stdev: float | None
    """Sample standard deviation, n - 1 in the denominator; None below two values."""
    stderr: float | None
    """Standard error of the mean, stdev / sqrt(n)."""


class Paired(NamedTuple):
    """How two sets of scores on the same questions differ, b less a."""

    n: int
    difference: float
    low: float
    high: float
    """The 95% interval of the mean difference, by the percentile bootstrap."""
    p_value: float
    """Two-sided, by the sign-flipping permutation test on the paired differences."""
    better: int
    worse: int
    same: int


def spread(values: Sequence[float]) -> Spread:
    """Return mean and spread of at least one value.

    Raises:
        ValueError: there is none.

    Example:
        >>> spread([50.0, 70.0])
        Spread(n=2, mean=60.0, stdev=14.142135623730951, stderr=10.0)
    """
    n = len(values)
    if not n:
        raise ValueError("the mean of no values")
    mean = math.fsum(values) / n
    if n == 1:
        return Spread(n, mean, None, None)
    stdev = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return Spread(n, mean, stdev, stdev / math.sqrt(n))


def paired(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Paired:
    """Compare two sets of scores, question by question.

    The interval is the percentile bootstrap of the mean difference (Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, ch. 13), the p-value that of the permutation test that
    flips the signs of the differences (Fisher, The Design of Experiments, 1935), both with 10,000
    draws of a seeded generator, so that they are the same every time.

    Args:
        a: the scores of one, shape (n,).
        b: the scores of the other on the same questions in the same order, shape (n,).
        seed: of the draws.

    Raises:
        ValueError: the lengths differ, or there are none.
    """
    deltas = [y - x for x, y in zip(a, b, strict=True)]
    n = len(deltas)
    mean = spread(deltas).mean
    import random  # slow to import, and most runs compare nothing

    generator = random.Random(seed)  # noqa: S311  no secret
    means = sorted(math.fsum(generator.choices(deltas, k=n)) / n for _ in range(_DRAWS))
    extreme = sum(
        abs(math.fsum(d if generator.getrandbits(1) else -d for d in deltas)) / n
        >= abs(mean) - 1e-12
        for _ in range(_DRAWS)
    )
    return Paired(
        n=n,
        difference=mean,
        low=means[int(0.025 * _DRAWS)],
        high=means[int(0.975 * _DRAWS) - 1],
        p_value=(extreme + 1) / (_DRAWS + 1),
        better=sum(d > 0 for d in deltas),
        worse=sum(d < 0 for d in deltas),
        same=sum(d == 0 for d in deltas),
    )
