"""What a step may return in place of a bare value."""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

__all__ = ["Computed"]

R = TypeVar("R")


class Computed(Generic[R]):
    """What a step may return in place of a bare value, to tell more than the value.

    Args:
        value: the output.
        cost: what it cost, in the node's own units.
        provenance: what is worth knowing and is no part of the output; plain data.
    """

    __slots__ = ("cost", "provenance", "value")

    def __init__(
        self,
        value: R,
        *,
        cost: Mapping[str, float] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.value = value
        self.cost = {unit: float(amount) for unit, amount in (cost or {}).items()}
        self.provenance = dict(provenance or {})
