"""Reading everything that a cache holds, to find what is damaged."""

from typing import NamedTuple

from cachedeval.engine.backend import Entry
from cachedeval.engine.errors import BackendError, EncodingError
from cachedeval.engine.recipe import key_of, read_recipe
from cachedeval.engine.record import Damaged, Record
from cachedeval.engine.store import Store
from cachedeval.engine.values import payload_digest

__all__ = ["Fault", "Verification", "verify"]

_AT_ONCE = 1000


class Fault(NamedTuple):
    """A value that is not served."""

    key: bytes
    size: int
    """Bytes, as the backend counts them."""
    why: str


class Verification(NamedTuple):
    """What was found. Neither a damaged nor a foreign value is ever served: both are misses."""

    good: int
    good_bytes: int
    damaged: list[Fault]
    foreign: list[Fault]
    """Whole, as far as can be told, but written in another format: by another version."""
    deleted: bool
    """Whether the damaged ones were deleted."""

    @property
    def sound(self) -> bool:
        """Whether nothing damaged is left."""
        return self.deleted or not self.damaged


def verify(store: Store, *, delete: bool = False) -> Verification:
    """Read every value and check all that can be checked without computing it again.

    That is the seal, the recipe, that it stands under its recipe's key, and the output's digest.
    A run checks the same at each hit, but only of what it uses.

    Args:
        store: what to check; counts no hits.
        delete: delete what is damaged. What is foreign stays: another version may be using it.

    Raises:
        BackendError: the backend cannot be read, or not be written where that is wanted.
    """
    good = good_bytes = 0
    damaged: list[Fault] = []
    foreign: list[Fault] = []
    for entry, record in store.records():
        damage = _damage(entry, record)
        if damage is None:
            good += 1
            good_bytes += entry.size
            continue
        faults = foreign if str(damage) == "of another format" else damaged
        faults.append(Fault(entry.key, entry.size, str(damage)))
    damaged = _still_there(store, damaged)
    if delete:
        _delete(store, damaged)
    return Verification(good, good_bytes, damaged, foreign, delete)


def _damage(entry: Entry, record: Record | Damaged) -> Damaged | None:
    if isinstance(record, Damaged):
        return record
    try:
        recipe = read_recipe(record.recipe)
    except EncodingError as error:
        return Damaged(f"its recipe cannot be read: {error}")
    if key_of(record.recipe) != entry.key:
        return Damaged("it stands under another record's key")
    own = recipe.node.startswith("(")  # the engine's own records have no output
    if not own and payload_digest(record.payload) != record.digest:
        return Damaged("its output has another digest than it says")
    return None


def _still_there(store: Store, faults: list[Fault]) -> list[Fault]:
    """Leave out what was deleted while we read: a prune may run beside us."""
    if not faults:
        return faults
    try:
        held = {entry.key for entry in store.backend.scan()}
    except Exception as error:
        raise BackendError(f"the cache cannot be read: {error}") from error
    return [fault for fault in faults if fault.key in held]


def _delete(store: Store, faults: list[Fault]) -> None:
    try:
        for start in range(0, len(faults), _AT_ONCE):
            store.backend.delete_many([fault.key for fault in faults[start : start + _AT_ONCE]])
    except Exception as error:
        raise BackendError(f"damaged records cannot be deleted: {error}") from error
