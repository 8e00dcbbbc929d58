"""`cachedeval plan`: what a run would compute, and about what that costs."""

import json
from typing import TYPE_CHECKING, Any

import click

from cachedeval.cli.figures import plural, show_cost, show_seconds
from cachedeval.cli.options import evaluation_options, evaluator_of
from cachedeval.cli.output import table

if TYPE_CHECKING:
    from cachedeval.evals.estimate import Estimate

__all__ = ["command"]


@click.command("plan")
@evaluation_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def command(**options: Any) -> None:
    """Say what a run would compute and about what that costs.

    Takes the options of `cachedeval run`. Loads no model and connects to nothing.
    """
    from cachedeval.evals.estimate import estimate  # noqa: PLC0415  not for --help

    with evaluator_of(options) as evaluator:
        plan = evaluator.plan(
            options["adapters"] or [None], options["data"], options["num_questions"]
        )
    found = estimate(plan, evaluator.judge_name, options["limits"])
    if options["as_json"]:
        told = {"steps": found.steps, "seconds": found.seconds, "usd": found.usd}
        click.echo(json.dumps(told, indent=2, allow_nan=False))
    else:
        click.echo(_shown(found))


def _shown(found: "Estimate") -> str:
    rows = []
    unfounded = False
    for name, step in found.steps.items():
        todo = step["computed"] + step["unknown"]
        time, basis = "—", ""
        if todo and step["seconds"] is None:
            time, unfounded = "?", True
        elif todo:
            time = show_seconds(step["seconds"])
            basis = f"the mean of {plural(step['basis'], 'result')}"
        counts = [step[count] for count in ("calls", "hits", "computed", "unknown")]
        rows.append([name, *counts, time, show_cost(step["cost"]), basis])
    head = [
        "step",
        "calls",
        "in cache",
        "to compute",
        "maybe",
        "time, summed",
        "cost",
        "estimated by",
    ]
    lines = [table(head, rows)]
    if not found.todo:
        lines.append("everything is in the cache: nothing would be computed")
    elif any(step["unknown"] for step in found.steps.values()):
        lines.append("maybe: computed unless the answer before it turns out to be a known one")
    if unfounded:
        lines.append("?: nothing of this step is in the cache yet to estimate its time by")
    if found.usd is not None:
        lines.append(f"the judge's tokens at list price: {show_cost({'usd': found.usd})}")
    return "\n".join(lines)
