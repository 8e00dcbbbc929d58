"""The step that answers, with a model that says what it was asked; the real one has tests too."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cachedeval.engine.engine import Engine
from cachedeval.engine.errors import InputError
from cachedeval.engine.node import Call, Computed
from cachedeval.engine.resource import Resource
from cachedeval.evals.generation import (
    AdapterError,
    Answered,
    Decoded,
    DecodeInputs,
    Rendered,
    decode,
    ids_of,
    packed,
    render,
)


def in_tokens(said: str) -> bytes:
    return packed([ord(character) for character in said])


def said_in(tokens: bytes) -> str:
    return "".join(map(chr, ids_of(tokens)))


class Tokenizer:
    """Has a token for each character."""

    def render(self, messages: Any, tools: Any, template_args: Any) -> Rendered:
        del tools, template_args
        return Rendered(in_tokens(messages[-1]["content"]), (2,))


class Model:
    """Answers backwards in time and in order, and remembers what was asked together."""

    def __init__(self, *, unfit: str = "", broken: str = "") -> None:
        self.groups: list[tuple[str, list[str]]] = []
        self.prompts: list[DecodeInputs] = []
        self.unfit = unfit
        self.broken = broken

    def generate(
        self, adapter: Path | None, prompts: Sequence[DecodeInputs]
    ) -> Iterator[Answered | None]:
        name = "" if adapter is None else adapter.name
        if name and name == self.unfit:
            raise InputError(f"adapter {name}: does not fit the model")
        said = [said_in(prompt.prompt.tokens) for prompt in prompts]
        self.groups.append((name, said))
        self.prompts.extend(prompts)
        for index in reversed(range(len(prompts))):
            yield None
            if said[index] == self.broken:
                yield index, ValueError("broken")
            else:
                yield index, Computed(Decoded(in_tokens(f"{name}:{said[index]}"), "stop"))


def resource(model: Model, identity: str = "model") -> Resource[Any]:
    return Resource("model", identity, lambda: model)


def prompt(text: str) -> Call[Any]:
    tokenizer = Resource("tokenizer", "one", Tokenizer)
    return render(tokenizer=tokenizer, messages=[{"role": "user", "content": text}])


def call(model: Resource[Any], text: str, adapter: str | None = None, **more: Any) -> Call[Any]:
    return decode(
        model=model,
        adapter=None if adapter is None else Resource("adapter", adapter, lambda: Path(adapter)),
        prompt=prompt(text),
        max_tokens=more.pop("max_tokens", 8),
        **more,
    )


def test_each_adapter_answers_all_its_questions_together() -> None:
    model = Model()
    one = resource(model)
    calls = [call(one, text, name) for text in "abc" for name in (None, "x", "y")]
    with Engine() as engine:
        texts = [said_in(answer.tokens) for answer in engine.run(calls)]
        # The model and the tokenizer: adapters are folders, and each is asked for its own.
        assert engine.resources.loads == 2
    assert texts == [f"{name}:{text}" for text in "abc" for name in ("", "x", "y")]
    assert model.groups == [(name, ["a", "b", "c"]) for name in ("", "x", "y")]


def test_two_models_are_never_mixed() -> None:
    first, second = Model(), Model()
    one, two = resource(first, "1"), resource(second, "2")
    with Engine() as engine:
        engine.run([call(model, text) for text in "ab" for model in (one, two)])
    assert first.groups == second.groups == [("", ["a", "b"])]


def test_the_same_adapter_under_two_names_is_one_group() -> None:
    model = Model()
    one = resource(model)
    names = [Path("here/x"), Path("there/x")]
    calls = [
        decode(
            model=one,
            adapter=Resource("adapter", "its content", lambda name=name: name),  # type: ignore[misc] # the loop's own
            prompt=prompt(name.parent.name),
            max_tokens=8,
        )
        for name in names
    ]
    with Engine() as engine:
        engine.run(calls)
    assert model.groups == [("x", ["here", "there"])]


def test_one_question_that_fails_fails_alone() -> None:
    model = resource(Model(broken="b"))
    with Engine() as engine:
        states = [o.state for o in engine.settle([call(model, text) for text in "abc"])]
    assert states == ["computed", "failed", "computed"]


def test_an_adapter_that_does_not_fit_fails_alone() -> None:
    model = Model(unfit="y")
    one = resource(model)
    with Engine() as engine:
        outcomes = engine.settle(
            [call(one, text, name) for name in ("x", "y", "z") for text in "ab"]
        )
    assert [o.state for o in outcomes] == ["computed"] * 2 + ["failed"] * 2 + ["computed"] * 2
    errors = [o.error for o in outcomes[2:4]]
    assert all(isinstance(error, AdapterError) and not error.fatal for error in errors)
    assert "adapter y: does not fit" in str(errors[0])


def test_an_adapter_that_breaks_off_keeps_what_it_answered() -> None:
    class Torn(Model):
        def generate(self, adapter: Path | None, prompts: Sequence[DecodeInputs]) -> Any:
            for result in super().generate(adapter, prompts):
                yield result
                if result is not None and adapter == Path("y"):
                    raise MemoryError("no room")

    one = resource(Torn())
    with Engine() as engine:
        outcomes = engine.settle([call(one, text, name) for name in "xyz" for text in "ab"])
    assert [o.state for o in outcomes] == ["computed"] * 2 + ["failed", "computed"] + [
        "computed"
    ] * 2
    assert isinstance(outcomes[2].error, MemoryError)


def test_a_small_budget_does_not_load_a_model_for_each_adapter() -> None:
    model = Model()
    one: Resource[Any] = Resource("model", "big", lambda: model, size=lambda _: 10**9)
    with Engine(memory_budget=1) as engine:
        engine.run([call(one, "a", name) for name in "xyz"])
        assert engine.resources.loads == 2  # the model and the tokenizer


def test_a_model_that_cannot_be_loaded_ends_the_run() -> None:
    def broken() -> Any:
        raise InputError("model x: no config.json there")

    with Engine() as engine, pytest.raises(InputError, match=r"no config\.json") as raised:
        engine.settle([call(Resource("model", "x", broken), text) for text in "ab"])
    assert raised.value.fatal


def test_the_model_is_asked_what_the_call_says() -> None:
    model = Model()
    with Engine() as engine:
        engine.run(call(resource(model), "a", max_tokens=5, temperature=0.5, top_p=0.9, seed=3))
    (asked,) = model.prompts
    assert said_in(asked.prompt.tokens) == "a"
    drawn = (asked.max_tokens, asked.temperature, asked.top_p, asked.seed)
    assert drawn == (5, 0.5, 0.9, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.5},
        {"top_p": 0.5},
        {"top_k": 3},
        {"min_p": 0.1},
        {"repetition_penalty": 1.1},
        {"stop": ("x",)},
        {"seed": 1},
        {"adapter": "x"},
    ],
)
def test_all_that_decides_the_answer_is_in_the_key(change: dict[str, Any]) -> None:
    model = resource(Model())
    with Engine() as engine:
        engine.run(call(model, "a"))
        assert engine.plan([call(model, "a")])["decode"].hits == 1
        assert engine.plan([call(model, "a", **change)])["decode"].computed == 1


def test_an_answer_holds_nothing_else_so_that_equal_ones_are_one() -> None:
    model = resource(Model())
    with Engine() as engine:
        one, other = engine.settle([call(model, "a"), call(model, "a", max_tokens=9)])
    assert one.digest == other.digest
