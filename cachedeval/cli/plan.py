"""`cachedeval plan`: what a run would compute, and an estimate of its cost."""

from typing import TYPE_CHECKING

from cachedeval.cli.format import plural, show, show_cost, show_json, show_seconds, table
from cachedeval.cli.options import (
    Namespace,
    Parser,
    add_cache,
    add_config,
    add_evaluation,
    add_json,
    evaluator_of,
)

if TYPE_CHECKING:
    from cachedeval.evals.run_stats import Estimate

__all__ = ["declare", "execute"]


def declare(parser: Parser) -> None:
    """Add the options."""
    add_config(parser)
    add_evaluation(parser)
    add_cache(parser)
    add_json(parser, "the plan")


def execute(options: Namespace) -> None:
    """Show what a run would compute, and estimate its time and cost.

    Takes the options of `cachedeval run`. Loads no model and opens no connection.
    """
    from cachedeval.evals.run_stats import estimate

    with evaluator_of(options) as evaluator:
        plan = evaluator.plan(options.adapters or [None], options.data, options.num_questions)
    found = estimate(plan, evaluator.paid_judge, options.limits)
    if options.json:
        show_json({"steps": found.steps, "seconds": found.seconds, "usd": found.usd})
    else:
        show(_show_estimate(found))


def _show_estimate(found: "Estimate") -> str:
    rows = []
    unknown_time = False
    for name, step in found.steps.items():
        todo = step["computed"] + step["unknown"]
        time, basis = "—", ""
        if todo and step["seconds"] is None:
            time, unknown_time = "?", True
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
        "total time",
        "cost",
        "estimated from",
    ]
    lines = [table(head, rows)]
    if not found.todo:
        lines.append("everything is in the cache: nothing would be computed")
    elif any(step["unknown"] for step in found.steps.values()):
        lines.append("maybe: computed unless the answer it depends on turns out to be a known one")
    if unknown_time:
        lines.append("?: the cache has no result of this step to estimate its time from")
    if found.usd is not None:
        lines.append(f"the judge's tokens at list price: {show_cost({'usd': found.usd})}")
    return "\n".join(lines)
