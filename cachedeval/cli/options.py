"""The options that `run`, `plan` and `explain` share, and the evaluator that they describe."""

from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cachedeval.cli.output import bytes_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachedeval.evals.evaluator import AdapterEvaluator

__all__ = ["DEFAULT_CACHE", "cache_option", "evaluation_options", "evaluator_of"]

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_CACHE = "disk:./eval_cache"

cache_option = click.option(
    "--cache",
    envvar="CACHEDEVAL_CACHE",
    default=DEFAULT_CACHE,
    show_default=True,
    metavar="URL",
    help="Where results are kept: disk:PATH, memory:, or another installed backend's URL.",
)


def _size(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    return None if value is None else bytes_of(value)


_OPTIONS = (
    click.option("--model", metavar="M", help="Folder of the base model, or its name on the hub."),
    click.option(
        "--adapter",
        "adapters",
        multiple=True,
        metavar="A",
        help="Folder of an adapter, or its name in ./adapters/; again for one more. "
        "Without it the base model is evaluated.",
    ),
    click.option("--data", required=True, metavar="FILE", help="Questions, as JSON Lines."),
    click.option("--num-questions", default=20, show_default=True, metavar="N"),
    click.option("--seed", default=42, show_default=True, help="Of the sample, and of sampling."),
    click.option(
        "--sampling",
        type=click.Choice(["nested", "shuffle"]),
        default="nested",
        show_default=True,
        help="How questions are drawn; shuffle repeats old scores.",
    ),
    click.option(
        "--judge",
        envvar="CACHEDEVAL_JUDGE",
        metavar="J",
        help="cerebras:MODEL, openai:MODEL, mlx:PATH, exact or f1.",
    ),
    click.option(
        "--criteria", default="default", show_default=True, help="Name of a rubric, or TOML file."
    ),
    click.option("--per-criterion", is_flag=True, help="Ask the judge for each criterion apart."),
    click.option("--repeats", default=1, show_default=True, help="Verdicts a question."),
    click.option("--max-tokens", default=256, show_default=True, help="Bound of an answer."),
    click.option("--temperature", default=0.0, show_default=True, help="0 is greedy."),
    click.option("--top-p", default=1.0, show_default=True),
    click.option("--batch-size", type=int, help="Answers decoded together; by memory if not set."),
    click.option(
        "--memory-budget",
        callback=_size,
        metavar="SIZE",
        help="Bytes for models and batches, as in 8GB.",
    ),
    click.option(
        "--on-failure",
        type=click.Choice(["exclude", "zero", "raise"]),
        default="exclude",
        show_default=True,
        help="Whether a failed question is left out of the mean, counts 0, or ends the run.",
    ),
    click.option("--limits", metavar="FILE", help="The judge's limits and prices, as TOML."),
    click.option("--fetch", is_flag=True, help="Download the model if it is not here yet."),
    cache_option,
)


def evaluation_options(function: F) -> F:
    """Add the options that describe an evaluation."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@contextmanager
def evaluator_of(options: dict[str, Any], **more: Any) -> "Iterator[AdapterEvaluator]":
    """Give the evaluator that the options describe; closed at the end, also on an interrupt."""
    from cachedeval.evals.evaluator import AdapterEvaluator  # noqa: PLC0415  not for --help

    evaluator = AdapterEvaluator(
        model=options["model"],
        judge=options["judge"],
        cache=options["cache"],
        evaluation_seed=options["seed"],
        criteria=options["criteria"],
        per_criterion=options["per_criterion"],
        repeats=options["repeats"],
        max_tokens=options["max_tokens"],
        temperature=options["temperature"],
        top_p=options["top_p"],
        sampling=options["sampling"],
        batch_size=options["batch_size"],
        memory_budget=options["memory_budget"],
        on_failure=options["on_failure"],
        limits=options["limits"],
        fetch=options["fetch"],
        **more,
    )
    with evaluator:
        yield evaluator
