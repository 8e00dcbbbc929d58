"""What a run would compute, and about what it would cost."""

import math
from collections.abc import Mapping

from cachedeval.engine.errors import BackendError, EncodingError
from cachedeval.engine.keys import node_of
from cachedeval.engine.record import Record
from cachedeval.engine.resolve import Resolution
from cachedeval.engine.store import Store

__all__ = ["NodePlan", "Plan", "plan_of"]

_ENOUGH = 10
"""So many hits of this very run tell what its misses will cost; fewer do not."""


class NodePlan:
    """What a run would do with the calls of one node.

    Attributes:
        calls: how many distinct calls there are.
        hits: how many are in the cache.
        computed: how many are known to be missing.
        unknown: how many wait for an output that is missing, and are computed unless it turns out
            to be one that the cache has met before.
        failed: how many fail before they run, because they or what they wait for can have no key.
        seconds: the estimated time of `computed` and `unknown`, summed; None without experience.
        cost: the same of the node's own units.
        basis: of how many stored results the estimate is the mean.
    """

    __slots__ = ("basis", "calls", "computed", "cost", "failed", "hits", "seconds", "unknown")

    def __init__(self) -> None:
        self.calls = 0
        self.hits = 0
        self.computed = 0
        self.unknown = 0
        self.failed = 0
        self.seconds: float | None = None
        self.cost: dict[str, float] = {}
        self.basis = 0


Plan = Mapping[str, NodePlan]
"""A plan is told by node, by the node's name."""


def plan_of(known: Resolution, store: Store) -> dict[str, NodePlan]:
    """Return the plan of a graph, given what the cache knows of it."""
    plans: dict[str, NodePlan] = {}
    experience: dict[str, list[Record]] = {}
    for call, outcome in known.outcomes.items():
        plan = plans.setdefault(call.node.name, NodePlan())
        plan.calls += 1
        if outcome.record is None:
            plan.failed += 1
        else:
            plan.hits += 1
            experience.setdefault(call.node.name, []).append(outcome.record)
    failed = {call for call, outcome in known.outcomes.items() if outcome.record is None}
    missing: set[bytes] = set()
    for call in known.open:
        plan = plans.setdefault(call.node.name, NodePlan())
        plan.calls += 1
        keyed = known.keys.get(call)
        if any(each in failed for each in call.upstream):
            failed.add(call)
            plan.failed += 1
        elif keyed is None:
            plan.unknown += 1
        elif keyed[1] in missing:
            plan.hits += 1  # the same call twice is computed once
        else:
            missing.add(keyed[1])
            plan.computed += 1
    lacking = {
        name
        for name, plan in plans.items()
        if plan.computed + plan.unknown and len(experience.get(name, [])) < _ENOUGH
    }
    if lacking:
        experience |= _learn(lacking, store)
    for name, plan in plans.items():
        _estimate(plan, experience.get(name, []))
    return plans


def _learn(names: set[str], store: Store) -> dict[str, list[Record]]:
    """Return all records of some nodes."""
    found: dict[str, list[Record]] = {}
    try:
        for _, record in store.records():
            if isinstance(record, Record):
                try:
                    name = node_of(record.recipe)
                except EncodingError:
                    continue
                if name in names:
                    found.setdefault(name, []).append(record)
    except BackendError:
        return {}  # an estimate that cannot be had is left out
    return found


def _estimate(plan: NodePlan, records: list[Record]) -> None:
    todo = plan.computed + plan.unknown
    plan.basis = len(records)
    if not records or not todo:
        return
    seconds = todo * sum(record.seconds for record in records) / len(records)
    plan.seconds = seconds if math.isfinite(seconds) else None
    units = {unit for record in records for unit in record.cost}
    for unit in sorted(units):
        total = sum(record.cost.get(unit, 0.0) for record in records)
        if math.isfinite(total):  # whoever made a record may tell anything
            plan.cost[unit] = todo * total / len(records)
