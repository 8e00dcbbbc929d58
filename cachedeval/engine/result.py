"""Outcomes: what became of a call."""

import threading
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import msgspec

from cachedeval.engine.errors import EncodingError
from cachedeval.engine.keys import key_of
from cachedeval.engine.node import Call
from cachedeval.engine.record import Record

__all__ = [
    "MODES",
    "CacheMode",
    "NodeStats",
    "OnOutcome",
    "Outcome",
    "State",
    "Stats",
    "Unreadable",
]


CacheMode = Literal["use", "refresh", "off", "offline"]
"""`use` reads and writes, `refresh` only writes, `off` does neither, `offline` only reads."""

MODES: tuple[CacheMode, ...] = ("use", "refresh", "off", "offline")

State = Literal["hit", "computed", "failed"]


_UNREAD: Any = object()


class Unreadable(NamedTuple):
    """A whole record whose value is not what its node returns now."""

    key: bytes
    node: str
    """The node's name."""
    why: str


class Outcome(msgspec.Struct, eq=False):
    """What became of a call."""

    call: Call[Any]
    """The call."""
    state: State
    """Whether it was answered from the cache, computed, or failed."""
    record: Record | None = None
    """The result with its cost and provenance; None where it failed."""
    error: BaseException | None = None
    """Why it failed; None where it did not."""
    _value: Any = _UNREAD

    @property
    def value(self) -> Any:
        """The output, read when it is first asked for.

        Raises:
            BaseException: the step's own error, where it failed.
        """
        if self._value is _UNREAD:
            if self.record is None:
                raise self.error or RuntimeError("a call has neither a result nor an error")
            self._value = self.call.node.codec.load(self.record.payload)
        return self._value

    def unreadable(self) -> Unreadable | None:
        """Return why the record, if there is one, does not hold what the node returns now."""
        if self.record is not None:
            try:
                _ = self.value
            except EncodingError as error:
                return Unreadable(key_of(self.record.recipe), self.call.node.name, str(error))
        return None

    def copy(self) -> Any:
        """Return the output for one more step, which may change it without harm to any other.

        Raises:
            BaseException: as `value`.
        """
        if self.record is None or self._value is not _UNREAD:
            value = self.value
            if type(value) in _UNCHANGING or self.record is None:
                return value
        # Not kept: a graph of many steps would otherwise hold all their values.
        return self.call.node.codec.load(self.record.payload)

    @property
    def digest(self) -> str:
        """The digest of the output."""
        if self.record is None:
            raise self.error or RuntimeError("a call has neither a result nor an error")
        return self.record.digest


OnOutcome = Callable[[Outcome], None]
"""Called with each outcome as soon as it is known, from any thread."""

_UNCHANGING = {str, bytes, int, float, bool, type(None)}


# What a run did, counted by node.


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
