"""Watching a run: its progress, and what it did in the end."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cachedeval.engine.node import Call
from cachedeval.engine.outcome import Outcome
from cachedeval.engine.resolve import graph_of
from cachedeval.engine.stats import NodeStats, Stats
from cachedeval.evals.generation import generation
from cachedeval.evals.judges import Judge
from cachedeval.evals.subject import LocalModel

__all__ = ["OnProgress", "Progress", "Watch"]

OnProgress = Callable[[str, int, int], None]
"""Called with a step's name, how many of its calls are done, and how many there are."""


class Progress:
    """Counts outcomes by step and tells each; may be called from any thread."""

    def __init__(self, calls: Iterable[Call[Any]], tell: OnProgress) -> None:
        self._totals = Counter(call.node.name for level in graph_of(calls) for call in level)
        self._done: Counter[str] = Counter()
        self._tell = tell
        self._lock = threading.Lock()

    def __call__(self, outcome: Outcome) -> None:
        """Count one outcome."""
        name = outcome.call.node.name
        with self._lock:
            self._done[name] += 1
            done = self._done[name]
        # Hits come by the thousand, at once; only what takes time is worth showing.
        if outcome.state != "hit" or done == self._totals[name]:
            self._tell(name, done, self._totals[name])


class Watch:
    """Tells what happened between its making and `run`."""

    def __init__(self, stats: Stats, models: Iterable[LocalModel], judge: Judge) -> None:
        self._start = time.perf_counter()
        self._stats = stats
        self._models = models
        self._judge = judge
        self._before = {name: _copy(node) for name, node in stats.items()}
        self._loads = self._count_loads()

    def run(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """Return the `run` part of a report: what varies from run to run."""
        nodes = {}
        for step, name in (("generation", generation.name), ("judge", self._judge.node.name)):
            now, then = self._stats.get(name, NodeStats()), self._before.get(name, NodeStats())
            nodes[step] = {k: v - then.as_dict()[k] for k, v in now.as_dict().items()}
        ties = [o.record.provenance for o in outcomes if o.record and o.state == "computed"]
        return {
            "seconds": round(time.perf_counter() - self._start, 3),
            "loads": self._count_loads() - self._loads,
            "nodes": nodes,
            "near_ties": sum(t.get("near_ties", 0) for t in ties),
            "near_ties_changed": sum(t.get("changed", 0) for t in ties),
        }

    def _count_loads(self) -> int:
        return sum(model.loads for model in self._models)


def _copy(node: NodeStats) -> NodeStats:
    copy = NodeStats()
    copy.calls, copy.hits, copy.computed, copy.failed = (
        node.calls,
        node.hits,
        node.computed,
        node.failed,
    )
    return copy
