import inspect
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from cachedeval import AdapterEvaluator
from cachedeval.cli import run
from cachedeval.cli.options import DEFAULT_CACHE, Parser, evaluator_of
from cachedeval.engine.errors import InputError
from cachedeval.evals import evaluator as evaluator_module

NAMED_OTHERWISE = {"evaluation_seed": "seed"}
OF_RUN_ALONE = {
    *("adapters", "data", "num_questions", "json", "out", "verbose"),
    *("config", "print_config"),
    *("html", "export", "summary", "fail_under", "not_worse_than", "margin"),
}
OF_THE_SETTINGS = {"judge_reasoning_effort", "judge_extra", "judge_id"}


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CACHEDEVAL_CACHE", "CACHEDEVAL_JUDGE"):
        monkeypatch.delenv(name, raising=False)


def parsed(*arguments: str) -> Namespace:
    """Return the values of the options of `cachedeval run`."""
    parser = Parser("cachedeval run", None)
    run.declare(parser)
    return parser.parse(["--data", "q.jsonl", *arguments])


def test_the_defaults_are_those_of_the_library() -> None:
    options = vars(parsed())
    for name, parameter in inspect.signature(AdapterEvaluator).parameters.items():
        if name in OF_THE_SETTINGS:
            continue
        given = options[NAMED_OTHERWISE.get(name, name)]
        default = parameter.default
        assert given == ([] if default in (None, ()) and isinstance(given, list) else default), name
    assert options["num_questions"] == (
        inspect.signature(AdapterEvaluator.evaluate_adapter).parameters["num_questions"].default
    )


def test_every_option_reaches_the_evaluator(monkeypatch: pytest.MonkeyPatch) -> None:
    got: dict[str, Any] = {}

    class Evaluator(AdapterEvaluator):
        def __init__(self, **arguments: Any) -> None:
            got.update(arguments)

        def close(self) -> None:
            got["closed"] = True

    monkeypatch.setattr(evaluator_module, "AdapterEvaluator", Evaluator)
    options = vars(parsed())
    with evaluator_of(Namespace(**{name: f"<{name}>" for name in options})):
        assert "closed" not in got
    assert got.pop("closed")
    expected = {
        name: f"<{NAMED_OTHERWISE.get(name, name)}>"
        for name in inspect.signature(AdapterEvaluator).parameters
        if name not in OF_THE_SETTINGS
    }
    assert got == expected
    unused = set(options) - {NAMED_OTHERWISE.get(name, name) for name in expected}
    assert unused == OF_RUN_ALONE


def test_it_is_closed_on_an_interrupt(tmp_path: Path) -> None:
    options = parsed("--cache", f"disk:{tmp_path / 'cache'}", "--judge", "f1")
    kept: list[AdapterEvaluator] = []

    def interrupted() -> None:
        with evaluator_of(options) as evaluator:
            kept.append(evaluator)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(Exception, match="closed"):
        kept[0].engine.settle([])


def test_adapter_can_be_repeated() -> None:
    assert parsed("--adapter", "a", "--adapter", "b").adapters == ["a", "b"]
    assert parsed().adapters == []


def test_a_size_is_read_as_people_write_it() -> None:
    assert parsed("--memory-budget", "8GB").memory_budget == 8 * 2**30
    with pytest.raises(InputError, match="--memory-budget: 'much' is not a size"):
        parsed("--memory-budget", "much")


def test_the_environment_stands_in_and_the_option_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parsed().cache == DEFAULT_CACHE
    monkeypatch.setenv("CACHEDEVAL_CACHE", "memory:")
    monkeypatch.setenv("CACHEDEVAL_JUDGE", "exact")
    assert parsed().cache == "memory:"
    cases: list[tuple[list[str], str]] = [([], "exact"), (["--judge", "f1"], "f1")]
    for more, judge in cases:
        with evaluator_of(parsed(*more)) as evaluator:
            assert evaluator.judge_name == judge
    assert parsed("--cache", "other:").cache == "other:"
    monkeypatch.setenv("CACHEDEVAL_CACHE", "")
    assert parsed().cache == DEFAULT_CACHE, "an empty variable is one that is not set"


def test_the_help_shows_no_cache_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEDEVAL_CACHE", "redis://user:a-password@host")
    parser = Parser("cachedeval run", None)
    run.declare(parser)
    shown = parser.format_help()
    assert DEFAULT_CACHE in shown
    assert "a-password" not in shown


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [([], "use"), (["--no-cache"], "off"), (["--refresh"], "refresh"), (["--offline"], "offline")],
)
def test_how_the_cache_is_used(arguments: list[str], mode: str) -> None:
    assert parsed(*arguments).mode == mode


def test_the_modes_exclude_each_other() -> None:
    with pytest.raises(InputError, match="--offline: not allowed with argument --refresh"):
        parsed("--refresh", "--offline")


def test_a_value_may_begin_with_a_dash() -> None:
    assert parsed("--judge=-f1").judge == ["-f1"]
    assert parsed("--temperature", "-1").temperature == -1
    with pytest.raises(InputError, match="--judge: a value is missing; write one that starts"):
        parsed("--judge", "-f1")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--sampling", "random"),
        ("--on-failure", "ignore"),
        ("--num-questions", "few"),
        ("--num-questions", "2.5"),
        ("--temperature", "warm"),
    ],
)
def test_an_invalid_value_is_an_error(arguments: tuple[str, str]) -> None:
    with pytest.raises(InputError, match=f"^{arguments[0]}: .*'{arguments[1]}'"):
        parsed(*arguments)


@pytest.mark.parametrize("size", ["9" * 400, "9" * 400 + "GB", "1e3", "-1", "", "nan"])
def test_a_bad_size_is_an_error(size: str) -> None:
    with pytest.raises(InputError, match="is not a size; give one like 2GB or 500MB"):
        parsed(f"--memory-budget={size}")
