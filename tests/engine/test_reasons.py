"""Explanations of many calls, told together."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from cachedeval import Call, Engine, node
from cachedeval.engine.explain import Reason, reasons_of
from cachedeval.engine.resource import Handle, Resource


@node(version="1", name="answer")
def answer(model: Handle[int], question: str, words: int) -> str:
    with model as size:
        return f"{question} {size} {words}"


@node(version="1", name="said")
def said(model: Handle[int], question: str) -> str:
    return f"{question} {model.resource.identity['scale']:.0f}"


@node(version="1", name="loud")
def loud(number: int, text: str) -> str:
    return text + "!" * (number < 0)


@node(version="1", name="shout")
def shout(number: int, text: str) -> str:
    return f"{number}: {text}"


@node(version="1", name="judge")
def judge(answer: str, strict: bool) -> int:  # noqa: FBT001  an input like another
    return len(answer) + strict


def model(weights: str, scale: float) -> Resource[int]:
    return Resource("model", {"weights": f"xxh3:{weights:0>32}", "scale": scale}, lambda: 7)


def calls(count: int = 4, *, weights: str = "1", strict: bool = True) -> list[Call[int]]:
    subject = model(weights, 20.0 if weights == "1" else 10.0)
    return [judge(answer(subject, f"q{n}", 5), strict) for n in range(count)]


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine("memory:") as engine:
        yield engine


def reasons(engine: Engine, wanted: Sequence[Call[Any]]) -> list[Reason]:
    return reasons_of(engine.explain_many(wanted))


def test_hits_have_no_reason(engine: Engine) -> None:
    engine.run(calls())
    assert reasons(engine, calls()) == []


def test_what_is_new_comes_before_what_waits_for_it(engine: Engine) -> None:
    assert list(map(str, reasons(engine, calls()))) == [
        "4 answer: nothing of this step is in the cache yet",
        "4 judge: waits for answer",
    ]


def test_one_cause_is_one_line_with_its_fields_and_short_digests(engine: Engine) -> None:
    engine.run(calls())
    first, second = reasons(engine, calls(weights="2"))
    assert str(first) == (
        "4 answer: model / weights: xxh3:00000000… → xxh3:00000000…; model / scale: 20.0 → 10.0"
    )
    assert first.changed[0].now == f"xxh3:{'2':0>32}", "whole for programs"
    assert str(second) == "4 judge: waits for answer"


def test_a_change_downstream_is_reported_alone(engine: Engine) -> None:
    engine.run(calls())
    assert list(map(str, reasons(engine, calls(strict=False)))) == ["4 judge: strict: True → False"]


def test_a_changed_output_is_explained_through_the_graph(engine: Engine) -> None:
    def graph(weights: str) -> tuple[list[Call[str]], list[Call[str]]]:
        answers = [said(model(weights, float(weights)), f"q{n}") for n in range(4)]
        return answers, [shout(n, loud(n, answer)) for n, answer in enumerate(answers)]

    engine.run(graph("1")[1])
    answers, shouts = graph("2")
    engine.run([loud(n, answer) for n, answer in enumerate(answers)])
    (told,) = reasons(engine, shouts)
    first, second, third = str(told).splitlines()
    change = "'q0 1' → 'q0 2' (and 3 other changes)"
    assert first == f"4 shout: text (output of loud): {change}"
    assert second == f"  because of 4 loud: another output: text (output of said): {change}"
    assert third == (
        "    because of 4 said: another output: model / weights: xxh3:00000000… → xxh3:00000000…; "
        "model / scale: 1.0 → 2.0"
    )
    (cause,) = told.because
    assert (cause.node, cause.calls, cause.state, cause.waits_for) == ("loud", 4, "hit", {})
    assert told.waits_for == {}


def test_a_field_that_differs_in_every_call_is_reported_once(engine: Engine) -> None:
    engine.run(calls(2))
    first, second = reasons(engine, calls(5))
    assert first.calls == second.calls == 3
    (changed,) = first.changed
    assert (changed.where, changed.values) == ("question", 3)
    assert str(first).startswith("3 answer: question: 'q")
    assert str(first).endswith("(and 2 other changes)")


def test_two_causes_are_two_lines_the_commoner_first(engine: Engine) -> None:
    engine.run(calls(4))
    longer = [judge(answer(model("1", 20.0), "q0", 9), strict=True)]
    told = [r for r in reasons(engine, [*longer, *calls(4, weights="2")]) if r.node == "answer"]
    assert [(reason.calls, len(reason.changed)) for reason in told] == [(4, 2), (1, 1)]


def test_a_call_that_several_wait_for_is_counted_once(engine: Engine) -> None:
    shared = answer(model("1", 20.0), "q", 5)
    told = reasons(engine, [judge(shared, strict=True), judge(shared, strict=False)])
    assert [(reason.node, reason.calls) for reason in told] == [("answer", 1), ("judge", 2)]
