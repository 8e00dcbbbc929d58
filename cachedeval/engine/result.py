"""Results: the outcome of each call, and the counts of each node."""

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import msgspec

from cachedeval.engine.errors import EncodingError
from cachedeval.engine.keys import key_of
from cachedeval.engine.node import Call, describe
from cachedeval.engine.record import Record
from cachedeval.engine.show import show, show_text
from cachedeval.engine.values import payload_digest

__all__ = [
    "MODES",
    "CacheMode",
    "NodeStats",
    "OnOutcome",
    "Outcome",
    "State",
    "Stats",
    "Unreadable",
    "disowned",
    "found_outcome",
]


CacheMode = Literal["use", "refresh", "off", "offline"]
"""`use` reads and writes, `refresh` only writes, `off` does neither, `offline` only reads."""

MODES: tuple[CacheMode, ...] = ("use", "refresh", "off", "offline")

State = Literal["hit", "computed", "failed"]

_UNREAD: Any = object()

_WIDTH = 80
"""How many characters of a value or an error a `repr` shows."""

_SMALL = 10_000
"""Bytes of a value that a `repr` decodes."""

_UNCHANGING = {str, bytes, int, float, bool, type(None)}


# Outcomes.


class Unreadable(NamedTuple):
    """A valid record that its node cannot use: of another function, or not of its declared type.

    Attributes:
        key: the record's key.
        node: the node's name.
        why: the error.
    """

    key: bytes
    node: str
    why: str


class Outcome(msgspec.Struct, eq=False):
    """The result of a call: its output or its error.

    Attributes:
        call: the call.
        state: `hit`, `computed` or `failed`.
        record: the output with its cost and provenance; None if the call failed.
        error: why the call failed; None if it did not.

    Example:
        >>> from cachedeval import Engine, node
        >>> @node(version="1", name="inverse")
        ... def inverse(x: int) -> float:
        ...     return 1 / x
        >>> with Engine() as engine:
        ...     good, bad = engine.settle([inverse(4), inverse(0)])
        >>> good.state, good.value, good.digest[:7]
        ('computed', 0.25, 'sha256:')
        >>> bad.state, bad.error
        ('failed', ZeroDivisionError('division by zero'))
        >>> good
        <Outcome inverse(x=4): computed 0.25>
    """

    call: Call[Any]
    state: State
    record: Record | None = None
    error: BaseException | None = None
    _value: Any = _UNREAD

    def __repr__(self) -> str:
        if self.record is None:
            result = "without a result"
            if self.error is not None:
                result = f"{type(self.error).__name__}: {show_text(str(self.error), _WIDTH)}"
        elif len(self.record.payload) > _SMALL and self._value is _UNREAD:
            result = f"{len(self.record.payload):,} bytes"
        else:
            result = "a value that cannot be read"
            with suppress(Exception):  # reading it may run code of its declared type
                value = self._value if self._value is not _UNREAD else self.copy()
                result = show(value, _WIDTH)
        return f"<Outcome {describe(self.call)}: {self.state} {result}>"

    @property
    def value(self) -> Any:
        """The output, decoded at the first access.

        Raises:
            BaseException: the error of the step, if it failed.
        """
        if self._value is _UNREAD:
            if self.record is None:
                raise self.error or RuntimeError("a call has neither a result nor an error")
            self._value = self.call.node.codec.load(self.record.payload)
        return self._value

    def unreadable(self) -> Unreadable | None:
        """Return why the node cannot read the record's value; None if it can, or has no record."""
        if self.record is not None:
            try:
                _ = self.value
            except EncodingError as error:
                return Unreadable(key_of(self.record.recipe), self.call.node.name, str(error))
        return None

    def copy(self) -> Any:
        """Return a copy of the output that the caller may change.

        Raises:
            BaseException: the error of the step, if it failed.
        """
        if self.record is None or self._value is not _UNREAD:
            value = self.value
            if type(value) in _UNCHANGING or self.record is None:
                return value
        # Not stored in this outcome: a large graph would hold the values of all its steps.
        return self.call.node.codec.load(self.record.payload)

    @property
    def digest(self) -> str:
        """The digest of the output.

        Raises:
            BaseException: the error of the step, if it failed.
        """
        if self.record is None:
            raise self.error or RuntimeError("a call has neither a result nor an error")
        return self.record.digest


def disowned(call: Call[Any], key: bytes, record: Record) -> Unreadable | None:
    """Return why a record is of another function than a call's, which has the same name."""
    why = call.node.disowns(record)
    return None if why is None else Unreadable(key, call.node.name, why)


def found_outcome(call: Call[Any], record: Record) -> Outcome | None:
    """Return the outcome of a call whose recipe a record has; None if its output ends too early.

    Only nodes with a bound have outputs that can end too early; see `cachedeval.engine.node.Bound`.
    """
    bound = call.node.bound
    found = Outcome(call, "hit", record)
    if bound is None:
        return found
    try:
        whole = found.value
        value = bound.within(whole, call.inputs[bound.name])
    except EncodingError:
        return found  # a miss, whose reason is reported where values are read
    if value is whole:
        return found
    if value is None:
        return None
    payload = call.node.codec.dump(value)
    part = msgspec.structs.replace(record, payload=payload, digest=payload_digest(payload))
    return Outcome(call, "hit", part)


OnOutcome = Callable[[Outcome], None]
"""Called with each outcome as soon as it is known, from any thread."""


# Counts.


class NodeStats:
    """The counts of one node.

    Attributes:
        hits: how many calls were in the cache.
        computed: how many calls were computed.
        failed: how many calls failed.
        seconds: the time of the computed calls, summed over calls that may have run in parallel.
        cost: the cost of the computed calls, in the node's own units.
        saved: the cost that the hits saved, including `seconds`.

    Example:
        >>> from cachedeval import Engine, node
        >>> @node(version="1", name="double")
        ... def double(x: int) -> int:
        ...     return 2 * x
        >>> with Engine() as engine:
        ...     engine.run([double(1), double(2)])
        ...     engine.stats["double"].computed
        [2, 4]
        2
    """

    __slots__ = ("computed", "cost", "failed", "hits", "saved", "seconds")

    def __init__(self) -> None:
        self.hits = 0
        self.computed = 0
        self.failed = 0
        self.seconds = 0.0
        self.cost: dict[str, float] = {}
        self.saved: dict[str, float] = {}

    @property
    def calls(self) -> int:
        """The sum of `hits`, `computed` and `failed`."""
        return self.hits + self.computed + self.failed

    def as_dict(self) -> dict[str, int]:
        """Return `calls`, `hits`, `computed` and `failed`."""
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
    """The counts of each node, by the node's name; nodes without calls are absent.

    Thread safety: `note` may be called from any thread.

    Example:
        >>> from cachedeval import Engine, node
        >>> @node(version="1", name="double")
        ... def double(x: int) -> int:
        ...     return 2 * x
        >>> with Engine() as engine:
        ...     engine.run(double(1))
        ...     engine.run([double(1), double(2)])
        ...     engine.stats
        2
        [2, 4]
        {'double': 3 calls: 1 hits, 2 computed, 0 failed}
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def forget_parent(self) -> None:
        """Replace the lock in a forked child: a thread of the parent may hold it."""
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
