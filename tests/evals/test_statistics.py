import itertools
import math
import random
import statistics
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachedeval.evals.statistics import difference_interval, interval, paired, spread

SCORES = st.lists(st.floats(0, 100), min_size=1, max_size=30)
SIZES = (5, 10, 20, 50)


def test_known_values() -> None:
    found = spread([2, 4, 4, 4, 5, 5, 7, 9])
    assert found.n == 8
    assert found.mean == 5
    assert found.stdev == pytest.approx(math.sqrt(32 / 7))
    assert found.stderr == pytest.approx(math.sqrt(32 / 7) / math.sqrt(8))


def test_one_value_has_no_spread_and_none_has_no_mean() -> None:
    assert spread([7.5]) == (1, 7.5, None, None)
    with pytest.raises(ValueError, match="no values"):
        spread([])


@given(SCORES)
def test_it_is_what_the_standard_library_says(values: list[float]) -> None:
    found = spread(values)
    assert found.mean == pytest.approx(statistics.mean(values), abs=1e-9)
    if len(values) > 1:
        assert found.stdev == pytest.approx(statistics.stdev(values), abs=1e-9)
        assert found.stderr == pytest.approx(
            statistics.stdev(values) / math.sqrt(len(values)), abs=1e-9
        )


@given(SCORES, st.randoms())
def test_the_order_does_not_matter_to_the_last_bit(
    values: list[float], shuffler: random.Random
) -> None:
    other = values.copy()
    shuffler.shuffle(other)
    assert spread(other) == spread(values)
    assert interval(other) == interval(values)


def test_the_mean_loses_nothing_to_rounding() -> None:
    assert spread([1e16, 1.0, -1e16, 1.0]).mean == 0.5
    assert spread([0.1] * 10).mean == 0.1


# The interval of a mean.


@pytest.mark.parametrize("n", [1, 2, 3, 5, 10, 20, 50, 1000])
def test_scores_that_are_all_at_a_bound_have_clopper_and_pearsons_interval(n: int) -> None:
    reach = 100 * (1 - 0.025 ** (1 / n))
    assert interval([0.0] * n) == pytest.approx((0, reach), rel=0.005)
    assert interval([100.0] * n) == pytest.approx((100 - reach, 100), abs=0.005 * reach)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Clopper and Pearson's exact intervals, from the quantiles of the beta distribution.
    [(1, 5, 0.51, 71.64), (3, 10, 6.67, 65.25), (10, 20, 27.20, 72.80), (45, 50, 78.19, 96.67)],
)
def test_right_and_wrong_have_clopper_and_pearsons_interval(
    right: int, n: int, low: float, high: float
) -> None:
    found = interval([100.0] * right + [0.0] * (n - right))
    assert found == pytest.approx((low, high), abs=0.2)


def test_it_is_the_quantile_of_randomly_weighted_means() -> None:
    """By its definition: the weights are gaps between sorted uniform numbers."""
    values = [3.0, 20.0, 21.0, 55.0, 71.0, 98.0, 100.0]
    draw = random.Random(5)
    means = []
    for _ in range(20_000):
        weights = [draw.expovariate(1) for _ in range(len(values) + 1)]
        total = sum(v * w for v, w in zip([0.0, *values], weights, strict=True))
        means.append(total / sum(weights))
    assert interval(values)[0] == pytest.approx(sorted(means)[500], abs=0.8)


@given(SCORES)
def test_it_contains_the_mean_and_is_mirrored_with_the_scores(values: list[float]) -> None:
    low, high = interval(values)
    assert 0 <= low <= spread(values).mean + 1e-6
    assert spread(values).mean - 1e-6 <= high <= 100
    mirrored = interval([100 - value for value in values])
    assert mirrored == pytest.approx((100 - high, 100 - low), abs=1e-4)
    assert high - low > 100 / (3 * len(values))


def test_it_needs_values_within_the_bounds() -> None:
    for values in ([], [-1.0], [101.0], [math.nan]):
        with pytest.raises(ValueError, match=r"from 0\.0 to 100\.0"):
            interval(values)


Draw = Callable[[random.Random], float]

POPULATIONS: dict[str, tuple[Draw, float]] = {
    "uniform": (lambda r: r.uniform(0, 100), 50),
    "right or wrong": (lambda r: 100.0 * (r.random() < 0.3), 30),
    "mostly right": (lambda r: 100.0 * (r.random() < 0.95), 95),
    "skewed": (lambda r: 100 * r.betavariate(0.5, 3), 100 / 7),
    "skewed the other way": (lambda r: 100 * r.betavariate(8, 1), 800 / 9),
    "in steps of ten": (lambda r: 10.0 * min(10, int(r.expovariate(0.5))), 0.0),
    "good but for a few": (
        lambda r: 0.0 if r.random() < 0.1 else r.uniform(80, 100),
        81,
    ),
    "all equal": (lambda _: 100 / 3, 100 / 3),
}
_STEPS = [math.exp(-0.5 * n) - math.exp(-0.5 * (n + 1)) for n in range(10)]
POPULATIONS["in steps of ten"] = (
    POPULATIONS["in steps of ten"][0],
    10 * (sum(n * p for n, p in enumerate(_STEPS)) + 10 * math.exp(-5)),
)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", POPULATIONS)
def test_the_interval_covers_the_mean_as_often_as_it_says(name: str, n: int) -> None:
    draw, mean = POPULATIONS[name]
    generator = random.Random(f"{name} {n}")
    rounds = 20 if name == "all equal" else 250
    covered = 0
    for _ in range(rounds):
        low, high = interval([draw(generator) for _ in range(n)])
        covered += low <= mean <= high
    assert covered >= 0.93 * rounds


# Paired comparisons.


def test_the_p_value_is_that_of_all_sign_flips() -> None:
    a = [50, 60, 40, 70, 30, 80, 20, 90]
    b = [55, 58, 52, 79, 30, 91, 33, 88]
    deltas = [y - x for x, y in zip(a, b, strict=True)]
    observed = abs(sum(deltas))
    flips = itertools.product((1, -1), repeat=len(deltas))
    as_extreme = [
        abs(sum(s * d for s, d in zip(signs, deltas, strict=True))) >= observed for signs in flips
    ]
    assert paired(a, b).p_value == pytest.approx(sum(as_extreme) / len(as_extreme), abs=1e-6)


def test_many_pairs_are_drawn_and_agree_with_the_enumeration() -> None:
    """Pairs without a difference play no part, and a tiny one almost none."""
    deltas = [
        5.0,
        -2.0,
        12.0,
        9.0,
        -4.0,
        11.0,
        13.0,
        -2.5,
        6.0,
        3.0,
        -8.0,
        7.0,
        1.0,
        2.0,
        -6.0,
        5.5,
    ]
    exact = paired([40.0] * 20, [40 + d for d in [*deltas, 0, 0, 0, 0]]).p_value
    drawn = paired([40.0] * 20, [40 + d for d in [*deltas, 1e-6, -1e-6, 0, 0]]).p_value
    # Three standard errors of 10,000 draws.
    assert drawn == pytest.approx(exact, abs=3 * math.sqrt(exact / 10_000))
    assert drawn != exact


@pytest.mark.parametrize("n", [17, 24, 25, 200])
def test_differences_that_have_no_direction_are_drawn_as_the_normal_distribution_says(
    n: int,
) -> None:
    generator = random.Random(n)
    deltas = [generator.uniform(-30, 30) for _ in range(n)]
    found = paired([50.0] * n, [50 + d for d in deltas])
    z = abs(sum(deltas)) / math.sqrt(sum(d * d for d in deltas))
    assert found.p_value == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.05)


def test_the_counts_and_the_sign() -> None:
    found = paired([1, 2, 3, 4], [2, 2, 1, 9])
    assert (found.n, found.better, found.worse, found.same) == (4, 2, 1, 1)
    assert found.difference == 1
    back = paired([2, 2, 1, 9], [1, 2, 3, 4])
    assert back.difference == -1
    assert (back.better, back.worse) == (1, 2)


def test_equal_scores_are_no_proof_that_nothing_differs() -> None:
    found = paired([5.0, 7.0], [5.0, 7.0])
    assert (found.difference, found.p_value) == (0, 1)
    assert found.low == pytest.approx(-84.3, abs=0.5)
    assert found.high == -found.low
    many = paired([0.0] * 50, [0.0] * 50)
    assert many.high == -many.low == pytest.approx(7.1, abs=0.1)


def test_one_question_proves_nothing() -> None:
    found = paired([0], [100])
    assert (found.low, found.high) == pytest.approx((-95.3, 100), abs=0.5)
    assert found.p_value == 1


def test_five_pairs_cannot_prove_and_six_can() -> None:
    five, six = paired([0] * 5, [100] * 5), paired([0] * 6, [100] * 6)
    assert five.p_value == 0.0625
    assert five.low < 0
    assert six.p_value == 0.03125
    assert six.low > 0


def test_a_difference_that_is_always_there_is_no_chance() -> None:
    found = paired([float(n) for n in range(30)], [n + 30.0 for n in range(30)])
    assert found.p_value == 0.0001
    assert 0 < found.low < found.difference == 30 < found.high


def test_the_interval_is_students_where_nothing_is_skewed() -> None:
    deltas = [-9.0, -7.0, -4.0, -1.0, 1.0, 4.0, 7.0, 9.0]
    found = paired([50.0] * 8, [50 + d for d in deltas])
    reach = 2.364624 * spread(deltas).stderr  # type: ignore[operator]
    assert (found.low, found.high) == pytest.approx((-reach, reach), abs=0.01)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=14))
def test_the_order_of_questions_and_of_a_and_b_does_not_matter(
    pairs: list[tuple[float, float]],
) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    found, back = paired(a, b), paired(b, a)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low), abs=1e-4)
    assert (back.p_value, back.better) == (found.p_value, found.worse)
    assert found.low <= found.difference + 1e-6
    assert found.high >= found.difference - 1e-6
    assert -100 <= found.low < found.high <= 100
    assert paired(a[::-1], b[::-1]) == found


def test_it_is_the_same_every_time_and_uses_no_shared_generator() -> None:
    generator = random.Random(2)
    a, b = ([generator.uniform(0, 100) for _ in range(25)] for _ in "ab")
    state = random.getstate()
    assert paired(a, b) == paired(a, b) == paired(a[::-1], b[::-1])
    assert random.getstate() == state
    # Golden: the same bytes on every machine and Python.
    found = paired([float(n % 7) for n in range(30)], [float(n % 11) for n in range(30)])
    assert found == GOLDEN


GOLDEN = (30, 1.766667, 0.39492, 3.220472, 0.015498, 14, 9, 7)


def _shifted(r: random.Random, lift: float) -> tuple[float, float]:
    a = r.uniform(0, 60)
    return a, min(100, a + r.uniform(0, 2 * lift))


PAIRS: dict[str, tuple[Callable[[random.Random], tuple[float, float]], float]] = {
    "two draws": (lambda r: (r.uniform(0, 100), r.uniform(0, 100)), 0),
    "always better": (partial(_shifted, lift=10), 10),
    "skewed": (lambda r: (0.0, 100 * r.betavariate(0.5, 3)), 100 / 7),
    "one good, one not": (
        lambda r: (100 * r.betavariate(2, 1), 100 * r.betavariate(8, 1)),
        100 * (8 / 9 - 2 / 3),
    ),
    "right or wrong": (lambda r: (100.0 * (r.random() < 0.4), 100.0 * (r.random() < 0.6)), 20),
    "rarely different": (lambda r: (0.0, 100.0 * (r.random() < 0.05)), 5),
    "half the same": (
        lambda r: (50.0, 50 + (r.random() < 0.5) * r.uniform(-10, 40)),
        7.5,
    ),
    "all equal": (lambda _: (40.0, 45.0), 5),
}


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", PAIRS)
def test_the_interval_of_a_difference_covers_as_often_as_it_says(name: str, n: int) -> None:
    draw, mean = PAIRS[name]
    generator = random.Random(f"{name} {n}")
    rounds = 20 if name == "all equal" else 500
    covered = 0
    for _ in range(rounds):
        pairs = [draw(generator) for _ in range(n)]
        low, high = difference_interval([b - a for a, b in pairs])
        covered += low <= mean <= high
    assert covered >= 0.93 * rounds


NULLS: dict[str, Draw] = {
    "uniform": lambda r: r.uniform(0, 100),
    "skewed": lambda r: 100 * r.betavariate(0.5, 3),
    "right or wrong": lambda r: 100.0 * (r.random() < 0.8),
    "in steps of ten": lambda r: 10.0 * r.randrange(11),
}


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", NULLS)
def test_a_difference_where_there_is_none_is_found_5_times_in_100(name: str, n: int) -> None:
    generator = random.Random(f"null {name} {n}")
    rounds = 300
    found = 0
    for _ in range(rounds):
        a, b = ([NULLS[name](generator) for _ in range(n)] for _ in "ab")
        low, high = difference_interval([y - x for x, y in zip(a, b, strict=True)])
        if not low <= 0 <= high:  # the p-value takes longer
            found += paired(a, b).p_value < 0.05
    # Two standard errors above 5%.
    assert found <= rounds * (0.05 + 2 * math.sqrt(0.05 * 0.95 / rounds))


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired([1, 2], [1])
    with pytest.raises(ValueError, match="no values"):
        paired([], [])
