"""How certain a score is, and whether two sets of scores differ.

Nothing here depends on the order of the values, on a library or on the machine: sums are exact, and
random signs are seeded by the values.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

__all__ = [
    "FEWEST_PAIRS",
    "Paired",
    "Spread",
    "difference_interval",
    "interval",
    "paired",
    "spread",
]

FEWEST_PAIRS = 6
"""With fewer pairs no p-value is below 0.05: the least is 2 / 2**n, here 0.031."""

_DRAWS = 10_000
_MOST_EXACT = 16
"""Differences whose signs are all enumerated: 2**15 sums take as long as 10,000 draws."""
_UNITS = 1_000_000
"""A score has six decimals at the most, so a difference is a whole number of millionths."""
_DIGITS = 6
_TAIL = 0.025
_NORMAL = 1.959963984540054
"""The 97.5% quantile of the normal distribution."""


class Spread(NamedTuple):
    """A mean and how far the values are from it."""

    n: int
    mean: float
    stdev: float | None
    """Sample standard deviation, n - 1 in the denominator; None below two values."""
    stderr: float | None
    """Standard error of the mean, stdev / sqrt(n)."""


class Paired(NamedTuple):
    """How two sets of scores on the same questions differ, b less a.

    Example:
        >>> found = paired([50.0, 60.0, 70.0], [70.0, 60.0, 90.0])
        >>> found.n, round(found.difference, 1), found.better, found.worse, found.same
        (3, 13.3, 2, 0, 1)
    """

    n: int
    difference: float
    low: float
    high: float
    """The 95% interval of the mean difference."""
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


def interval(values: Sequence[float], low: float = 0.0, high: float = 100.0) -> tuple[float, float]:
    """Return the 95% interval of the mean of which some bounded values are a sample.

    It is Gaffke's (Three test statistics for a nonparametric one-sided hypothesis on the mean of a
    nonnegative variable, Math. Methods of Statistics 14, 2005; Learned-Miller and Thomas,
    arXiv:1905.06208). The lower end is the 2.5% quantile of the mean of the values and of the lower
    bound under random weights, uniform on all weights that add up to 1; the upper end likewise. For
    values that are all at a bound it is Clopper and Pearson's, so it never has a width of 0. It
    assumes nothing but the bounds, and no distribution is known for which it covers the mean less
    often than 95 times in 100.

    Args:
        values: one or more, shape (n,), each between the bounds.
        low: the least that a value can be.
        high: the most.

    Returns:
        Both ends, to six decimals.

    Raises:
        ValueError: there is no value, or one is out of bounds.

    Example:
        >>> [round(end, 1) for end in interval([0.0, 0.0, 0.0])]
        [0.0, 71.0]
        >>> [round(end, 1) for end in interval([100.0] * 20)]
        [83.1, 100.0]
    """
    if not values or not low <= min(values) <= max(values) <= high:
        raise ValueError(f"an interval needs values from {low} to {high}")
    return (
        round(low + _quantile([value - low for value in values]), _DIGITS),
        round(high - _quantile([high - value for value in values]), _DIGITS),
    )


def _quantile(values: Sequence[float]) -> float:
    """Return the 2.5% quantile of the randomly weighted mean of some values and of 0.

    The distribution is approximated by Lugannani and Rice's saddlepoint formula (Adv. Appl. Prob.
    12, 1980), whose error here is below 0.3% of the quantile.
    """
    scale = max(values)
    if scale <= 0:
        return 0.0
    points = [0.0, *(value / scale for value in values)]

    def tail(tilt: float) -> tuple[float, float]:
        """Return a mean, and the probability of one below it, by the tilt that makes it typical."""
        weights = [1 / (1 + tilt * point) for point in points]
        mean = math.fsum(p * w for p, w in zip(points, weights, strict=True)) / math.fsum(weights)
        scaled = 1 + tilt * mean
        logs = math.fsum(math.log(scaled * weight) for weight in weights)
        second = math.fsum(
            ((p - mean) * scaled * w) ** 2 for p, w in zip(points, weights, strict=True)
        )
        w = -math.sqrt(max(-2 * logs, 0.0))
        v = -tilt / scaled * math.sqrt(second)
        density = math.exp(-w * w / 2) / math.sqrt(2 * math.pi)
        return mean, math.erfc(-w / math.sqrt(2)) / 2 + density * (1 / w - 1 / v)

    high = 1.0
    while tail(high)[1] > _TAIL:
        high *= 4
    low = high / 4
    while tail(low)[1] < _TAIL:
        low /= 4
    return scale * tail(_root(lambda tilt: tail(tilt)[1] - _TAIL, low, high))[0]


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a falling function is 0, by the Illinois form of the false position."""
    at_low, at_high = function(low), function(high)
    middle, side = high, 0
    for _ in range(100):
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        value = function(middle)
        if abs(value) < 1e-10:  # noqa: PLR2004
            break
        if value > 0:
            low, at_low = middle, value
            at_high /= 2 if side > 0 else 1
            side = 1
        else:
            high, at_high = middle, value
            at_low /= 2 if side < 0 else 1
            side = -1
    return middle


def paired(a: Sequence[float], b: Sequence[float]) -> Paired:
    """Compare two sets of scores, question by question.

    The p-value is that of the permutation test that flips the signs of the differences (Fisher, The
    Design of Experiments, 1935): exact up to 16 pairs that differ, and by 10,000 seeded draws above.

    The interval is `difference_interval`.

    Args:
        a: the scores of one, 0 to 100, shape (n,).
        b: the scores of the other on the same questions in the same order, shape (n,).

    Raises:
        ValueError: the lengths differ, there are none, or a score is out of bounds.

    Example:
        >>> found = paired([50, 60, 40, 70, 30, 80, 20, 90], [65, 58, 62, 79, 31, 91, 43, 88])
        >>> found.difference, found.low, found.high, found.p_value
        (9.625, 1.220424, 18.295716, 0.054688)
    """
    deltas = [y - x for x, y in zip(a, b, strict=True)]
    mean = spread(deltas).mean
    low, high = difference_interval(deltas)
    units = _in_units(deltas)
    return Paired(
        n=len(deltas),
        difference=round(mean, _DIGITS),
        low=low,
        high=high,
        p_value=round(_p_value(units), _DIGITS),
        better=sum(unit > 0 for unit in units),
        worse=sum(unit < 0 for unit in units),
        same=units.count(0),
    )


def difference_interval(deltas: Sequence[float]) -> tuple[float, float]:
    """Return the 95% interval of the mean of which some differences of scores are a sample.

    It is that of Student's t, extended where Hall's transformation, which removes the skewness,
    goes further (On the removal of skewness by transformation, J. R. Statist. Soc. B 54, 1992).
    Where fewer than six differences deviate from the most common one, they say too little of how
    differences vary, and it is `interval`, which needs no more than the bounds.

    Args:
        deltas: one or more differences, -100 to 100, shape (n,).

    Returns:
        Both ends, to six decimals.

    Raises:
        ValueError: there are none, or one is out of bounds.
    """
    units = _in_units(deltas)
    if not units or len(units) - max(Counter(units).values()) < FEWEST_PAIRS:
        return interval(deltas, -100.0, 100.0)
    return _without_skewness(deltas)


def _in_units(deltas: Sequence[float]) -> list[int]:
    return [round(delta * _UNITS) for delta in deltas]


def _without_skewness(values: Sequence[float]) -> tuple[float, float]:
    n, mean, stdev, _ = spread(values)
    assert stdev  # noqa: S101  six values at least deviate from the others
    third = math.fsum((value - mean) ** 3 for value in values) / n
    skewness = third / (stdev * math.sqrt((n - 1) / n)) ** 3
    reach = _student(n - 1) / math.sqrt(n)

    def corrected(end: float) -> float:
        """Return which studentised mean Hall's transformation takes to this value."""
        if abs(skewness) < 1e-6:  # noqa: PLR2004  the limit
            return end
        return 3 * (math.cbrt(1 + skewness * (end - skewness / (6 * n))) - 1) / skewness

    low = mean - stdev * max(reach, corrected(reach))
    high = mean - stdev * min(-reach, corrected(-reach))
    return round(max(low, -100.0), _DIGITS), round(min(high, 100.0), _DIGITS)


def _student(freedom: int) -> float:
    """Return the 97.5% quantile of Student's t, for six degrees of freedom or more.

    By the Cornish-Fisher expansion (Abramowitz and Stegun, 26.7.5), to three decimals.
    """
    z, n = _NORMAL, freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )


def _p_value(deltas: Sequence[int]) -> float:
    """Return how often the sum is as far from 0 as it is, if every sign is as likely as the other."""
    observed = abs(sum(deltas))
    # A difference of 0 has no sign, and the order of the questions has no meaning.
    sizes = sorted(abs(delta) for delta in deltas if delta)
    if not sizes:
        return 1.0
    if len(sizes) <= _MOST_EXACT:
        sums = [sizes[0]]  # the sums with a minus in front of it are the same, less than 0
        for size in sizes[1:]:
            sums = [each + size for each in sums] + [each - size for each in sums]
        return sum(abs(each) >= observed for each in sums) / len(sums)
    return (_drawn(sizes, observed) + 1) / (_DRAWS + 1)


def _drawn(sizes: Sequence[int], observed: int) -> int:
    """Return how many of 10,000 draws of the signs have a sum as far from 0.

    Eight signs are a byte, whose 256 sums are looked up: in pure Python, 2,000 differences take a
    quarter of a second. Sums of integers are exact, so they are the same on every machine.
    """
    import random  # slow to import, and most runs compare nothing

    import xxhash

    tables = []
    for start in range(0, len(sizes), 8):
        sums = [0]
        for size in sizes[start : start + 8]:
            sums = [each + size for each in sums] + [each - size for each in sums]
        tables.append(sums)
    # A table of fewer than eight sizes is shorter: repeated, it takes any byte.
    tables[-1] *= 256 // len(tables[-1])
    generator = random.Random(xxhash.xxh3_64_intdigest(repr(sizes).encode()))  # noqa: S311  no secret
    extreme = 0
    for _ in range(_DRAWS):
        signs = generator.randbytes(len(tables))
        extreme += abs(sum(map(list.__getitem__, tables, signs))) >= observed
    return extreme
