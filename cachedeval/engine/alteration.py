"""Whether what a key was made of is still the same: a step must not change what it reads."""

from collections.abc import Callable
from typing import Any

from cachedeval.engine.call import Call, recipe_of
from cachedeval.engine.difference import differences
from cachedeval.engine.errors import EncodingError
from cachedeval.engine.recipe import OUTSIDE, read_recipe

__all__ = ["changed_input"]


def changed_input(call: Call[Any], recipe: bytes, digest: Callable[[Call[Any]], str]) -> str | None:
    """Return where a call's inputs changed since a recipe was made of them; None if nowhere.

    Args:
        call: the call.
        recipe: what it was.
        digest: tells the output's digest of an upstream call.
    """
    outside = call.node.changed_outside(call.inputs)
    if outside is not None:
        return outside
    try:
        now = recipe_of(call, digest)
    except EncodingError:
        return "an input"
    if now == recipe:
        return None
    where = next(differences(read_recipe(recipe).inputs, read_recipe(now).inputs)).where
    return where.removeprefix(f"{OUTSIDE} / ")
