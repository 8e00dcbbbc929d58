import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachedeval.engine.errors import InputError
from cachedeval.evals.data import Question
from cachedeval.evals.sample import draw

IDS = st.lists(st.integers(0, 10**6).map("{:016x}".format), unique=True, min_size=1, max_size=30)
COUNTS = st.integers(1, 35)
SEEDS = st.integers(-(2**40), 2**40)


def questions(ids: list[str]) -> list[Question]:
    return [Question(one, one, ({"role": "user", "content": one},), None, {}) for one in ids]


def drawn(ids: list[str], count: int | None, seed: int) -> list[str]:
    return [question.id for question in draw(questions(ids), count, seed)]


@given(IDS, COUNTS, COUNTS, SEEDS)
def test_a_smaller_sample_begins_a_larger_one(
    ids: list[str], one: int, other: int, seed: int
) -> None:
    small, large = sorted((one, other))
    assert drawn(ids, large, seed)[: min(small, len(ids))] == drawn(ids, small, seed)


@given(IDS, COUNTS, SEEDS, st.randoms())
def test_the_order_of_the_file_does_not_matter(
    ids: list[str], count: int, seed: int, shuffler: random.Random
) -> None:
    other = ids.copy()
    shuffler.shuffle(other)
    assert drawn(other, count, seed) == drawn(ids, count, seed)


@given(IDS, COUNTS, SEEDS)
def test_one_more_line_changes_at_most_one_question(ids: list[str], count: int, seed: int) -> None:
    before, after = set(drawn(ids[:-1], count, seed)), set(drawn(ids, count, seed))
    assert len(before - after) <= 1
    assert after - before <= {ids[-1]}


@given(IDS, st.one_of(st.none(), COUNTS), SEEDS)
def test_it_is_as_large_as_asked_and_has_nothing_twice(
    ids: list[str], count: int | None, seed: int
) -> None:
    found = drawn(ids, count, seed)
    assert len(found) == min(len(ids), len(ids) if count is None else count)
    assert len(set(found)) == len(found)
    assert set(found) <= set(ids)


@given(IDS, st.one_of(st.none(), COUNTS), SEEDS)
def test_shuffle_draws_as_the_original_did(ids: list[str], count: int | None, seed: int) -> None:
    taken = min(len(ids), len(ids) if count is None else count)
    expected = random.Random(seed).sample(questions(ids), taken)
    assert draw(questions(ids), count, seed, "shuffle") == expected


def test_another_seed_is_another_sample() -> None:
    ids = [f"{n:016x}" for n in range(1000)]
    first = set(drawn(ids, 20, 1))
    assert len(first & set(drawn(ids, 20, 2))) < 10
    assert first == set(drawn(ids, 20, 1))


def test_every_question_is_as_likely() -> None:
    """Chi-squared of 2,000 draws of 5 of 20; 43.8 is passed once in a thousand at 19 degrees."""
    ids = [f"{n:016x}" for n in range(20)]
    counts = dict.fromkeys(ids, 0)
    for seed in range(2000):
        for one in drawn(ids, 5, seed):
            counts[one] += 1
    assert sum((count - 500) ** 2 / 500 for count in counts.values()) < 43.8


def test_a_sample_is_the_same_for_ever() -> None:
    """Scores of last year are compared with this year's."""
    ids = [f"{n:016x}" for n in range(100)]
    assert [int(one, 16) for one in drawn(ids, 5, 42)] == [30, 50, 41, 24, 1]


@pytest.mark.parametrize("count", [0, -1])
@pytest.mark.parametrize("sampling", ["nested", "shuffle"])
def test_a_count_must_be_positive(count: int, sampling: Any) -> None:
    with pytest.raises(InputError, match=f"the number of questions is {count}"):
        draw(questions(["a"]), count, 1, sampling)


def test_there_are_two_ways_of_sampling() -> None:
    odd: Any = "random"
    with pytest.raises(InputError, match="there are `nested` and `shuffle`"):
        draw(questions(["a"]), 1, 1, odd)
