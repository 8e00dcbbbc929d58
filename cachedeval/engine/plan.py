"""Cache plans: what a run will compute, and an estimate of its cost."""

import math

from cachedeval.engine.errors import BackendError, EncodingError
from cachedeval.engine.keys import node_of
from cachedeval.engine.record import Record
from cachedeval.engine.resolve import Resolution
from cachedeval.engine.store import Store

__all__ = ["NodePlan", "Plan", "plan_of"]

_ENOUGH = 10
"""The estimate uses only the hits of this run if there are this many, else all records."""


class NodePlan:
    """What a run will do with the calls of one node.

    Attributes:
        calls: how many distinct calls there are.
        hits: how many are in the cache.
        computed: how many the run will compute.
        unknown: how many wait for the output of a call that the run will compute. They are
            computed, unless the cache has their result for that output.
        failed: how many will fail before they run, because they or an upstream call have no key.
        seconds: the estimated time of `computed` and `unknown`, summed; None without an estimate.
        cost: the estimated cost in the node's own units.
        basis: the number of stored results whose mean is the estimate.

    Example:
        >>> from cachedeval import Engine, node
        >>> @node(version="1", name="double")
        ... def double(x: int) -> int:
        ...     return 2 * x
        >>> with Engine() as engine:
        ...     engine.run(double(1))
        ...     plan = engine.plan([double(1), double(double(2))])["double"]
        2
        >>> plan
        <NodePlan: 3 calls, 1 hit, 1 to compute, 1 unknown; about ... s>
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

    def __repr__(self) -> str:
        return f"<NodePlan: {self}>"

    def __str__(self) -> str:
        hits = f"{self.hits} hit" if self.hits == 1 else f"{self.hits} hits"
        counts = [f"{self.calls} calls" if self.calls != 1 else "1 call", hits]
        counts += [f"{self.computed} to compute"]
        counts += [f"{self.unknown} unknown"] if self.unknown else []
        counts += [f"{self.failed} failed"] if self.failed else []
        costs = [] if self.seconds is None else [f"{self.seconds:.3g} s"]
        costs += [f"{amount:.4g} {unit}" for unit, amount in self.cost.items()]
        return ", ".join(counts) + (f"; about {', '.join(costs)}" if costs else "")


class Plan(dict[str, NodePlan]):
    """The plan of a run: that of each node, by the node's name.

    Example:
        >>> from cachedeval import Engine, node
        >>> @node(version="1", name="double")
        ... def double(x: int) -> int:
        ...     return 2 * x
        >>> with Engine() as engine:
        ...     print(engine.plan([double(1), double(double(2))]))
        double: 3 calls, 0 hits, 2 to compute, 1 unknown
    """

    def __str__(self) -> str:
        return "\n".join(f"{name}: {plan}" for name, plan in self.items())


def plan_of(known: Resolution, store: Store) -> Plan:
    """Return the plan of a graph.

    Args:
        known: the graph, with the outcomes that the cache provides.
        store: where records are read for estimates.
    """
    plans = Plan()
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
            plan.hits += 1  # equal calls are computed once
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
        return {}  # a plan needs no estimate
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
        if math.isfinite(total):  # a record may hold any cost
            plan.cost[unit] = todo * total / len(records)
