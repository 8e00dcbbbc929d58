"""The label of a record: what counting, listing and pruning need of it, without reading the record.

A label's text names the node, its tags and the units of its cost, so few labels serve all records.
A backend stores it beside the record, unverified: it decides what is shown and pruned, never what
is served.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import msgspec

from cachedeval.engine.backend import Entry, Label
from cachedeval.engine.errors import EncodingError
from cachedeval.engine.keys import node_of
from cachedeval.engine.record import TAGS, Record

__all__ = ["Labelled", "label_of", "price_class", "read_label", "text_of"]

_TAGS = TAGS.encode()

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[str, tuple[str, ...], tuple[str, ...]]).decode

_PAID = 100
"""Added to the price class of what costs more than time: all of it is more expensive."""


class Labelled(NamedTuple):
    """What a label says of its records.

    Attributes:
        node: the node's name.
        tags: the node's tags when the record was stored.
        units: the units of its cost beside seconds, such as tokens.
    """

    node: str
    tags: tuple[str, ...]
    units: tuple[str, ...]

    def matches(self, node: str | None, tag: str | None) -> bool:
        """Return whether the records are of this node and have this tag; None is any."""
        return (node is None or self.node == node) and (tag is None or tag in self.tags)


def label_of(record: Record) -> Label | None:
    """Return the label of a record; None if its recipe or its names cannot be read.

    Example:
        >>> from cachedeval.engine.keys import RecipeHead
        >>> recipe = RecipeHead("double", "1", ["x"]).recipe({"x": 4})
        >>> label_of(Record(recipe, b"", "", created=0.0, seconds=0.5))
        Label(text='["double",[],[]]', seconds=0.5)
    """
    try:
        node = node_of(record.recipe)
    except EncodingError:
        return None
    tags = record.tags if _TAGS in record.notes else ()
    try:
        return Label(text_of(node, tags, tuple(record.cost)), record.seconds)
    except UnicodeEncodeError:
        return None


@lru_cache(1024)
def text_of(node: str, tags: tuple[str, ...], units: tuple[str, ...]) -> str:
    """Return the text of a label."""
    return _encode((node, sorted(tags), sorted(units))).decode()


@lru_cache(1024)
def read_label(text: str | None) -> Labelled | None:
    """Return what a label says; None if there is none, or if it is not one of ours.

    Example:
        >>> read_label('["double",["mine"],[]]')
        Labelled(node='double', tags=('mine',), units=())
    """
    if text is None:
        return None
    try:
        return Labelled(*_decode(text))
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return None


def price_class(entry: Entry) -> int:
    """Return how expensive an entry's record is, in powers of ten of seconds; 0 is up to 0.01 s.

    A record that cost more than time (tokens, money) is more expensive than any that did not. So is
    one of the engine's own, such as the digest of a large file: they are small, and serve many.
    """
    seconds = entry.seconds if math.isfinite(entry.seconds) else 0.0
    magnitude = max(0, math.ceil(math.log10(seconds) + 2)) if seconds > 0 else 0
    labelled = read_label(entry.label)
    paid = labelled is not None and (labelled.units or labelled.node.startswith("("))
    return magnitude + (_PAID if paid else 0)
