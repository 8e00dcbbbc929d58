import math

import pytest

from benchmarks.scenarios import SCENARIOS, Parts, Scenario, bound_of, factors_of, original_of
from benchmarks.workplace import SMALL

PARTS = Parts(
    generating=8.0,
    judging=1.0,
    rest=0.5,
    start=0.02,
    imports=2.0,
    sdk=0.5,
    load=1.0,
    latency=1.0,
    decode={"cold": 20.0, "half": 10.0, "one": 4.0, "more": 30.0, "seed": 12.0},
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def test_the_original_is_scaled_to_all_questions() -> None:
    assert original_of(BY_NAME["cold"], SMALL, PARTS) == pytest.approx(20 * 9 + 0.52)
    assert original_of(BY_NAME["more"], SMALL, PARTS) == pytest.approx(50 * 9 + 0.52)
    assert original_of(BY_NAME["sweep"], SMALL, PARTS) == pytest.approx(100 * 9 + 5 * 0.52)


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("cold", 0.02 + 3 + 20 + 1.5),
        ("warm", 0.02),
        ("criterion", 0.02 + 1.5),
        ("same-answers", 0.02 + 3 + 20),
        ("added", 0.02 + 3 + 4 + 1.5),
        ("sweep", 0.02 + 3 + 100 + 1.5),
    ],
)
def test_the_lower_bound_is_what_cannot_be_avoided(name: str, seconds: float) -> None:
    assert bound_of(BY_NAME[name], SMALL, PARTS, generated=1) == pytest.approx(seconds)


def test_a_kill_may_come_when_all_is_answered() -> None:
    resumed = BY_NAME["resumed"]
    assert bound_of(resumed, SMALL, PARTS, generated=0) == pytest.approx(1.52)
    assert bound_of(resumed, SMALL, PARTS, generated=10) == pytest.approx(14.52)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_factors_multiply_to_the_speed_up(scenario: Scenario) -> None:
    factors = factors_of(scenario, SMALL, PARTS, seconds=0.5)
    assert math.prod(factors.values()) == pytest.approx(original_of(scenario, SMALL, PARTS) / 0.5)
    assert min(factors.values()) > 1
