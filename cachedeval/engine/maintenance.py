"""Maintenance of a cache: pruning old records, verifying all records, and listing them.

- `prune` deletes records by age, node and tag, and by the size of the cache.
- `verify` reads every record and reports, or deletes, the corrupt ones.
- `contents_of` and `page_of` count and list the records of each node.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from cachedeval.engine.backend import Entry
from cachedeval.engine.encoding import Identified
from cachedeval.engine.errors import BackendError, EncodingError, InputError
from cachedeval.engine.keys import identity_recipe, key_of, node_of, read_recipe
from cachedeval.engine.labels import Labelled, label_of, price_class, read_label
from cachedeval.engine.record import CorruptRecord, Record
from cachedeval.engine.store import Store
from cachedeval.engine.values import payload_digest, plain_data

__all__ = [
    "Contents",
    "Fault",
    "Line",
    "NodeContents",
    "OnRecord",
    "Page",
    "PruneReport",
    "Shown",
    "Verification",
    "choose",
    "contents_of",
    "disk_folder",
    "find_record",
    "identity_of",
    "inputs_of",
    "lines_of",
    "page_of",
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
"""Called with a record: its entry, the name under which it is listed, and the record."""


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
    while the rest takes more than `max_bytes`, the cheapest to compute is deleted, of equally
    expensive ones the least recently used. An entry from the future (the clock was set back)
    counts as used now.
    """
    gone: list[Entry] = []
    rest: list[Entry] = []
    for entry in entries:
        too_old = older_than is not None and now - entry.used > older_than
        (gone if too_old else rest).append(entry)
    total = sum(entry.size for entry in rest)
    if max_bytes is None or total <= max_bytes:
        return gone, rest
    rest.sort(key=lambda e: (price_class(e), min(e.used, now), e.created, e.key))
    cut = 0
    while cut < len(rest) and total > max_bytes:
        total -= rest[cut].size
        cut += 1
    return gone + rest[:cut], rest[cut:]


def prune(
    store: Store,
    *,
    older_than: timedelta | None = None,
    max_bytes: int | None = None,
    node: str | None = None,
    tag: str | None = None,
    unused_since: float | None = None,
    dry_run: bool = False,
) -> PruneReport:
    """Delete old records, and then the cheapest ones until the rest is small enough.

    Args:
        store: the store to prune.
        older_than: delete records that were not used for longer than this.
        max_bytes: the size of the rest, at most.
        node: consider only the records of this node, and delete all of them if neither an age nor
            a size is given.
        tag: likewise for the records with this tag.
        unused_since: likewise for the records whose last use is before this time, in seconds since
            the epoch.
        dry_run: report what a prune would delete, and delete nothing.

    Raises:
        InputError: no limit is given, or one is negative.
        BackendError: the backend cannot be read or written.
    """
    if older_than is None and max_bytes is None:
        if node is None and tag is None and unused_since is None:
            raise InputError("prune: give an age (older_than), a size (max_bytes), a node or a tag")
        max_bytes = 0
    if older_than is not None and older_than < timedelta(0):
        raise InputError(f"prune: older_than is {older_than}; it cannot be negative")
    if max_bytes is not None and max_bytes < 0:
        raise InputError(f"prune: max_bytes is {max_bytes}; it cannot be negative")
    seconds = None if older_than is None else older_than.total_seconds()
    try:
        if node is not None or tag is not None or max_bytes:
            entries: Iterable[Entry] = _matching(store, node, tag)
        else:
            entries = store.backend.scan()
        entries = _unused([entries], unused_since)
        gone, kept = choose(entries, now=time.time(), older_than=seconds, max_bytes=max_bytes)
        if not dry_run:
            for start in range(0, len(gone), _AT_ONCE):
                store.backend.delete_many([entry.key for entry in gone[start : start + _AT_ONCE]])
    except Exception as error:
        raise BackendError(f"the cache cannot be pruned: {error}") from error
    return PruneReport(
        deleted=len(gone),
        freed=sum(entry.size for entry in gone),
        kept=len(kept),
        kept_bytes=sum(entry.size for entry in kept),
        dry_run=dry_run,
    )


def _matching(store: Store, node: str | None, tag: str | None) -> Iterator[Entry]:
    """Yield the entries of a node and with a tag, with their labels; None is any."""
    unknown: list[Entry] = []
    if node is None and tag is None:
        entries: Iterable[Entry] = store.backend.scan()
    else:
        labels = [count.label for count in store.backend.count(sizes=False)]
        entries = chain.from_iterable(
            store.backend.select(label)
            for label in labels
            if (known := read_label(label)) is None or _matches(known, node, tag)
        )
    for entry in entries:
        if read_label(entry.label) is None:
            unknown.append(entry)
        else:
            yield entry
    for entry, record in store.records(unknown):
        label = label_of(record) if isinstance(record, Record) else None
        known = None if label is None else read_label(label.text)
        if label is not None and known is not None and _matches(known, node, tag):
            yield entry._replace(label=label.text, seconds=label.seconds)
        elif known is None and tag is None and node in (None, CORRUPT):
            yield entry


def _matches(labelled: Labelled, node: str | None, tag: str | None) -> bool:
    shown = _OWN.get(labelled.node, labelled.node)
    return labelled._replace(node=shown).matches(node, tag)


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

    def add(
        self, node: str, records: int, size: int, hits: int, saved: Mapping[str, float]
    ) -> None:
        """Add records of a node; a record may hold any cost, so what is not finite is left out."""
        self.records += records
        self.bytes += size
        sums = self.nodes.setdefault(node, NodeContents())
        sums.records += records
        sums.bytes += size
        sums.hits += hits
        for unit, amount in saved.items():
            total = sums.saved.get(unit, 0.0) + amount
            if amount and math.isfinite(total):
                sums.saved[unit] = total

    def add_corrupt(self, entry: Entry, *, counts: bool) -> None:
        """Add a corrupt record, if it counts."""
        self.corrupt += counts
        self.corrupt_bytes += entry.size * counts

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


def contents_of(
    store: Store,
    on_record: OnRecord | None = None,
    *,
    node: str | None = None,
    tag: str | None = None,
    unused_since: float | None = None,
) -> Contents:
    """Count the records of each node.

    The backend counts them by their labels. Only records that hits have used and that cost more
    than time are read, and those without a label.

    Args:
        store: the store to count; counts no hits.
        on_record: called with each record that hits have used and that cost more than time.
        node: count only the records of this node.
        tag: count only the records with this tag.
        unused_since: count only records whose last use is before this time, in seconds since the
            epoch.

    Raises:
        BackendError: the backend cannot be read.
    """
    found = Contents()
    try:
        whole, costs = _count_labels(store, found, node, tag, reads=unused_since is not None)
    except Exception as error:
        raise BackendError(f"the cache cannot be read: {error}") from error
    for entry, name, record in _named(store, _unused(whole, unused_since)):
        if not isinstance(record, Record):
            found.add_corrupt(entry, counts=node in (None, CORRUPT) and tag is None)
        elif node in (None, name) and (tag is None or tag in record.tags):
            found.add(name, 1, entry.size, entry.hits, _saved(entry, record, record.seconds))
            _note(on_record, entry, name, record)
    for entry, name, record in _named(store, chain.from_iterable(costs)):
        if isinstance(record, Record):
            found.add(name, 0, 0, 0, _saved(entry, record, 0.0))
            _note(on_record, entry, name, record)
    return found


def _note(on_record: OnRecord | None, entry: Entry, name: str, record: Record) -> None:
    if on_record is not None and entry.hits and record.cost:
        on_record(entry, name, record)


def _count_labels(
    store: Store, found: Contents, node: str | None, tag: str | None, *, reads: bool
) -> tuple[list[Iterable[Entry]], list[Iterable[Entry]]]:
    """Add what labels say, if their records need not be read.

    Returns:
        The entries of which nothing was added, and those of which only the cost was not.
    """
    whole: list[Iterable[Entry]] = []
    costs: list[Iterable[Entry]] = []
    for count in list(store.backend.count()):
        known = read_label(count.label)
        if known is not None and not _matches(known, node, tag):
            continue
        if known is None or reads:
            whole.append(store.backend.select(count.label))
            continue
        name = _OWN.get(known.node, known.node)
        found.add(name, count.values, count.size, count.hits, {"seconds": count.seconds})
        if known.units and count.hits:
            costs.append(store.backend.select(count.label, used=True))
    return whole, costs


def _unused(entries: Iterable[Iterable[Entry]], since: float | None) -> Iterator[Entry]:
    for entry in chain.from_iterable(entries):
        if since is None or entry.used < since:
            yield entry


def _saved(entry: Entry, record: Record, seconds: float) -> dict[str, float]:
    costs = (("seconds", seconds), *record.cost.items())
    return {unit: entry.hits * amount for unit, amount in costs if entry.hits}


class Page(NamedTuple):
    """Records of a listing.

    Attributes:
        lines: a line for each record, sorted by node, the newest record of a node first.
        totals: how many records each node has, also those that the limit left out.
    """

    lines: list[Line]
    totals: dict[str, int]


def page_of(
    store: Store,
    *,
    node: str | None = None,
    tag: str | None = None,
    unused_since: float | None = None,
    limit: int | None = None,
    summarise: Callable[[str, Record], str] | None = None,
) -> Page:
    """List records. Those of a page are read, and others only if they have no label.

    Args:
        store: the store to list; counts no hits.
        node: list only the records of this node.
        tag: list only the records with this tag.
        unused_since: list only records whose last use is before this time, in seconds since the
            epoch.
        limit: list this many records of each node, the newest; all if None.
        summarise: returns a record's content in one line, given the node's name and the record;
            `summary` if None.

    Raises:
        BackendError: the backend cannot be read.
    """
    describe = summarise or summary
    totals: Counter[str] = Counter()
    pages: dict[str, list[Entry]] = {}
    unknown: list[Entry] = []
    try:
        for count in list(store.backend.count(sizes=False)):
            known = read_label(count.label)
            if known is not None and not _matches(known, node, tag):
                continue
            newest = limit if known is not None and unused_since is None else None
            entries = [
                entry
                for entry in store.backend.select(count.label, newest=newest)
                if unused_since is None or entry.used < unused_since
            ]
            if known is None:
                unknown += entries
                continue
            name = _OWN.get(known.node, known.node)
            totals[name] += count.values if newest is not None else len(entries)
            pages.setdefault(name, []).extend(entries)
    except Exception as error:
        raise BackendError(f"the cache cannot be read: {error}") from error
    lines: list[Line] = []
    shown = [entry for entries in pages.values() for entry in _newest(entries, limit)]
    for entry, name, record in _named(store, shown):
        lines.append(_line(entry, name, record, describe))
    unread: dict[str, list[Line]] = {}
    for entry, name, record in _named(store, unknown):
        tags = record.tags if isinstance(record, Record) else ()
        if node in (None, name) and (tag is None or tag in tags):
            totals[name] += 1
            unread.setdefault(name, []).append(_line(entry, name, record, describe))
    for more in unread.values():
        lines += more
    lines.sort(key=lambda line: (line.node in _LAST, line.node, -line.created, line.key))
    if limit is not None and unread:
        seen: Counter[str] = Counter()
        lines = [
            line for line in lines if not seen.update([line.node]) and seen[line.node] <= limit
        ]
    return Page(lines, {name: totals[name] for name in sorted(totals) if totals[name]})


def _newest(entries: list[Entry], limit: int | None) -> list[Entry]:
    if limit is None or len(entries) <= limit:
        return entries
    return sorted(entries, key=lambda entry: (-entry.created, entry.key))[:limit]


def _line(
    entry: Entry,
    name: str,
    record: Record | CorruptRecord,
    describe: Callable[[str, Record], str],
) -> Line:
    text = describe(name, record) if isinstance(record, Record) else str(record)
    used = entry.used if entry.hits else None
    return Line(entry.key, name, entry.size, entry.created, used, entry.hits, text)


def lines_of(
    store: Store,
    node: str | None = None,
    summarise: Callable[[str, Record], str] | None = None,
) -> list[Line]:
    """Return a line for each record, sorted by node, the newest record of a node first.

    Args:
        store: the store to list; counts no hits.
        node: list only the records of this node.
        summarise: as for `page_of`.

    Raises:
        BackendError: the backend cannot be read.
    """
    return page_of(store, node=node, summarise=summarise).lines


class Shown(NamedTuple):
    """One record, decoded.

    Attributes:
        entry: its metadata.
        record: the record.
        node: the node's name.
        version: the node's version, or the fingerprint of its source.
        inputs: the inputs of the recipe.
        value: the output as plain data; a text that says why if it cannot be read.
    """

    entry: Entry
    record: Record
    node: str
    version: str
    inputs: dict[str, Any]
    value: Any


def find_record(store: Store, key: str) -> Shown | None:
    """Return the record with a key, or None; counts no hit.

    Args:
        store: the store.
        key: in hexadecimal, whole or how it begins.

    Raises:
        InputError: it is no beginning of a key, several records have it, or the record is corrupt.
        BackendError: the backend cannot be read.
    """
    start = key.strip().lower()
    if not start or set(start) - set("0123456789abcdef"):
        raise InputError(f"{key!r} is not a key: give hexadecimal digits, as `cache ls` shows them")
    try:
        found = [entry for entry in store.backend.scan() if entry.key.hex().startswith(start)]
    except Exception as error:
        raise BackendError(f"the cache cannot be read: {error}") from error
    if len(found) > 1:
        raise InputError(f"{len(found):,} records have a key that begins with {key!r}: give more")
    for entry, record in store.records(found):
        if isinstance(record, CorruptRecord):
            raise InputError(f"the record {entry.key.hex()} is corrupt: {record}")
        try:
            recipe = read_recipe(record.recipe)
        except EncodingError as error:
            raise InputError(f"the record {entry.key.hex()} is corrupt: {error}") from error
        name = _OWN.get(recipe.node, recipe.node)
        try:
            value = value_of(record)
        except (EncodingError, RecursionError):
            value = summary(name, record)
        return Shown(entry, record, name, recipe.version, recipe.inputs, value)
    return None


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


def _named(
    store: Store, entries: Iterable[Entry]
) -> Iterator[tuple[Entry, str, Record | CorruptRecord]]:
    for entry, record in store.records(entries):
        if isinstance(record, CorruptRecord):
            yield entry, CORRUPT, record
            continue
        try:
            name = node_of(record.recipe)
            yield entry, _OWN.get(name, name), record
        except EncodingError as error:
            yield entry, CORRUPT, CorruptRecord(f"its recipe cannot be read: {error}")
