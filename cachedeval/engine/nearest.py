"""What a store holds, indexed to find the record that is nearest to a recipe."""

from collections.abc import Iterable
from typing import NamedTuple

from cachedeval.engine.encoding import encode
from cachedeval.engine.errors import BackendError, EncodingError
from cachedeval.engine.recipe import Recipe, key_of, read_recipe
from cachedeval.engine.record import Record
from cachedeval.engine.store import Store

__all__ = ["Index", "Known"]

_COMMON = 500
"""A field that so many records share does not tell which of them is near."""

_AT_MOST = 200
"""How many records are compared with a recipe, when nothing tells which of them is near."""


class Known(NamedTuple):
    """A record, and what its recipe says."""

    record: Record
    recipe: Recipe
    fields: dict[str, bytes]
    """The encodings of its inputs."""


class Index:
    """All records of a store, read once.

    Attributes:
        unreadable: the keys of damaged records.
    """

    def __init__(self, store: Store) -> None:
        self.unreadable: set[bytes] = set()
        self._nodes: dict[str, list[Known]] = {}
        self._sharing: dict[tuple[str, str, bytes], list[Known]] = {}
        self._outputs: dict[str, list[Known]] = {}
        try:
            for entry, record in store.records():
                if isinstance(record, Record):
                    self._add(record)
                else:
                    self.unreadable.add(entry.key)
        except BackendError:
            return  # what was found by then is explained with

    def nearest(self, recipe: bytes, among: Iterable[Known] | None = None) -> Known | None:
        """Return the record of the same node that has the most inputs in common.

        Args:
            recipe: what is looked for; a record of itself counts.
            among: where to look; by default all records of the node.
        """
        wanted = read_recipe(recipe)
        fields = {name: encode(value) for name, value in wanted.inputs.items()}
        if among is None:
            among = self._candidates(wanted.node, fields)
        found = [known for known in among if known.recipe.node == wanted.node]
        return max(found, key=lambda known: _nearness(known, fields), default=None)

    def with_output(self, digest: str) -> list[Known]:
        """Return the records that hold an output."""
        return self._outputs.get(digest, [])

    def _candidates(self, node: str, fields: dict[str, bytes]) -> list[Known]:
        shared: dict[int, tuple[int, Known]] = {}
        for name, field in fields.items():
            sharing = self._sharing.get((node, name, field), [])
            if len(sharing) <= _COMMON:
                for known in sharing:
                    count = shared.get(id(known), (0, known))[0]
                    shared[id(known)] = count + 1, known
        if not shared:
            return self._nodes.get(node, [])[-_AT_MOST:]
        most = max(count for count, _ in shared.values())
        return [known for count, known in shared.values() if count == most][-_AT_MOST:]

    def _add(self, record: Record) -> None:
        try:
            recipe = read_recipe(record.recipe)
            fields = {name: encode(value) for name, value in recipe.inputs.items()}
        except EncodingError:
            self.unreadable.add(key_of(record.recipe))
            return
        known = Known(record, recipe, fields)
        self._nodes.setdefault(recipe.node, []).append(known)
        self._outputs.setdefault(record.digest, []).append(known)
        for name, field in fields.items():
            self._sharing.setdefault((recipe.node, name, field), []).append(known)


def _nearness(known: Known, fields: dict[str, bytes]) -> tuple[int, int, float]:
    same, alike = 0, 0
    for name, field in fields.items():
        other = known.fields.get(name)
        if other == field:
            same += 1
        elif other is not None:
            alike += _shared_start(field, other) + _shared_start(field[::-1], other[::-1])
    return same, alike, known.record.created


def _shared_start(one: bytes, other: bytes) -> int:
    """Return how many bytes two strings begin with alike."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
