"""What a run did, counted by node."""

import threading
from collections.abc import Iterable

from cachedeval.engine.outcome import Outcome

__all__ = ["NodeStats", "Stats"]


class NodeStats:
    """What was asked of one node: `calls` is the sum of `hits`, `computed` and `failed`."""

    __slots__ = ("computed", "cost", "failed", "hits", "saved", "seconds")

    def __init__(self) -> None:
        self.hits = 0
        self.computed = 0
        self.failed = 0
        self.seconds = 0.0
        """Time spent in computing, summed over calls that may have run side by side."""
        self.cost: dict[str, float] = {}
        """What was spent, in the node's own units."""
        self.saved: dict[str, float] = {}
        """What the hits would have cost, `seconds` among it."""

    @property
    def calls(self) -> int:
        """How many there were."""
        return self.hits + self.computed + self.failed

    def as_dict(self) -> dict[str, int]:
        """Return the four counts."""
        return {
            "calls": self.calls,
            "hits": self.hits,
            "computed": self.computed,
            "failed": self.failed,
        }

    def __repr__(self) -> str:
        return (
            f"{self.calls} calls: {self.hits} hits, {self.computed} computed, {self.failed} failed"
        )


class Stats(dict[str, NodeStats]):
    """The counts of each node, by its name. A node that was never called has none."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def forget_parent(self) -> None:
        """In a forked child: another thread may have held the lock."""
        self._lock = threading.Lock()

    def note(self, outcomes: Iterable[Outcome]) -> None:
        """Count outcomes."""
        with self._lock:
            for outcome in outcomes:
                name, record = outcome.call.node.name, outcome.record
                node = self.get(name)
                if node is None:
                    node = self[name] = NodeStats()
                if record is None:
                    node.failed += 1
                    continue
                if outcome.state == "computed":
                    node.computed += 1
                    node.seconds += record.seconds
                    spent = node.cost
                else:
                    node.hits += 1
                    spent = node.saved
                    spent["seconds"] = spent.get("seconds", 0.0) + record.seconds
                if record.cost:
                    for unit, amount in record.cost.items():
                        spent[unit] = spent.get(unit, 0.0) + amount
