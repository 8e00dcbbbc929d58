"""What an evaluation would cost: the engine's plan, with the judge's tokens in money."""

from typing import Any

from cachedeval.engine.plan import Plan
from cachedeval.evals.judging.money import usd
from cachedeval.evals.judging.nodes import judge_call
from cachedeval.evals.judging.pricing import load_prices

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
    return Estimate(
        {
            name: {
                "calls": step.calls,
                "hits": step.hits,
                "computed": step.computed,
                "unknown": step.unknown,
                "seconds": step.seconds,
                "cost": step.cost,
                "basis": step.basis,
            }
            for name, step in plan.items()
        },
        None if judging is None else usd(judge, judging.cost, load_prices(own)),
    )
