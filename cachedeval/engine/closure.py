"""The closure of a node's function: all that its result depends on outside the function.

These are closed-over values and, for a node without a version, all that its code can reach: globals,
attributes of modules, classes, instances, defaults and imports. Each becomes plain data, its *form*,
which is an input of the node's calls. A closure is read again only if something that it read has
changed.
"""

# Lazy imports: nodes with a version that close over nothing need no walk, with its `ast` and `dis`,
# and a run of hits is faster without it.

import itertools
import types
from typing import TYPE_CHECKING, Any

from cachedeval.engine.encoding import encode
from cachedeval.engine.errors import InputError

if TYPE_CHECKING:
    from cachedeval.engine.guards import Guards

__all__ = ["Closure", "Step"]

_LONG = 1000
_LONG_DATA = 10_000
"""The length of an encoded form, and of plain data, from which on its digest replaces it in keys."""

_serials = itertools.count()


class Step:
    """A function that is known by a name and a version, as a node is.

    Attributes:
        function: the function.
        name: its name.
        version: its version; None if the source is the version.
        replaced: whether it was defined again since, with other source and the same version.
        serial: a number that no other step of the process has.
    """

    def __init__(self, function: types.FunctionType, name: str, version: str | None) -> None:
        self.function = function
        self.name = name
        self.version = version
        self.replaced = False
        self.serial = next(_serials)


class Closure:
    """What a function, or the methods of a class, depend on; read again when it has changed.

    Args:
        title: the name of the node, for errors.
        roots: the function of the node, and other functions and classes that count.
        versioned: whether the node has a version, which covers all but closed-over data and code.

    Thread safety: `read` may be called from any thread.
    """

    def __init__(self, title: str, *roots: Any, versioned: bool) -> None:
        self._title = title
        self._roots = roots
        self._versioned = versioned
        self._last: tuple[dict[str, Any], Guards] | None = None

    def read(self) -> dict[str, Any]:
        """Return the forms of all that counts, by name.

        Raises:
            InputError: the node has no version, and something that it depends on has no form.
        """
        last = self._last
        if last is None or not last[1].hold():
            last = self._last = self._read()
        return last[0]

    def _read(self) -> tuple[dict[str, Any], "Guards"]:
        from cachedeval.engine.walk import NoFormError, Walk

        walk = Walk(versioned=self._versioned)
        values: dict[str, Any] = {}
        try:
            first, *others = self._roots
            if isinstance(first, type):
                walk.note_class(first)
            else:
                values |= walk.outside(first)
            for other in others:
                if isinstance(other, type):
                    walk.note_class(other)
                elif other not in walk.seen:
                    values[f"{other.__qualname__}()"] = walk.form(other, other.__qualname__)
            values |= walk.forms_of_classes()
        except NoFormError as error:
            raise error.refusal(self._title) from None
        except RecursionError:
            raise InputError(
                f"{self._title} depends on code that is nested too deeply: give the node a version "
                'that covers it, @node(version="1")'
            ) from None
        return {name: _shortened(value) for name, value in values.items()}, walk.guards


def _shortened(value: Any) -> Any:
    """Return the digest of a long form; shorter data stays as it is, so that it can be explained."""
    encoded = encode(value)
    if len(encoded) < (_LONG if type(value) is tuple else _LONG_DATA):
        return value
    from cachedeval.engine.parts import content_digest

    return content_digest(encoded)
