import itertools
import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachedeval.evals.statistics import paired, spread

SCORES = st.lists(st.floats(0, 100), min_size=1, max_size=30)


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


def test_the_mean_loses_nothing_to_rounding() -> None:
    assert spread([1e16, 1.0, -1e16, 1.0]).mean == 0.5
    assert spread([0.1] * 10).mean == 0.1


# Each comparison draws 20,000 times, so these are cases and not laws of hypothesis.


def test_the_p_value_is_that_of_all_sign_flips() -> None:
    a = [50, 60, 40, 70, 30, 80, 20, 90]
    b = [55, 58, 52, 79, 30, 91, 33, 88]
    deltas = [y - x for x, y in zip(a, b, strict=True)]
    observed = abs(sum(deltas))
    flips = itertools.product((1, -1), repeat=len(deltas))
    as_extreme = [
        abs(sum(s * d for s, d in zip(signs, deltas, strict=True))) >= observed for signs in flips
    ]
    exact = sum(as_extreme) / len(as_extreme)
    # Three standard errors of 10,000 draws.
    assert paired(a, b).p_value == pytest.approx(exact, abs=3 * math.sqrt(exact / 10_000))


def test_the_interval_is_that_of_all_resamples() -> None:
    deltas = [-3.0, 1.0, 2.0, 6.0, 9.0]
    found = paired([0.0] * 5, deltas)
    means = sorted(sum(drawn) / 5 for drawn in itertools.product(deltas, repeat=5))
    low, high = means[int(0.025 * len(means))], means[int(0.975 * len(means))]
    assert found.difference == 3
    assert found.low == pytest.approx(low, abs=0.4)
    assert found.high == pytest.approx(high, abs=0.4)


def test_the_counts_and_the_sign() -> None:
    found = paired([1, 2, 3, 4], [2, 2, 1, 9])
    assert (found.n, found.better, found.worse, found.same) == (4, 2, 1, 1)
    assert found.difference == 1
    back = paired([2, 2, 1, 9], [1, 2, 3, 4])
    assert back.difference == -1
    assert (back.better, back.worse) == (1, 2)


def test_equal_scores_differ_by_nothing_for_sure() -> None:
    found = paired([5.0, 7.0], [5.0, 7.0])
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_one_question_proves_nothing() -> None:
    found = paired([0], [100])
    assert (found.low, found.high, found.p_value) == (100, 100, 1)


def test_a_difference_that_is_always_there_is_no_chance() -> None:
    found = paired([float(n) for n in range(30)], [n + 5.0 for n in range(30)])
    assert found.p_value == 1 / 10_001
    assert found.low == found.high == 5


def test_it_is_the_same_every_time_and_another_seed_is_not() -> None:
    a, b = [1.0, 5.0, 3.0, 8.0, 2.0], [2.0, 4.0, 6.0, 9.0, 2.5]
    assert paired(a, b) == paired(a, b)
    assert paired(a, b, seed=1) != paired(a, b)
    state = random.getstate()
    paired(a, b)
    assert random.getstate() == state


def test_the_interval_holds_what_it_promises() -> None:
    """Of 95% intervals on 20 questions, most hold the true mean (the percentile one a bit fewer)."""
    generator = random.Random(7)
    held = 0
    for _ in range(30):
        b = [generator.gauss(2, 5) for _ in range(20)]
        found = paired([0.0] * 20, b)
        held += found.low <= 2 <= found.high
    assert held >= 25


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired([1, 2], [1])
    with pytest.raises(ValueError, match="no values"):
        paired([], [])
