"""Calls: a node bound to its inputs, not run yet; and the graph that they are together.

The inputs may be plain data, resources, and other calls, also inside lists, tuples and dicts.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cachedeval.engine.encoding import Output
from cachedeval.engine.errors import EncodingError
from cachedeval.engine.resource import Resource

if TYPE_CHECKING:
    from cachedeval.engine.node import Node

__all__ = ["Call", "describe", "recipe_of", "substitute"]

R_co = TypeVar("R_co", covariant=True)

_ATOMS = frozenset({str, int, float, bool, bytes, type(None)})
"""What holds neither calls nor resources, and is most of what steps are given."""

_SHOWN = 3
_WIDTH = 40


class Call(Generic[R_co]):
    """A node bound to its inputs, not run yet.

    Attributes:
        node: the step.
        inputs: its inputs by name, defaults filled in.
        plain: whether there are neither calls nor resources among them.
        frozen: whether no input can change: there are only atoms, calls and resources.
        upstream: the calls among its inputs.
        depth: 0 without upstream calls, else one more than the deepest of them.

    Raises:
        EncodingError: an input contains itself.
    """

    __slots__ = ("__weakref__", "depth", "frozen", "inputs", "node", "plain", "upstream")

    def __init__(self, node: "Node[R_co]", inputs: dict[str, Any]) -> None:
        self.node = node
        self.inputs = inputs
        self.plain = True
        self.frozen = True
        self.upstream: tuple[Call[Any], ...] = ()
        self.depth = 0
        found: list[Call[Any]] = []
        for value in inputs.values():
            kind = type(value)
            if kind in _ATOMS:
                continue
            if kind is Call:
                found.append(value)
                self.plain = False
                continue
            if not isinstance(value, Resource):
                self.frozen = False
            try:
                if _find(value, found):
                    self.plain = False
            except RecursionError:
                raise EncodingError(
                    f"an input of {node.name} contains itself, or is nested too deeply; flatten it"
                ) from None
        if found:
            self.upstream = tuple(found)
            self.depth = 1 + max([call.depth for call in found])

    def __repr__(self) -> str:
        return f"<call of {self.node.name}>"


def _find(value: Any, calls: list[Call[Any]]) -> bool:
    """Collect the calls inside a value; say whether there are calls or resources."""
    kind = type(value)
    if kind in _ATOMS:
        return False
    if kind is Call:
        calls.append(value)
        return True
    if kind is dict:
        members = value.values()
    elif kind is list or kind is tuple:
        members = value
    else:
        return isinstance(value, Resource)
    found = False
    for member in members:
        found = _find(member, calls) or found
    return found


def substitute(
    value: Any,
    call: Callable[[Call[Any]], Any],
    resource: Callable[[Resource[Any]], Any],
) -> Any:
    """Return the value with each call and each resource inside it replaced.

    Lists, dicts and sets are new ones: who gets them may change them.
    """
    kind = type(value)
    if kind is Call:
        return call(value)
    if kind is dict:
        return {key: substitute(member, call, resource) for key, member in value.items()}
    if kind is list or kind is tuple:
        return kind(substitute(member, call, resource) for member in value)
    if kind is set:
        return set(value)
    if isinstance(value, Resource):
        return resource(value)
    return value


def recipe_of(call: Call[Any], digest: Callable[[Call[Any]], str]) -> bytes:
    """Return a call's recipe, given the digests of its upstream calls' outputs.

    Raises:
        EncodingError: an input has no canonical encoding.
    """
    inputs = call.inputs
    if not call.plain:
        inputs = {
            name: value if type(value) in _ATOMS else _as_known(value, digest)
            for name, value in inputs.items()
        }
    return call.node.recipe(inputs)


def _as_known(value: Any, digest: Callable[[Call[Any]], str]) -> Any:
    """Return the value with what stands in a recipe for the calls and resources inside it."""
    kind = type(value)
    if kind is Call:
        return Output(digest(value))
    if kind is list or kind is tuple:  # of ten thousand calls, it may be
        return kind([Output(digest(m)) if type(m) is Call else _as_known(m, digest) for m in value])
    if kind in _ATOMS:
        return value
    return substitute(value, lambda c: Output(digest(c)), lambda r: r.identified)


def describe(call: Call[Any]) -> str:
    """Return a call in short, as it would be written: to tell it from others in a message."""
    shown = []
    names = call.node.signature.names
    for name in names[:_SHOWN]:
        value = call.inputs[name]
        text = f"<{value.label}>" if isinstance(value, Resource) else repr(value)
        shown.append(f"{name}={text if len(text) <= _WIDTH else text[: _WIDTH - 1] + '…'}")
    more = ", …" if len(names) > _SHOWN else ""
    return f"{call.node.name}({', '.join(shown)}{more})"
