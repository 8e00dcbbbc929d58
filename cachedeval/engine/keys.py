"""Recipes and keys. A recipe describes a call; a key, the recipe's hash, is where it is stored.

A recipe is the canonical encoding of the tuple `("recipe", node, version, inputs)`. `RecipeHead`
encodes the parts that all calls of a node share only once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import xxhash

from cachedeval.engine.encoding import ENCODERS, LONG, Identified, decode, encode, too_deep
from cachedeval.engine.errors import EncodingError

__all__ = ["CLOSURE", "Recipe", "RecipeHead", "identity_recipe", "key_of", "node_of", "read_recipe"]

_PARTS = 4
_IDENTITY = "(identity)"

CLOSURE = "(outside)"
"""The input that holds the closure of a function; no parameter can have this name."""


class Recipe(NamedTuple):
    """A decoded recipe.

    Attributes:
        node: the node's name.
        version: the node's version, or the fingerprint of its source.
        inputs: the inputs by name, in their decoded form.
    """

    node: str
    version: str
    inputs: dict[str, Any]


def key_of(recipe: bytes) -> bytes:
    """Return the key of a recipe: its xxh3_128, 16 bytes.

    The hash is not cryptographic, so a store compares the recipe itself on a hit.
    """
    return xxhash.xxh3_128_digest(recipe)


class RecipeHead:
    """The common start of all recipes of one node, encoded once.

    Args:
        node: the node's name.
        version: the node's version, or the fingerprint of its source.
        names: the names of the inputs.

    Example:
        >>> recipe = RecipeHead("double", "1", ["x"]).recipe({"x": 4})
        >>> read_recipe(recipe)
        Recipe(node='double', version='1', inputs={'x': 4})
    """

    __slots__ = ("_head", "_names")

    def __init__(self, node: str, version: str, names: Sequence[str]) -> None:
        ends = encode(("recipe", node, version)), encode(dict.fromkeys(names))
        # The tuple's tag and count and its first parts, then the dict's tag and count.
        self._head = (
            ends[0][:1]
            + bytes((_PARTS,))
            + ends[0][2:]
            + ends[1][: len(ends[1]) - sum(len(encode(name)) + 1 for name in names)]
        )
        self._names = sorted((encode(name), name) for name in names)

    def recipe(self, inputs: Mapping[str, Any]) -> bytes:
        """Return the recipe of a call with these inputs.

        Raises:
            EncodingError: an input has no canonical encoding; the message names it.
        """
        parts = [self._head]
        for encoded, name in self._names:
            parts.append(encoded)
            value = inputs[name]
            try:
                ENCODERS[type(value)](value, parts)
            except EncodingError as error:
                raise EncodingError(f"input {name!r}: {error}") from None
            except RecursionError:
                raise EncodingError(f"input {name!r}: {too_deep(value)}") from None
        return b"".join(parts)


def read_recipe(recipe: bytes) -> Recipe:
    """Decode a recipe.

    Raises:
        EncodingError: the bytes are not a recipe.
    """
    value = decode(recipe)
    match value:
        case ("recipe", str(node), str(version), dict(inputs)):
            return Recipe(node, version, inputs)
        case _:
            raise EncodingError("not a recipe")


def node_of(recipe: bytes) -> str:
    """Return the name of a recipe's node; decodes nothing else.

    Raises:
        EncodingError: the bytes are not a recipe.
    """
    start = 2 + len(encode("recipe"))
    if recipe[:start] != b"t\x04" + encode("recipe"):
        raise EncodingError("not a recipe")
    head = recipe[start : start + 2]
    if len(head) < 2 or head[1] == LONG:  # noqa: PLR2004  the tag and the length
        return read_recipe(recipe).node
    name = recipe[start + 2 : start + 2 + head[1]]
    try:
        if head[:1] == b"s" and len(name) == head[1]:
            return name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        pass
    raise EncodingError("not a recipe")


def identity_recipe(identified: Identified) -> bytes:
    """Return the recipe of the record that holds the data of an identity."""
    head = RecipeHead(_IDENTITY, "1", ("digest", "label"))
    return head.recipe({"label": identified.label, "digest": identified.digest})
