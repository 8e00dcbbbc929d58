"""`cachedeval explain`: why each step that is not in the cache is not."""

import json
from typing import TYPE_CHECKING, Any

import click

from cachedeval.cli.options import evaluation_options, evaluator_of

if TYPE_CHECKING:
    from cachedeval.engine.reasons import Reason

__all__ = ["command"]


@click.command("explain")
@evaluation_options
@click.option("--json", "as_json", is_flag=True, help="Print the reasons as JSON.")
def command(**options: Any) -> None:
    """Say why each step of a run would be computed: what differs from what is in the cache.

    Takes the options of `cachedeval run`. Loads no model and connects to nothing.
    """
    from cachedeval.engine.reasons import reasons_of  # noqa: PLC0415  not for --help

    with evaluator_of(options) as evaluator:
        reasons = reasons_of(
            evaluator.explain(
                options["adapters"] or [None], options["data"], options["num_questions"]
            )
        )
    if options["as_json"]:
        told = {"reasons": list(map(_as_json, reasons))}
        click.echo(json.dumps(told, indent=2, allow_nan=False))
    elif not reasons:
        click.echo("everything is in the cache")
    else:
        click.echo("\n".join(map(str, reasons)))


def _as_json(reason: "Reason") -> dict[str, Any]:
    return {
        **reason._asdict(),
        "changed": [field._asdict() for field in reason.changed],
        "because": list(map(_as_json, reason.because)),
    }
