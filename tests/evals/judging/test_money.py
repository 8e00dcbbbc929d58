"""Tokens in money, records in a line, plans in figures."""

from typing import Any

import pytest

from cachedeval import Computed, Engine, node
from cachedeval.engine.maintenance import contents_of, lines_of
from cachedeval.engine.resource import Handle, Resource
from cachedeval.evals.generation import Generation, Rendered, RenderInputs
from cachedeval.evals.judging.money import SavedMoney, usd
from cachedeval.evals.judging.pricing import Price
from cachedeval.evals.judging.verdict import Verdict
from cachedeval.evals.run_stats import estimate
from cachedeval.evals.steps import summarise

PRICES = {
    "cerebras:a": Price(input=1.0, output=2.0),
    "cerebras:b": Price(input=10.0, output=0.0),
}


@node(version="1", name="judge")
def asked(judge: Handle[Any], question: str) -> Computed[str]:
    del judge
    return Computed(question, cost={"prompt_tokens": 1000, "completion_tokens": 500})


def judge(model: str) -> Resource[None]:
    return Resource("judge", {"provider": "cerebras", "model": model}, lambda: None)


def test_tokens_cost_what_the_judge_s_price_says() -> None:
    cost = {"prompt_tokens": 2_000_000.4, "completion_tokens": 500_000.0, "other": 7.0}
    assert usd("cerebras:a", cost, PRICES) == pytest.approx(3.0)
    assert usd("cerebras:unknown", cost, PRICES) is None
    assert usd("cerebras:a", {}, PRICES) is None, "no tokens are no price, not a price of 0"


def test_saved_money_is_summed_over_hits_by_each_judge_s_own_price() -> None:
    with Engine("memory:") as engine:
        calls = [
            asked(judge("a"), "x"),
            asked(judge("a"), "y"),
            asked(judge("b"), "x"),
            asked(judge("unpriced"), "x"),
        ]
        engine.run(calls)
        nothing = SavedMoney()
        contents_of(engine.store, nothing)
        assert nothing.usd(engine.store, PRICES) is None, "no hit has saved anything yet"
        for _ in range(3):
            engine.run(calls)
        engine.store.flush()
        money = SavedMoney()
        contents_of(engine.store, money)
        # Three hits each: two calls at 0.002 a call, one at 0.01.
        assert money.usd(engine.store, PRICES) == pytest.approx(3 * (0.002 + 0.002 + 0.01))
        assert money.usd(engine.store, {}) is None


def test_a_plan_s_tokens_are_priced_by_the_judge() -> None:
    with Engine("memory:") as engine:
        engine.run([asked(judge("a"), "x")])
        plan = engine.plan([asked(judge("a"), question) for question in "xyz"])
        found = estimate(plan, "cerebras:gpt-oss-120b")
    assert found.steps["judge"]["calls"] == 3
    assert found.todo == 2
    assert found.seconds == found.steps["judge"]["seconds"] > 0
    assert found.steps["judge"]["cost"]["prompt_tokens"] == 2000
    assert found.usd is not None
    assert found.usd > 0
    assert estimate(plan, "cerebras:no-price").usd is None


@node(version="1", name="render")
def rendered(messages: list[dict[str, str]]) -> Rendered:
    del messages
    return Rendered(b"12345678", ())


@node(version="1", name="text")
def said(model: str) -> Generation:
    return Generation(f"{model} says…\x1b[31m")


@node(version="1", name="judge_parse")
def parsed(question: str) -> Verdict:
    del question
    return Verdict({"clarity": 7.0, "truth": 2.5}, "because")


def test_a_record_is_described_by_its_step() -> None:
    chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who?"}]
    with Engine("memory:") as engine:
        engine.run(
            [rendered(chat), said("m"), parsed("Who was it, " * 20), asked(judge("a"), "raw")]
        )
        told = {line.node: line.summary for line in lines_of(engine.store, None, summarise)}
    assert told["render"] == "Who? → 2 tokens"
    assert told["text"] == "m says…\x1b[31m"
    assert told["judge_parse"] == "Who was it, Who was it, Who w… → clarity 7.0, truth 2.5"
    assert told["judge"] == "raw"
    assert told["identities"].startswith("judge sha256:")


def test_a_generation_s_inputs_have_the_names_that_a_listing_looks_for() -> None:
    assert "messages" in RenderInputs.__struct_fields__
