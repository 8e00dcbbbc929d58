"""What a run did, counted by node."""

import threading
from collections.abc import Iterable, Sequence

from cachedeval.engine.outcome import Outcome, State
from cachedeval.engine.record import Record

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

    def note(self, outcomes: Iterable[Outcome]) -> None:
        """Count outcomes."""
        alike: dict[tuple[str, State], list[Record]] = {}
        with self._lock:
            for outcome in outcomes:
                name, record = outcome.call.node.name, outcome.record
                if record is None:
                    self._of(name).failed += 1
                else:
                    alike.setdefault((name, outcome.state), []).append(record)
            for (name, state), records in alike.items():
                self._add(self._of(name), state, records)

    def _of(self, name: str) -> NodeStats:
        node = self.get(name)
        if node is None:
            node = self[name] = NodeStats()
        return node

    def _add(self, node: NodeStats, state: State, records: Sequence[Record]) -> None:
        seconds = sum([record.seconds for record in records])
        if state == "computed":
            node.computed += len(records)
            node.seconds += seconds
            spent = node.cost
        else:
            node.hits += len(records)
            spent = node.saved
            spent["seconds"] = spent.get("seconds", 0.0) + seconds
        for record in records:
            if record.cost:
                for unit, amount in record.cost.items():
                    spent[unit] = spent.get(unit, 0.0) + amount
