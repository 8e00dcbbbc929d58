"""Outcomes: what became of a call."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import msgspec

from cachedeval.engine.call import Call
from cachedeval.engine.errors import EncodingError
from cachedeval.engine.recipe import key_of
from cachedeval.engine.record import Record

__all__ = ["MODES", "CacheMode", "OnOutcome", "Outcome", "State", "Unreadable"]

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
