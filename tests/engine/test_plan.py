import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.faulty import FaultyBackend

from cachedeval import Call, Computed, Engine, node


@node(version="1", name="answer")
def answer(x: int, model: str = "a") -> Computed[int]:
    time.sleep(0.002)
    return Computed(x + len(model), cost={"tokens": 10.0 * (x + 1), "usd": 0.5})


@node(version="1", name="judge")
def judge(text: int, criterion: str = "good") -> Computed[int]:
    return Computed(text + len(criterion), cost={"usd": 2.0})


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


def counts(engine: Engine, calls: list[Call[Any]]) -> dict[str, tuple[int, int, int, int]]:
    plan = engine.plan(calls)
    return {name: (p.calls, p.hits, p.computed, p.unknown) for name, p in plan.items()}


def test_what_would_be_computed(engine: Engine) -> None:
    calls = [judge(answer(n)) for n in range(4)]
    assert counts(engine, calls) == {"answer": (4, 0, 4, 0), "judge": (4, 0, 0, 4)}
    engine.run(calls[:3])
    assert counts(engine, calls) == {"answer": (4, 3, 1, 0), "judge": (4, 3, 0, 1)}
    engine.run(calls)
    assert counts(engine, calls) == {"answer": (4, 4, 0, 0), "judge": (4, 4, 0, 0)}
    other = [judge(answer(n), "short") for n in range(4)]
    assert counts(engine, other) == {"answer": (4, 4, 0, 0), "judge": (4, 0, 4, 0)}


def test_the_same_call_twice_is_computed_once(engine: Engine) -> None:
    assert counts(engine, [answer(1), answer(1), answer(2)]) == {"answer": (3, 1, 2, 0)}


def test_what_a_plan_says_is_what_a_run_does(engine: Engine) -> None:
    engine.run([judge(answer(n)) for n in range(3)])
    calls = [judge(answer(n), c) for n in range(5) for c in ("good", "short")]
    plan = engine.plan(calls)
    before = {name: s.computed for name, s in engine.stats.items()}
    engine.run(calls)
    for name, planned in plan.items():
        assert engine.stats[name].computed - before[name] == planned.computed + planned.unknown


def test_the_estimate_is_the_mean_of_what_is_known(engine: Engine) -> None:
    call = [answer(7)]
    assert (engine.plan(call)["answer"].seconds, engine.plan(call)["answer"].basis) == (None, 0)
    assert engine.plan(call)["answer"].cost == {}
    known = engine.settle([answer(n) for n in range(4)])
    mean = sum(one.record.seconds for one in known if one.record is not None) / 4
    plan = engine.plan([answer(7), answer(8), judge(answer(0))])["answer"]
    assert plan.cost == {"tokens": 2 * 25.0, "usd": 1.0}
    assert plan.seconds == pytest.approx(2 * mean)
    assert plan.basis == 4
    assert engine.plan([judge(answer(0))])["judge"].seconds is None


def test_the_hits_of_the_run_are_the_nearest(engine: Engine) -> None:
    engine.run([answer(1000 + n) for n in range(10)])
    engine.run([answer(n) for n in range(10)])
    plan = engine.plan([answer(n) for n in range(11)])["answer"]
    assert (plan.basis, plan.cost["tokens"]) == (10, 55.0)


def test_nothing_to_do_costs_nothing(engine: Engine) -> None:
    engine.run(answer(1))
    plan = engine.plan([answer(1)])["answer"]
    assert (plan.seconds, plan.cost) == (None, {})


def test_what_cannot_have_a_key_fails(engine: Engine) -> None:
    plan = engine.plan([answer(object()), judge(answer(object()))])  # type: ignore[arg-type]
    assert (plan["answer"].calls, plan["answer"].failed, plan["answer"].computed) == (2, 2, 0)
    assert (plan["judge"].unknown, plan["judge"].failed) == (0, 1)


def test_a_plan_runs_nothing_and_counts_no_hit() -> None:
    backend = FaultyBackend()
    with Engine(backend) as engine:
        engine.run(answer(1))
        engine.plan([answer(1), answer(2)])
        assert engine.stats["answer"].calls == 1
    assert {entry.hits for entry in backend.scan()} == {0}


def test_a_cache_that_cannot_be_read_has_no_estimate() -> None:
    backend = FaultyBackend()
    with Engine(backend) as engine:
        engine.run(answer(1))
        backend.broken = {"scan"}
        assert engine.plan([answer(2)])["answer"].seconds is None
