"""Outcomes: what became of a call."""

from typing import Any, Literal

from cachedeval.engine.call import Call
from cachedeval.engine.errors import EncodingError
from cachedeval.engine.record import Record

__all__ = ["Outcome", "State", "hit_of"]

State = Literal["hit", "computed", "failed"]


class Outcome:
    """What became of a call.

    Attributes:
        call: the call.
        state: whether it was answered from the cache, computed, or failed.
        record: the result with its cost and provenance; None where it failed.
        error: why it failed; None where it did not.
    """

    __slots__ = ("_value", "call", "error", "record", "state")

    def __init__(
        self,
        call: Call[Any],
        state: State,
        record: Record | None = None,
        error: BaseException | None = None,
    ) -> None:
        self.call = call
        self.state: State = state
        self.record = record
        self.error = error
        self._value: Any = _UNREAD

    @property
    def value(self) -> Any:
        """The output, read when it is first asked for.

        Raises:
            BaseException: the step's own error, where it failed.
        """
        return self.read() if self._value is _UNREAD else self._value

    def read(self) -> Any:
        """Read the output anew.

        Raises:
            BaseException: as `value`; `EncodingError` where the record does not hold what the
                node returns.
        """
        if self.record is None:
            raise self.error or RuntimeError("a call has neither a result nor an error")
        self._value = self.call.node.codec.load(self.record.payload)
        return self._value

    def copy(self) -> Any:
        """Return the output for one more step, which may change it without harm to any other.

        Raises:
            BaseException: as `value`.
        """
        value = self.value
        if type(value) in _UNCHANGING or self.record is None:
            return value
        return self.call.node.codec.load(self.record.payload)

    @property
    def digest(self) -> str:
        """The digest of the output."""
        if self.record is None:
            raise self.error or RuntimeError("a call has neither a result nor an error")
        return self.record.digest


_UNREAD: Any = object()
_UNCHANGING = {str, bytes, int, float, bool, type(None)}


def hit_of(call: Call[Any], recipe: bytes, record: Record | None) -> Outcome | None:
    """Return the outcome of a call that a record answers, or None if it does not.

    It does not where it is another recipe's (two recipes of one key), or where its value cannot be
    read as what the node returns now.
    """
    if record is None or record.recipe != recipe:
        return None
    outcome = Outcome(call, "hit", record)
    try:
        outcome.read()
    except EncodingError:
        return None
    return outcome
