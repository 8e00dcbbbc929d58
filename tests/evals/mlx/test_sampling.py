import math
from collections import Counter
from typing import Any

import pytest

from cachedeval.evals.mlx.runtime import mx
from cachedeval.evals.mlx.sampling import Chooser

PROBABILITIES = [0.5, 0.25, 0.15, 0.06, 0.04]
LOGPROBS = mx.array([[math.log(p) for p in PROBABILITIES]])


def chooser(**options: Any) -> Chooser:
    return Chooser(
        options.pop("prompt", [1, 2, 3]),
        **{"temperature": 0.0, "top_p": 1.0, "seed": 0, "bound": 1e-3, **options},
    )


def number(array: mx.array) -> Any:
    return array.item()


def draws(count: int, **options: Any) -> list[int]:
    one = chooser(**options)
    return [number(one.choose(LOGPROBS, step)[0]) for step in range(count)]


def test_greedy_takes_the_best_and_returns_its_margin() -> None:
    token, lead = chooser().choose(mx.array([[0.5, 3.0, 2.75]], dtype=mx.bfloat16), 0)
    assert token.tolist() == [1]
    assert lead.tolist() == [0.25]
    assert chooser().choose(mx.array([[1.0, 1.0]]), 0)[1].tolist() == [0]


@pytest.mark.parametrize(("temperature", "power"), [(1.0, 1.0), (0.5, 2.0), (2.0, 0.5)])
def test_draws_follow_the_probabilities(temperature: float, power: float) -> None:
    count = 2000
    drawn = Counter(draws(count, temperature=temperature))
    weights = [p**power for p in PROBABILITIES]
    for token, weight in enumerate(weights):
        share = weight / sum(weights)
        deviation = math.sqrt(share * (1 - share) / count)
        assert abs(drawn[token] / count - share) < 4 * deviation


def test_top_p_draws_from_the_smallest_set_that_has_it() -> None:
    assert set(draws(300, temperature=1.0, top_p=0.7)) == {0, 1}
    assert set(draws(300, temperature=1.0, top_p=0.8)) == {0, 1, 2}
    assert set(draws(100, temperature=5.0, top_p=0.4)) == {0}


def test_a_draw_depends_on_seed_prompt_and_step_alone() -> None:
    same = draws(60, temperature=1.0)
    assert draws(60, temperature=1.0) == same
    assert draws(60, temperature=1.0, seed=1) != same
    assert draws(60, temperature=1.0, seed=2**70) != same
    assert draws(60, temperature=1.0, prompt=[1, 2, 4]) != same
    assert draws(60, temperature=1.0, prompt=[1, 23]) != same
    mx.random.seed(5)
    assert draws(60, temperature=1.0) == same


@pytest.mark.parametrize("top_p", [1.0, 0.85, 0.7])
def test_a_lead_of_the_bound_wins_under_any_noise(top_p: float) -> None:
    bound = 0.1
    one = chooser(temperature=0.8, top_p=top_p, bound=bound)
    settled = 0
    for step in range(150):
        token, lead = one.choose(LOGPROBS, step)
        if number(lead) < bound:
            continue
        settled += 1
        for draw in range(5):
            key = mx.random.key(1000 * step + draw)
            noise = mx.random.uniform(-bound / 2, bound / 2, LOGPROBS.shape, key=key)
            noisy = LOGPROBS + noise
            noisy -= mx.logsumexp(noisy, axis=-1, keepdims=True)
            assert one.choose(noisy, step)[0].tolist() == token.tolist()
    assert settled > 30


def test_as_a_sampler_it_keeps_the_leads_in_order() -> None:
    one = chooser()
    for lead in (1.0, 2.0, 3.0):
        assert one(mx.array([[0.0, lead]])).tolist() == [1]
    assert [one.lead(), one.lead()] == [1.0, 2.0]
    one.go_on_at(1)
    one(mx.array([[0.0, 5.0]]))
    assert one.lead() == 5.0


def test_after_going_back_it_draws_as_before() -> None:
    one = chooser(temperature=1.0)
    expected = draws(30, temperature=1.0)
    drawn = [number(one(LOGPROBS)) for _ in range(20)]
    assert drawn == expected[:20]
    one.go_on_at(10)
    assert [number(one(LOGPROBS)) for _ in range(20)] == expected[10:30]
