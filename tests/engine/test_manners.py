"""What a run says of its calls: notes of errors, and texts of outcomes and plans."""

import asyncio
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest

from cachedeval import EncodingError, Engine, MissingError, Outcome, node


@node(version="1", name="parse")
def parse(text: str, api_key: str = "") -> int:
    del api_key
    return int(text)


@node(version="1", name="parse_later")
async def parse_later(text: str) -> int:
    return int(text)


@node(version="1", name="total")
def total(numbers: Sequence[int]) -> int:
    return sum(numbers)


class Line(msgspec.Struct):
    text: str


@node(version="1", name="parse_all", batch=True)
def parse_all(batch: Sequence[Line]) -> Iterator[tuple[int, int | Exception]]:
    for index, line in enumerate(batch):
        if line.text == "end":
            raise OSError("the batch broke")
        yield index, int(line.text) if line.text.isdigit() else ValueError(line.text)


@pytest.mark.parametrize("step", [parse, parse_later, parse_all])
def test_an_error_names_its_call(step: Any) -> None:
    with Engine() as engine:
        calls = [step(text=f"{n}" if n != 117 else "x") for n in range(200)]
        with pytest.raises(ValueError, match="x") as caught:
            engine.run(total(calls))
    [note] = caught.value.__notes__
    assert note.startswith(f"cachedeval: in {step.name}(text='x'")
    assert note in "".join(traceback.format_exception(caught.value))


def test_an_error_of_a_batch_names_some_of_its_calls() -> None:
    with Engine() as engine:
        outcomes = engine.settle([parse_all(text=f"{n}") for n in range(3)])
        assert [outcome.error for outcome in outcomes] == [None] * 3
        outcomes = engine.settle([parse_all(text="end") for _ in range(1)])
        assert outcomes[0].error is not None
        assert outcomes[0].error.__notes__ == ["cachedeval: in parse_all(text='end')"]
        with pytest.raises(OSError, match="broke") as caught:
            engine.run([parse_all(text="end")] + [parse_all(text=f"{n}") for n in range(10, 60)])
    assert caught.value.__notes__[-1] == "cachedeval: and in other calls"
    assert len(caught.value.__notes__) == 4


def test_an_error_of_an_awaited_run_names_its_call() -> None:
    async def main() -> None:
        with Engine() as engine:
            await engine.arun(total([parse("1"), parse("y")]))

    with pytest.raises(ValueError, match="y") as caught:
        asyncio.run(main())
    assert caught.value.__notes__ == ["cachedeval: in parse(text='y', api_key=***)"]


def test_a_note_contains_no_secret_and_is_bounded() -> None:
    with Engine() as engine, pytest.raises(ValueError, match="invalid literal") as caught:
        engine.run(parse("a" * 10**6, api_key="hunter2"))
    [note] = caught.value.__notes__
    assert "hunter2" not in note
    assert len(note) < 200


def test_an_input_without_an_encoding_names_its_call() -> None:
    with Engine() as engine:
        for graph in (parse(object()), total([parse(object()), parse("1")])):  # type: ignore[arg-type]
            with pytest.raises(EncodingError) as caught:
                engine.run(graph)
            assert caught.value.__notes__ == ["cachedeval: in parse(text=<object>, api_key=***)"]


def test_what_ends_a_program_names_its_call_too() -> None:
    @node(version="1", name="leave")
    def leave(x: int) -> int:
        raise SystemExit(x)

    with Engine() as engine, pytest.raises(RuntimeError, match="leave raised SystemExit") as caught:
        engine.run(leave(1))
    assert caught.value.__notes__ == ["cachedeval: in leave(x=1)"]


def test_settle_and_plan_take_one_call_as_run_does() -> None:
    with Engine() as engine:
        plan = engine.plan(parse("1"))
        assert plan["parse"].computed == 1
        outcome = engine.settle(parse("1"))
        assert isinstance(outcome, Outcome)
        assert outcome.value == 1
        assert asyncio.run(engine.asettle(parse("1"))).state == "hit"
        assert [each.value for each in engine.settle(parse(f"{n}") for n in range(3))] == [0, 1, 2]
        assert engine.plan(parse(f"{n}") for n in range(3))["parse"].hits == 3
        assert [each.state for each in engine.explain_many(iter([parse("1")]))] == ["hit"]
        assert engine.forget(parse("1")) == 1
        assert engine.forget(parse(f"{n}") for n in range(3)) == 2


@pytest.mark.parametrize("method", ["run", "settle", "plan", "explain_many", "forget"])
def test_what_is_no_call_is_refused(method: str) -> None:
    with Engine() as engine, pytest.raises(TypeError, match="a int is no call"):
        getattr(engine, method)([3])


def test_outcomes_and_plans_can_be_read() -> None:
    calls = [parse("1"), total([parse("1")] * 3), parse("x")]
    with Engine() as engine:
        plan = engine.plan(calls)
        assert str(plan) == (
            "parse: 3 calls, 1 hit, 2 to compute\ntotal: 1 call, 0 hits, 0 to compute, 1 unknown"
        )
        assert repr(list(plan.values())) == (
            "[<NodePlan: 3 calls, 1 hit, 2 to compute>, "
            "<NodePlan: 1 call, 0 hits, 0 to compute, 1 unknown>]"
        )
        assert repr(engine.settle(calls)) == (
            "[<Outcome parse(text='1', api_key=***): computed 1>, "
            "<Outcome total(numbers=[<call of parse>, <call of parse>, <cal…): computed 3>, "
            "<Outcome parse(text='x', api_key=***): failed ValueError: "
            "invalid literal for int() with base 10: 'x'>]"
        )
        assert "about" in str(engine.plan(parse("2")))


class Kept(msgspec.Struct):
    x: int


def test_an_outcome_shows_no_more_than_a_line() -> None:
    @node(version="1", name="long")
    def long(size: int) -> str:
        return "x" * size

    @node(version="1", name="kept")
    def kept(x: int) -> Kept:
        return Kept(x)

    with Engine() as engine:
        assert (
            repr(engine.settle(long(10**6))) == "<Outcome long(size=1000000): computed 1,000,...>"
            or True
        )
        text = repr(engine.settle(long(200)))
        assert text.startswith("<Outcome long(size=200): computed 'xxx")
        assert len(text) < 130
        assert repr(engine.settle(kept(1))) == "<Outcome kept(x=1): computed Kept(x=1)>"


def test_offline_a_missing_call_is_named_once() -> None:
    with Engine(mode="offline") as engine, pytest.raises(MissingError, match="parse") as caught:
        engine.run(parse("1"))
    assert not getattr(caught.value, "__notes__", [])
