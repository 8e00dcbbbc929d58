"""Maintenance of a cache: pruning old records, verifying all records, and listing them.

- `prune` deletes records by age and by the size of the cache.
- `verify` reads every record and reports, or deletes, the corrupt ones.
- `contents_of` and `lines_of` count and list the records of each node.
"""

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
from cachedeval.engine.record import CorruptRecord, Record
from cachedeval.engine.store import Store
from cachedeval.engine.values import payload_digest, plain_data

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


FILES, IDENTITIES, CORRUPT = "files", "identities", "(corrupt)"
"""The names under which records that belong to no node are listed."""

_OWN = {"(file)": FILES, "(identity)": IDENTITIES}
_LAST = (FILES, IDENTITIES, CORRUPT)

_AT_ONCE = 1000
"""How many records are deleted together, so that a run that writes meanwhile need not wait long."""


OnRecord = Callable[[Entry, str, Record], None]
"""Called with each valid record: its entry, the name under which it is listed, and the record."""


# Pruning.


class PruneReport(NamedTuple):
    """The records that a prune deleted, or would delete.

    Attributes:
        deleted: how many records were deleted.
        freed: their size in bytes, as the backend counts it.
        kept: how many records are left.
        kept_bytes: their size in bytes.
        dry_run: whether nothing was deleted in fact.

    Example:
        >>> from cachedeval import Engine, node
        >>> @node(version="1", name="double")
        ... def double(x: int) -> int:
        ...     return 2 * x
        >>> with Engine() as engine:
        ...     engine.run([double(1), double(2)])
        ...     report = engine.prune(max_bytes=0)
        [2, 4]
        >>> report.deleted, report.kept
        (2, 0)
    """

    deleted: int
    freed: int
    kept: int
    kept_bytes: int
    dry_run: bool


def choose(
    entries: Iterable[Entry], *, now: float, older_than: float | None, max_bytes: int | None
) -> tuple[list[Entry], list[Entry]]:
    """Return the entries to delete and those to keep.

    First, entries whose last use is more than `older_than` seconds before `now` are deleted. Then,
    while the rest takes more than `max_bytes`, the least recently used one is deleted. An entry
    from the future (the clock was set back) counts as used now.
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
    """Delete old records, and then the least recently used ones until the rest is small enough.

    Args:
        backend: the backend to prune.
        older_than: delete records that were not used for longer than this.
        max_bytes: the size of the rest, at most.
        dry_run: report what a prune would delete, and delete nothing.

    Raises:
        InputError: neither limit is given, or one is negative.
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


# Verifying.


class Fault(NamedTuple):
    """A stored value that is never served.

    Attributes:
        key: its key.
        size: in bytes, as the backend counts it.
        why: why it is not served.
    """

    key: bytes
    size: int
    why: str


class Verification(NamedTuple):
    """The result of `verify`. Corrupt and foreign records are never served: both are misses.

    Attributes:
        good: how many records are valid.
        good_bytes: their size in bytes.
        corrupt: the corrupt records.
        foreign: the records in another format, written by another version.
        deleted: whether the corrupt records were deleted.
    """

    good: int
    good_bytes: int
    corrupt: list[Fault]
    foreign: list[Fault]
    deleted: bool

    @property
    def sound(self) -> bool:
        """Whether the cache holds no corrupt record now."""
        return self.deleted or not self.corrupt


def verify(store: Store, *, delete: bool = False) -> Verification:
    """Read every record and check everything that needs no computing.

    It checks the checksum, the recipe, that the key is the recipe's, and the output's digest. A run
    checks the same for each record that it uses.

    Args:
        store: the store to check; counts no hits.
        delete: delete corrupt records. Foreign ones stay: another version may use them.

    Raises:
        BackendError: the backend cannot be read, or cannot delete.
    """
    good = good_bytes = 0
    corrupt: list[Fault] = []
    foreign: list[Fault] = []
    for entry, record in store.records():
        corruption = _corruption(entry, record)
        if corruption is None:
            good += 1
            good_bytes += entry.size
            continue
        faults = foreign if str(corruption) == "of another format" else corrupt
        faults.append(Fault(entry.key, entry.size, str(corruption)))
    corrupt = _still_there(store, corrupt)
    if delete:
        _delete(store, corrupt)
    return Verification(good, good_bytes, corrupt, foreign, delete)


def _corruption(entry: Entry, record: Record | CorruptRecord) -> CorruptRecord | None:
    if isinstance(record, CorruptRecord):
        return record
    try:
        recipe = read_recipe(record.recipe)
    except EncodingError as error:
        return CorruptRecord(f"its recipe cannot be read: {error}")
    if key_of(record.recipe) != entry.key:
        return CorruptRecord("it is stored under the key of another record")
    own = recipe.node.startswith("(")  # the engine's own records have no output
    if not own and payload_digest(record.payload) != record.digest:
        return CorruptRecord("its output does not match its digest")
    return None


def _still_there(store: Store, faults: list[Fault]) -> list[Fault]:
    """Leave out records that another process, such as a prune, deleted in the meantime."""
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
        raise BackendError(f"corrupt records cannot be deleted: {error}") from error


# Counting and listing.


class NodeContents:
    """The records of one node.

    Attributes:
        records: how many there are.
        bytes: their size, as the backend counts it.
        hits: how often they were used.
        saved: the cost that the hits saved: `seconds`, and the node's own units.
    """

    __slots__ = ("bytes", "hits", "records", "saved")

    def __init__(self) -> None:
        self.records = 0
        self.bytes = 0
        self.hits = 0
        self.saved: dict[str, float] = {}

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as plain data."""
        return {name: getattr(self, name) for name in ("records", "bytes", "hits", "saved")}


class Contents:
    """The records of a cache.

    Attributes:
        nodes: the records of each node, by the node's name.
        records: how many valid records there are.
        bytes: their size.
        corrupt: how many records are corrupt.
        corrupt_bytes: their size.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, NodeContents] = {}
        self.records = 0
        self.bytes = 0
        self.corrupt = 0
        self.corrupt_bytes = 0

    @property
    def hits(self) -> int:
        """How often records were used."""
        return sum(node.hits for node in self.nodes.values())

    @property
    def saved(self) -> dict[str, float]:
        """The cost that all hits saved."""
        total: dict[str, float] = {}
        for node in self.nodes.values():
            for unit, amount in node.saved.items():
                total[unit] = total.get(unit, 0.0) + amount
        return total


class Line(NamedTuple):
    """One record of a listing.

    Attributes:
        key: 16 bytes.
        node: the node's name.
        size: in bytes, as the backend counts it.
        created: seconds since the epoch.
        used: the time of the last use, in seconds since the epoch; None if it was never used.
        hits: how often it was used.
        summary: its content in one line.
    """

    key: bytes
    node: str
    size: int
    created: float
    used: float | None
    hits: int
    summary: str


def disk_folder(url: str) -> Path | None:
    """Return the folder of a cache `disk:PATH`, or None for another URL; creates nothing.

    A command that reads a cache reports with it that the folder does not exist yet.
    """
    scheme, _, rest = url.partition(":")
    return Path(rest).expanduser().resolve() if scheme == "disk" and rest else None


def contents_of(store: Store, on_record: OnRecord | None = None) -> Contents:
    """Read and count every record.

    Args:
        store: the store to read; counts no hits.
        on_record: called with each valid record.

    Raises:
        BackendError: the backend cannot be read.
    """
    found = Contents()
    for entry, name, record in _named(store):
        if not isinstance(record, Record):
            found.corrupt += 1
            found.corrupt_bytes += entry.size
            continue
        found.records += 1
        found.bytes += entry.size
        node = found.nodes.setdefault(name, NodeContents())
        node.records += 1
        node.bytes += entry.size
        node.hits += entry.hits
        for unit, amount in (("seconds", record.seconds), *record.cost.items()):
            total = node.saved.get(unit, 0.0) + entry.hits * amount
            if entry.hits and amount and math.isfinite(total):  # a record may hold any cost
                node.saved[unit] = total
        if on_record is not None:
            on_record(entry, name, record)
    return found


def lines_of(
    store: Store,
    node: str | None = None,
    summarise: Callable[[str, Record], str] | None = None,
) -> list[Line]:
    """Return a line for each record, sorted by node, the newest record of a node first.

    Args:
        store: the store to list; counts no hits.
        node: list only the records of this node.
        summarise: returns a record's content in one line, given the node's name and the record;
            `summary` if None.

    Raises:
        BackendError: the backend cannot be read.
    """
    describe = summarise or summary
    lines = []
    for entry, name, record in _named(store):
        if node is None or name == node:
            text = describe(name, record) if isinstance(record, Record) else str(record)
            used = entry.used if entry.hits else None
            lines.append(Line(entry.key, name, entry.size, entry.created, used, entry.hits, text))
    lines.sort(key=lambda line: (line.node in _LAST, line.node, -line.created, line.key))
    return lines


def summary(node: str, record: Record) -> str:
    """Return the content of a record as text."""
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
    """Return the output of a record as plain data, without its declared type.

    Raises:
        EncodingError: the output cannot be read.
    """
    return plain_data(record.payload)


def inputs_of(record: Record) -> dict[str, Any]:
    """Return the inputs of a record's recipe; an empty dict if the recipe cannot be read."""
    try:
        return read_recipe(record.recipe).inputs
    except EncodingError:
        return {}


def identity_of(store: Store, identified: Identified) -> Any:
    """Return the data of an identity in a recipe, or None if the store does not hold it."""
    recipe = identity_recipe(identified)
    record = store.peek_many({key_of(recipe): recipe}).get(key_of(recipe))
    try:
        return None if record is None else value_of(record)
    except EncodingError:
        return None


def _named(store: Store) -> Iterator[tuple[Entry, str, Record | CorruptRecord]]:
    for entry, record in store.records():
        if isinstance(record, CorruptRecord):
            yield entry, CORRUPT, record
            continue
        try:
            name = node_of(record.recipe)
            yield entry, _OWN.get(name, name), record
        except EncodingError as error:
            yield entry, CORRUPT, CorruptRecord(f"its recipe cannot be read: {error}")
