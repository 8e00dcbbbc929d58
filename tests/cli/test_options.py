import inspect
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from cachedeval import AdapterEvaluator
from cachedeval.cli.options import DEFAULT_CACHE, evaluation_options, evaluator_of
from cachedeval.evals import evaluator as evaluator_module

NAMED_OTHERWISE = {"evaluation_seed": "seed"}
NOT_OPTIONS = {"mode"}
"""`--no-cache`, `--refresh` and `--offline` are of the commands that run something."""


def parsed(*arguments: str, env: dict[str, str] | None = None) -> tuple[dict[str, Any], str]:
    """Return what the options are read as, and what is said of an error."""
    found: dict[str, Any] = {}

    @click.command()
    @evaluation_options
    def command(**options: Any) -> None:
        found.update(options)

    quiet = {"CACHEDEVAL_CACHE": None, "CACHEDEVAL_JUDGE": None, **(env or {})}
    done = CliRunner().invoke(command, ["--data", "q.jsonl", *arguments], env=quiet)
    return found, done.output


def test_the_defaults_are_those_of_the_library() -> None:
    options, _ = parsed()
    library = inspect.signature(AdapterEvaluator).parameters
    for name, parameter in library.items():
        if name not in NOT_OPTIONS:
            assert options[NAMED_OTHERWISE.get(name, name)] == parameter.default, name
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
    options, _ = parsed()
    marked = {name: f"<{name}>" for name in options}
    with evaluator_of(marked, mode="offline"):
        assert "closed" not in got
    assert got.pop("closed")
    assert got.pop("mode") == "offline"
    expected = {
        name: f"<{NAMED_OTHERWISE.get(name, name)}>"
        for name in inspect.signature(AdapterEvaluator).parameters
        if name not in NOT_OPTIONS
    }
    assert got == expected
    unused = set(options) - {NAMED_OTHERWISE.get(name, name) for name in expected}
    assert unused == {"adapters", "data", "num_questions"}


def test_it_is_closed_on_an_interrupt(tmp_path: Path) -> None:
    options, _ = parsed("--cache", f"disk:{tmp_path / 'cache'}", "--judge", "f1")
    kept: list[AdapterEvaluator] = []

    def interrupted() -> None:
        with evaluator_of(options) as evaluator:
            kept.append(evaluator)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(Exception, match="closed"):
        kept[0].engine.settle([])


def test_an_adapter_is_given_again_for_one_more() -> None:
    options, _ = parsed("--adapter", "a", "--adapter", "b")
    assert options["adapters"] == ("a", "b")
    assert parsed()[0]["adapters"] == ()


def test_a_size_is_read_as_people_write_it() -> None:
    assert parsed("--memory-budget", "8GB")[0]["memory_budget"] == 8 * 2**30
    found, said = parsed("--memory-budget", "much")
    assert not found
    assert "much" in said


@pytest.mark.parametrize(
    ("variable", "name"), [("CACHEDEVAL_CACHE", "cache"), ("CACHEDEVAL_JUDGE", "judge")]
)
def test_the_environment_stands_in_and_the_option_wins(variable: str, name: str) -> None:
    env = {variable: "memory:"}
    assert parsed(env=env)[0][name] == "memory:"
    assert parsed(f"--{name}", "other:", env=env)[0][name] == "other:"
    assert parsed()[0]["cache"] == DEFAULT_CACHE


@pytest.mark.parametrize(
    "arguments",
    [("--sampling", "random"), ("--on-failure", "ignore"), ("--num-questions", "few")],
)
def test_what_is_no_choice_is_refused(arguments: tuple[str, str]) -> None:
    found, said = parsed(*arguments)
    assert not found
    assert arguments[0] in said


@pytest.mark.parametrize("size", ["9" * 400, "9" * 400 + "GB", "1e3", "-1", "", "nan"])
def test_a_size_that_is_none_is_told(size: str) -> None:
    _, said = parsed("--memory-budget", size)
    assert "is no size; give one like 2GB or 500MB" in " ".join(said.split())
