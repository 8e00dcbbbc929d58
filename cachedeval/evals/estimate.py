"""What an evaluation would cost: the engine's plan, with the judge's tokens in money."""

from typing import Any

from cachedeval.engine.plan import NodePlan, Plan
from cachedeval.evals.judging.money import usd
from cachedeval.evals.judging.nodes import judge_call
from cachedeval.evals.judging.pricing import load_prices
from cachedeval.evals.steps import PARSING, step_of

__all__ = ["Estimate", "estimate"]


class Estimate:
    """A plan's figures as plain data.

    Attributes:
        steps: by the step's name: `calls`, `hits`, `computed`, `unknown`, `seconds` (None without
            experience), `cost` by unit, and `basis`, the number of stored results that the
            estimate is the mean of.
        usd: what the judge's tokens cost at list price; None where that is not known.
    """

    def __init__(self, steps: dict[str, dict[str, Any]], dollars: float | None) -> None:
        self.steps = steps
        self.usd = dollars

    @property
    def todo(self) -> int:
        """How many calls would be computed, at the most."""
        return sum(step["computed"] + step["unknown"] for step in self.steps.values())

    @property
    def seconds(self) -> float:
        """The steps' times summed, of those that there is experience with."""
        return float(sum(step["seconds"] or 0.0 for step in self.steps.values()))


def estimate(plan: Plan, judge: str, limits: str | None = None) -> Estimate:
    """Put a plan in figures.

    Args:
        plan: as `AdapterEvaluator.plan` returns it.
        judge: as it is named: `cerebras:MODEL`.
        limits: the file of the judge's settings, whose prices count before the built-in ones.

    Raises:
        InputError: the settings cannot be used.
    """
    own = None
    if limits is not None:
        from cachedeval.evals.judging.settings import load_settings  # noqa: PLC0415  slow to import

        own = load_settings(limits).prices
    judging = plan.get(judge_call.name)
    steps = {step_of(name): _figures(node) for name, node in plan.items() if name != PARSING}
    if (parsing := plan.get(PARSING)) is not None:
        _add_parsing(steps[step_of(PARSING)], parsing)
    return Estimate(steps, None if judging is None else usd(judge, judging.cost, load_prices(own)))


def _figures(node: NodePlan) -> dict[str, Any]:
    names = ("calls", "hits", "computed", "unknown", "seconds", "cost", "basis")
    return {name: getattr(node, name) for name in names}


def _add_parsing(step: dict[str, Any], parsing: NodePlan) -> None:
    """Count a verdict as stored only where both the judge's reply and its reading are."""
    todo = step["computed"] + step["unknown"]
    step["hits"] = min(step["hits"], parsing.hits)
    step["computed"] = max(step["computed"], parsing.computed)
    step["unknown"] = max(step["unknown"], parsing.unknown - step["computed"], 0)
    if step["seconds"] is not None or not todo:
        step["seconds"] = (step["seconds"] or 0.0) + (parsing.seconds or 0.0)
    step["basis"] = step["basis"] or parsing.basis
