"""What a cache holds: its records by step, and what their hits have saved."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cachedeval.engine.backend import Entry
from cachedeval.engine.encoding import Identified
from cachedeval.engine.errors import EncodingError
from cachedeval.engine.recipe import identity_recipe, key_of, node_of, read_recipe
from cachedeval.engine.record import Damaged, Record
from cachedeval.engine.store import Store
from cachedeval.engine.values import Codec

__all__ = [
    "Contents",
    "Line",
    "NodeContents",
    "OnRecord",
    "contents_of",
    "disk_folder",
    "identity_of",
    "inputs_of",
    "lines_of",
    "summary",
    "value_of",
]

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
