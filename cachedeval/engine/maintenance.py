"""Pruning: what goes when a cache is too old or too large."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from cachedeval.engine.backend import Backend, Entry
from cachedeval.engine.encoding import Identified
from cachedeval.engine.errors import BackendError, EncodingError, InputError
from cachedeval.engine.keys import identity_recipe, key_of, node_of, read_recipe
from cachedeval.engine.record import Damaged, Record
from cachedeval.engine.store import Store
from cachedeval.engine.values import Codec, payload_digest

__all__ = [
    "Contents",
    "Fault",
    "Line",
    "NodeContents",
    "OnRecord",
    "PruneReport",
    "Verification",
    "choose",
    "contents_of",
    "disk_folder",
    "identity_of",
    "inputs_of",
    "lines_of",
    "prune",
    "summary",
    "value_of",
    "verify",
]


_AT_ONCE = 1000


class PruneReport(NamedTuple):
    """What a prune deleted, or would delete."""

    deleted: int
    freed: int
    """Bytes, as the backend counts them."""
    kept: int
    kept_bytes: int
    dry_run: bool


def choose(
    entries: Iterable[Entry], *, now: float, older_than: float | None, max_bytes: int | None
) -> tuple[list[Entry], list[Entry]]:
    """Return the entries that go and those that stay.

    First goes what was last used more than `older_than` seconds before `now`, then, while the rest
    takes more than `max_bytes`, what was used least recently. An entry from the future (a clock
    that was set back) counts as used now.
    """
    by_use = sorted(entries, key=lambda entry: (min(entry.used, now), entry.created, entry.key))
    total = sum(entry.size for entry in by_use)
    cut = 0
    for entry in by_use:
        too_old = older_than is not None and now - entry.used > older_than
        too_much = max_bytes is not None and total > max_bytes
        if not too_old and not too_much:
            break
        cut += 1
        total -= entry.size
    return by_use[:cut], by_use[cut:]


def prune(
    backend: Backend,
    *,
    older_than: timedelta | None,
    max_bytes: int | None,
    dry_run: bool,
) -> PruneReport:
    """Delete what is too old and what is too much.

    Raises:
        InputError: neither bound is given, or one is negative.
        BackendError: the backend cannot be read or written.
    """
    if older_than is None and max_bytes is None:
        raise InputError("prune: give an age (older_than), a size (max_bytes), or both")
    if older_than is not None and older_than < timedelta(0):
        raise InputError(f"prune: older_than is {older_than}; it cannot be negative")
    if max_bytes is not None and max_bytes < 0:
        raise InputError(f"prune: max_bytes is {max_bytes}; it cannot be negative")
    seconds = None if older_than is None else older_than.total_seconds()
    try:
        entries = list(backend.scan())
        gone, kept = choose(entries, now=time.time(), older_than=seconds, max_bytes=max_bytes)
        if not dry_run:
            # In parts, so that a run that writes meanwhile need not wait for the whole.
            for start in range(0, len(gone), _AT_ONCE):
                backend.delete_many([entry.key for entry in gone[start : start + _AT_ONCE]])
    except Exception as error:
        raise BackendError(f"the cache cannot be pruned: {error}") from error
    return PruneReport(
        deleted=len(gone),
        freed=sum(entry.size for entry in gone),
        kept=len(kept),
        kept_bytes=sum(entry.size for entry in kept),
        dry_run=dry_run,
    )


# Reading everything that a cache holds, to find what is damaged.


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


# What a cache holds: its records by step, and what their hits have saved.


FILES, IDENTITIES, DAMAGED = "files", "identities", "(damaged)"
"""What the records that belong to no step are listed as."""

_OWN = {"(file)": FILES, "(identity)": IDENTITIES}
_LAST = (FILES, IDENTITIES, DAMAGED)
_ANY = Codec()

OnRecord = Callable[[Entry, str, Record], None]
"""Called with each good record, its entry and the name that it is listed under."""


class NodeContents:
    """What is held of one step."""

    __slots__ = ("bytes", "hits", "records", "saved")

    def __init__(self) -> None:
        self.records = 0
        self.bytes = 0
        self.hits = 0
        self.saved: dict[str, float] = {}
        """What the hits would have cost: `seconds`, and the step's own units."""

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as plain data."""
        return {name: getattr(self, name) for name in ("records", "bytes", "hits", "saved")}


class Contents:
    """What is held in all, and of each step by its name."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeContents] = {}
        self.records = 0
        """Those that can be read."""
        self.bytes = 0
        self.damaged = 0
        self.damaged_bytes = 0

    @property
    def hits(self) -> int:
        """How often a record was used."""
        return sum(node.hits for node in self.nodes.values())

    @property
    def saved(self) -> dict[str, float]:
        """What all hits would have cost."""
        total: dict[str, float] = {}
        for node in self.nodes.values():
            for unit, amount in node.saved.items():
                total[unit] = total.get(unit, 0.0) + amount
        return total


class Line(NamedTuple):
    """One record in a listing."""

    key: bytes
    node: str
    size: int
    """Bytes, as the backend counts them."""
    created: float
    """Seconds since the epoch."""
    used: float | None
    """When it was last used; None if it never was."""
    hits: int
    summary: str


def disk_folder(url: str) -> Path | None:
    """Return the folder that a cache `disk:PATH` is in or will be in; None for any other cache.

    So that what looks at a cache can say that there is none yet. Nothing is created.
    """
    scheme, _, rest = url.partition(":")
    return Path(rest).expanduser().resolve() if scheme == "disk" and rest else None


def contents_of(store: Store, on_record: OnRecord | None = None) -> Contents:
    """Read every record and count.

    Raises:
        BackendError: the backend cannot be read.
    """
    found = Contents()
    for entry, name, record in _named(store):
        if not isinstance(record, Record):
            found.damaged += 1
            found.damaged_bytes += entry.size
            continue
        found.records += 1
        found.bytes += entry.size
        node = found.nodes.setdefault(name, NodeContents())
        node.records += 1
        node.bytes += entry.size
        node.hits += entry.hits
        for unit, amount in (("seconds", record.seconds), *record.cost.items()):
            total = node.saved.get(unit, 0.0) + entry.hits * amount
            if entry.hits and amount and math.isfinite(total):  # whoever made it may tell anything
                node.saved[unit] = total
        if on_record is not None:
            on_record(entry, name, record)
    return found


def lines_of(
    store: Store,
    node: str | None = None,
    summarise: Callable[[str, Record], str] | None = None,
) -> list[Line]:
    """Return a line for each record, by step, the newest of a step first.

    Args:
        store: what to list.
        node: of this step alone.
        summarise: tells a record in one line, given its step's name; `summary` if None.

    Raises:
        BackendError: the backend cannot be read.
    """
    tell = summarise or summary
    lines = []
    for entry, name, record in _named(store):
        if node is None or name == node:
            told = tell(name, record) if isinstance(record, Record) else str(record)
            used = entry.used if entry.hits else None
            lines.append(Line(entry.key, name, entry.size, entry.created, used, entry.hits, told))
    lines.sort(key=lambda line: (line.node in _LAST, line.node, -line.created, line.key))
    return lines


def summary(node: str, record: Record) -> str:
    """Return in one line what a record holds."""
    if node == FILES:
        return record.payload.rpartition(b" ")[2].decode("ascii", "replace")
    if node == IDENTITIES:
        inputs = inputs_of(record)
        return f"{inputs.get('label')} {inputs.get('digest')}"
    try:
        value = value_of(record)
        return value if isinstance(value, str) else repr(value)
    except (EncodingError, RecursionError) as error:
        return f"cannot be read: {error}"


def value_of(record: Record) -> Any:
    """Return the output that a record holds as plain data, without its declared type.

    Raises:
        EncodingError: it cannot be read.
    """
    return _ANY.load(record.payload)


def inputs_of(record: Record) -> dict[str, Any]:
    """Return the inputs that a record's recipe names; none where it cannot be read."""
    try:
        return read_recipe(record.recipe).inputs
    except EncodingError:
        return {}


def identity_of(store: Store, identified: Identified) -> Any:
    """Return what stands behind an identity's digest in a recipe; None where it is not known."""
    recipe = identity_recipe(identified)
    record = store.peek_many({key_of(recipe): recipe}).get(key_of(recipe))
    try:
        return None if record is None else value_of(record)
    except EncodingError:
        return None


def _named(store: Store) -> Iterator[tuple[Entry, str, Record | Damaged]]:
    for entry, record in store.records():
        if isinstance(record, Damaged):
            yield entry, DAMAGED, record
            continue
        try:
            name = node_of(record.recipe)
            yield entry, _OWN.get(name, name), record
        except EncodingError as error:
            yield entry, DAMAGED, Damaged(f"its recipe cannot be read: {error}")
