"""Nodes and calls: `@node` makes a function a step, and calling it describes one call of the step.

A call runs nothing. Its inputs may be plain data, resources, and other calls, also inside lists,
tuples and dicts; together the calls are the graph.
"""

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

from cachedeval.engine.encoding import Output
from cachedeval.engine.errors import InputError
from cachedeval.engine.recipe import RecipeHead
from cachedeval.engine.resource import Resource
from cachedeval.engine.signature import Signature, signature_of
from cachedeval.engine.source import captured, code_fingerprint, source_fingerprint
from cachedeval.engine.values import Codec

__all__ = ["Call", "Computed", "Node", "node"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_CLOSURE = "(closure)"


class Computed(Generic[R]):
    """What a step may return in place of a bare value, to tell more than the value.

    Args:
        value: the output.
        cost: what it cost, in the node's own units.
        provenance: what is worth knowing and is no part of the output; plain data.
    """

    __slots__ = ("cost", "provenance", "value")

    def __init__(
        self,
        value: R,
        *,
        cost: Mapping[str, float] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.value = value
        self.cost = dict(cost or {})
        self.provenance = dict(provenance or {})


class Node(Generic[R_co]):
    """A step: a function with a name and a version. Made by `node`.

    Attributes:
        name: module and qualified name of the function, unless given.
        version: as declared, or None where the source is the version.
        batch: whether it takes its misses together.
        lane: steps of one lane share one thread and take turns; None is any thread.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        version: str | None = None,
        name: str | None = None,
        helpers: Sequence[Callable[..., Any]] = (),
        batch: bool = False,
        lane: str | None = None,
    ) -> None:
        qualname = getattr(function, "__qualname__", "")
        if not isinstance(function, types.FunctionType):
            raise InputError(
                f"a node is made of a function, not of a {type(function).__qualname__}: write "
                "@node above a def"
            )
        if function.__name__ == "<lambda>":
            raise InputError(
                "a lambda has no name to be found by: write a def and put @node above it"
            )
        if version is not None and not isinstance(version, str):
            raise InputError(f'{qualname}: a version is a string, as in @node(version="1")')
        self.function = function
        self.name = name or f"{function.__module__}.{qualname}"
        self.version = version
        self.batch = batch
        self.lane = lane or (self.name if batch else None)
        self.is_async = bool(function.__code__.co_flags & 0x80)  # CO_COROUTINE
        if batch and self.is_async:
            raise InputError(f"{qualname}: a batched node is a generator function, not async")
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        self.__qualname__ = qualname
        self.__wrapped__ = function
        self._helpers = tuple(getattr(helper, "function", helper) for helper in helpers)
        self._signature: Signature | None = None
        self._codec: Codec | None = None
        self._head: RecipeHead | None = None
        self._fingerprint: str | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> "Call[R_co]":
        """Describe a call of the step with these inputs; nothing runs.

        Raises:
            TypeError: the inputs do not fit the function.
            InputError: the function closes over what cannot be part of a key.
        """
        inputs = self.signature.bind(args, kwargs)
        if self.function.__closure__:
            values = captured(self.function, versioned=self.version is not None)
            if values:
                inputs = {**inputs, _CLOSURE: values}
        return Call(self, inputs)

    def __repr__(self) -> str:
        return f"<node {self.name} {self.version or 'by source'}>"

    @property
    def signature(self) -> Signature:
        """How its inputs are named."""
        if self._signature is None:
            self._signature = signature_of(self.function, batch=self.batch)
        return self._signature

    @property
    def codec(self) -> Codec:
        """How its outputs are written and read, by the type that it declares."""
        if self._codec is None:
            self._codec = Codec(self.signature.returns)
        return self._codec

    @property
    def fingerprint(self) -> str:
        """Digest of its code, recorded with each result to notice that the source has drifted."""
        if self._fingerprint is None:
            self._fingerprint = code_fingerprint(self.function)
        return self._fingerprint

    def recipe(self, inputs: Mapping[str, Any]) -> bytes:
        """Return the recipe of a call, given inputs with calls and resources replaced."""
        if self._head is None or len(inputs) != len(self.signature.names):
            version = self.version
            if version is None:
                version = source_fingerprint((self.function, *self._helpers))
            head = RecipeHead(self.name, version, tuple(inputs))
            if len(inputs) != len(self.signature.names):
                return head.recipe(inputs)
            self._head = head
        return self._head.recipe(inputs)


class Call(Generic[R_co]):
    """A node bound to its inputs, not run yet.

    Attributes:
        node: the step.
        inputs: its inputs by name, defaults filled in.
        upstream: the calls among its inputs.
        depth: 0 without upstream calls, else one more than the deepest of them.
    """

    __slots__ = ("__weakref__", "depth", "inputs", "node", "plain", "upstream")

    def __init__(self, node: Node[R_co], inputs: dict[str, Any]) -> None:
        self.node = node
        self.inputs = inputs
        found: list[Call[Any]] = []
        self.plain = not _find(inputs, found)
        self.upstream: tuple[Call[Any], ...] = tuple(found)
        self.depth: int = 1 + max(call.depth for call in found) if found else 0

    def __repr__(self) -> str:
        return f"<call of {self.node.name}>"


def _find(value: Any, calls: list[Call[Any]]) -> bool:
    """Collect the calls inside a value; say whether there are calls or resources."""
    kind = type(value)
    if kind is str or kind is int or kind is float or value is None:
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
    """Return the value with each call and each resource inside it replaced."""
    kind = type(value)
    if kind is Call:
        return call(value)
    if kind is dict:
        return {key: substitute(member, call, resource) for key, member in value.items()}
    if kind is list or kind is tuple:
        return kind(substitute(member, call, resource) for member in value)
    if isinstance(value, Resource):
        return resource(value)
    return value


def recipe_of(call: Call[Any], digest: Callable[[Call[Any]], str]) -> bytes:
    """Return a call's recipe, given the digests of its upstream calls' outputs.

    Raises:
        EncodingError: an input has no canonical encoding.
    """
    if call.plain:
        return call.node.recipe(call.inputs)
    return call.node.recipe(
        {
            name: substitute(value, lambda c: Output(digest(c)), lambda r: r.identified)
            for name, value in call.inputs.items()
        }
    )


@overload
def node(function: Callable[..., R], /) -> Node[R]: ...


@overload
def node(
    *,
    version: str | None = None,
    name: str | None = None,
    helpers: Sequence[Callable[..., Any]] = (),
    batch: bool = False,
    lane: str | None = None,
) -> Callable[[Callable[..., Any]], Node[Any]]: ...


def node(
    function: Callable[..., Any] | None = None,
    /,
    *,
    version: str | None = None,
    name: str | None = None,
    helpers: Sequence[Callable[..., Any]] = (),
    batch: bool = False,
    lane: str | None = None,
) -> Any:
    """Make a function a step whose results are kept.

    Args:
        function: the step; sync or async. With `batch`, a generator function: it is given a list
            of inputs and yields `(index, value)` for each as soon as it has it, an exception in
            the value's place where one fails, or None to let others of its lane have a turn.
        version: raise it when the results change. Without it, the function's normalised source is
            its version, together with that of the `helpers`.
        name: what it is known by; by default module and qualified name.
        helpers: functions that it calls and whose source counts as its own; without `version`.
        batch: whether it takes its misses together.
        lane: steps of one lane share one thread and take turns.

    Raises:
        InputError: the function cannot be a node.
    """

    def wrap(function: Callable[..., Any]) -> Node[Any]:
        return Node(function, version=version, name=name, helpers=helpers, batch=batch, lane=lane)

    return wrap if function is None else wrap(function)
