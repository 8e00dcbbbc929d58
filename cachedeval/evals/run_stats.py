"""Statistics of a run: its progress, what it did, and before it what it would cost."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

from cachedeval.engine.node import Call
from cachedeval.engine.resolve import graph_of
from cachedeval.engine.result import NodeStats, Outcome, Stats
from cachedeval.evals.generation import decode, render
from cachedeval.evals.judging.judge import Judge
from cachedeval.evals.judging.money import TOKENS, usd
from cachedeval.evals.judging.nodes import judge_call
from cachedeval.evals.judging.pricing import load_prices
from cachedeval.evals.judging.rubric_judges import RemoteJudge
from cachedeval.evals.models import ModelResource
from cachedeval.evals.steps import PARSING, UNCOUNTED, step_of

if TYPE_CHECKING:
    from cachedeval.engine.plan import NodePlan, Plan
    from cachedeval.engine.result import OnOutcome

__all__ = ["Estimate", "OnProgress", "Progress", "RunStats", "estimate"]

OnProgress = Callable[[str, int, int], None]
"""Called with a step's name, how many of its calls are done, and how many there are."""


class Progress:
    """Counts outcomes by step and reports each; may be called from any thread."""

    def __init__(self, calls: Iterable[Call[Any]], report: OnProgress) -> None:
        self._totals = Counter(
            step_of(call.node.name)
            for level in graph_of(calls)
            for call in level
            if call.node.name not in UNCOUNTED
        )
        self._done: Counter[str] = Counter()
        self._report = report
        self._lock = threading.Lock()

    def __call__(self, outcome: Outcome) -> None:
        """Count one outcome."""
        if outcome.call.node.name in UNCOUNTED:
            return
        name = step_of(outcome.call.node.name)
        with self._lock:
            self._done[name] += 1
            done = self._done[name]
        # Hits come by the thousand, at once; only what takes time is worth showing.
        if outcome.state != "hit" or done == self._totals[name]:
            self._report(name, done, self._totals[name])


class RunStats:
    """Counts what happens in one evaluation; may be called from any thread.

    Args:
        models: the models on this machine, whose loads count.
        judges: whose steps count as judging.

    Attributes:
        on_outcome: called with each outcome after it is counted; None calls nothing.
    """

    def __init__(self, models: Collection[ModelResource], judges: Sequence[Judge]) -> None:
        self._start = time.perf_counter()
        self._stats = Stats()
        self._models = models
        self._judges = judges
        self._by_model: dict[str, Stats] = {}
        """What each judge over HTTP did, where there are several."""
        self._before = {
            judge.name: copy(judge.usage) for judge in judges if isinstance(judge, RemoteJudge)
        }
        self.on_outcome: OnOutcome | None = None
        self._loads = self._count_loads()
        self._near_ties = Counter[str]()
        self._alone = Counter[str]()

    def __call__(self, outcome: Outcome) -> None:
        """Count one outcome."""
        self._stats.note((outcome,))
        if len(self._judges) > 1 and outcome.call.node is judge_call:
            identity = outcome.call.inputs["judge"].identity
            name = f"{identity['provider']}:{identity['model']}"
            self._by_model.setdefault(name, Stats()).note((outcome,))
        if outcome.state == "computed" and outcome.record is not None:
            for name in ("near_ties", "changed"):
                self._near_ties[name] += outcome.record.provenance.get(name, 0)
            if reason := outcome.record.provenance.get("alone"):
                self._alone[reason] += 1
        if self.on_outcome is not None:
            self.on_outcome(outcome)

    def as_dict(self) -> dict[str, Any]:
        """Return the `run` part of a report: what varies from run to run."""
        answers = self._stats.get(decode.name, NodeStats())
        judged = NodeStats()
        for name in {judge.node.name for judge in self._judges}:
            _add(judged, self._stats.get(name, NodeStats()))
        return {
            "seconds": round(time.perf_counter() - self._start, 3),
            "loads": self._count_loads() - self._loads,
            "nodes": {"generation": answers.as_dict(), "judge": judged.as_dict()},
            "judge_spent": self._money(lambda stats: stats.cost, rejected=True),
            "judge_rejected": {
                "replies": sum(
                    judge.usage.rejected - self._before[judge.name].rejected
                    for judge in self._judges
                    if isinstance(judge, RemoteJudge)
                ),
                **self._money(lambda _: {}, rejected=True),
            },
            "judge_saved": self._money(lambda stats: stats.saved),
            "one_by_one": {
                "answers": self._alone.total(),
                "reason": next(iter(self._alone), None),
            },
            "near_ties": {
                "met": self._near_ties["near_ties"],
                "changed": self._near_ties["changed"],
            },
        }

    def _rejected(self, judge: Judge) -> dict[str, int]:
        """Return the tokens of replies of no use, which are in no record."""
        if not isinstance(judge, RemoteJudge):
            return dict.fromkeys(TOKENS, 0)
        usage, before = judge.usage, self._before[judge.name]
        names = [f"rejected_{name}" for name in TOKENS]
        lost = [getattr(usage, name) - getattr(before, name) for name in names]
        return dict(zip(TOKENS, lost, strict=True))

    def _money(
        self, of: Callable[[NodeStats], Mapping[str, float]], *, rejected: bool = False
    ) -> dict[str, float | None]:
        """Return tokens, and what they cost at list price; None where a price is not known."""
        tokens = dict.fromkeys(TOKENS, 0)
        dollars: list[float | None] = []
        for judge in self._judges:
            counted = (
                self._by_model.get(judge.name, Stats()) if len(self._judges) > 1 else self._stats
            )
            stats = counted.get(judge.node.name, NodeStats())
            more = self._rejected(judge) if rejected else {}
            used = {name: int(of(stats).get(name, 0)) + more.get(name, 0) for name in TOKENS}
            for name in TOKENS:
                tokens[name] += used[name]
            if judge.prices and (any(used.values()) or len(self._judges) == 1):
                dollars.append(usd(judge.name, used, judge.prices))
        known = [each for each in dollars if each is not None]
        return {**tokens, "usd": sum(known) if dollars and len(known) == len(dollars) else None}

    def _count_loads(self) -> int:
        return sum(model.loads for model in self._models)


def _add(total: NodeStats, more: NodeStats) -> None:
    total.hits += more.hits
    total.computed += more.computed
    total.failed += more.failed


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


def estimate(plan: "Plan", judge: str, limits: str | None = None) -> Estimate:
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
        # Slow to import, and only a user's own file needs it.
        from cachedeval.evals.judging.settings import load_settings

        own = load_settings(limits).prices
    judging = plan.get(judge_call.name)
    figures = {name: _figures(node) for name, node in plan.items() if name not in UNCOUNTED}
    if (rendering := plan.get(render.name)) is not None:
        # What is not rendered yet is as good as not decoded: only a new version of a tokenizer's
        # library renders the same tokens again.
        answers = figures[decode.name]
        decoded = min(answers["unknown"], rendering.computed)
        answers["unknown"] -= decoded
        answers["computed"] += decoded
    if (parsing := plan.get(PARSING)) is not None:
        _add_parsing(figures[judge_call.name], parsing)
    steps: dict[str, dict[str, Any]] = {}
    for name, step in figures.items():
        known = steps.get(step_of(name))
        steps[step_of(name)] = step if known is None else _together(known, step)
    return Estimate(steps, None if judging is None else usd(judge, judging.cost, load_prices(own)))


def _together(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of two nodes of one step: several judges."""
    known = all(
        each["seconds"] is not None or not each["computed"] + each["unknown"]
        for each in (one, other)
    )
    costs = Counter(one["cost"])
    costs.update(other["cost"])
    return {
        **{name: one[name] + other[name] for name in ("calls", "hits", "computed", "unknown")},
        "seconds": (one["seconds"] or 0.0) + (other["seconds"] or 0.0) if known else None,
        "cost": dict(costs),
        "basis": one["basis"] + other["basis"],
    }


def _figures(node: "NodePlan") -> dict[str, Any]:
    names = ("calls", "hits", "computed", "unknown", "seconds", "cost", "basis")
    return {name: getattr(node, name) for name in names}


def _add_parsing(step: dict[str, Any], parsing: "NodePlan") -> None:
    """Count a verdict as stored only where both the judge's reply and its reading are."""
    todo = step["computed"] + step["unknown"]
    step["hits"] = min(step["hits"], parsing.hits)
    step["computed"] = max(step["computed"], parsing.computed)
    step["unknown"] = max(step["unknown"], parsing.unknown - step["computed"], 0)
    if step["seconds"] is not None or not todo:
        step["seconds"] = (step["seconds"] or 0.0) + (parsing.seconds or 0.0)
    step["basis"] = step["basis"] or parsing.basis
