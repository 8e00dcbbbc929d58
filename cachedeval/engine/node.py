"""What a step may return in place of a bare value."""

import types
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import wraps
from typing import Any, Generic, Literal, Protocol, TypeVar, overload

from cachedeval.engine.closure import captured
from cachedeval.engine.encoding import Output, encode
from cachedeval.engine.errors import EncodingError, InputError
from cachedeval.engine.keys import OUTSIDE, RecipeHead
from cachedeval.engine.record import write_notes
from cachedeval.engine.resource import Resource
from cachedeval.engine.signature import Signature, signature_of
from cachedeval.engine.source import (
    code_fingerprint,
    drifted,
    remember_source,
    source_fingerprint,
)
from cachedeval.engine.values import Codec

__all__ = ["Call", "Computed", "Limiter", "Node", "describe", "node", "recipe_of", "substitute"]


R = TypeVar("R")


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
        self.cost = {unit: float(amount) for unit, amount in (cost or {}).items()}
        self.provenance = dict(provenance or {})


# Calls: a node bound to its inputs, not run yet; and the graph that they are together.


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


# Nodes: `@node` makes a function a step, and calling it describes one call of the step.


def _computed_once(compute: Callable[[Any], R]) -> Any:
    """Make a property that is computed when it is first read.

    Unlike `functools.cached_property` before Python 3.12 it takes no lock, which a forked child
    would find taken for ever. Two threads may both compute it, with equal results.
    """
    slot = f"_{compute.__name__}"

    @wraps(compute)
    def read(node: Any) -> R:
        value = node.__dict__.get(slot, _UNSET)
        if value is _UNSET:
            value = node.__dict__[slot] = compute(node)
        return value  # type: ignore[no-any-return]

    return property(read)


_UNSET: Any = object()


class Limiter(Protocol):
    """Holds steps back: `cachedeval.services.limiter.RateLimiter` is one."""

    def acquire(self) -> AbstractAsyncContextManager[Any]:
        """Return the context in which a step may run; entering it waits.

        Tasks of several event loops may use one limiter.
        """
        ...


class Node(Generic[R_co]):
    """A step: a function with a name and a version. Made by `node`.

    Attributes:
        name: module and qualified name of the function, unless given.
        version: as declared, or None where the source is the version.
        batch: whether it takes its misses together.
        executor: steps that name the same executor share one thread and take turns; None is any
            thread.
        limiter: what holds its steps back; None is nothing.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        version: str | None = None,
        name: str | None = None,
        helpers: Sequence[Callable[..., Any]] = (),
        batch: bool = False,
        executor: str | None = None,
        limiter: Limiter | None = None,
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
        self.executor = executor or (self.name if batch else None)
        self.is_async = bool(function.__code__.co_flags & 0x80)  # CO_COROUTINE
        if batch and self.is_async:
            raise InputError(f"{qualname}: a batched node is a generator function, not async")
        if executor and self.is_async:
            raise InputError(
                f"{qualname}: an async step runs on the event loop; it takes no executor"
            )
        if batch and limiter is not None:
            raise InputError(
                f"{qualname}: a batched node takes no limiter: it computes many at once"
            )
        self.limiter = limiter
        self.is_closed = version is not None and not function.__closure__
        """Whether nothing from around the function is part of its calls' keys."""
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        self.__qualname__ = qualname
        self.__wrapped__ = function
        self._helpers = tuple(getattr(helper, "function", helper) for helper in helpers)
        if version is None:
            # At once, while the source is what was compiled: it may be edited while this runs.
            remember_source(function.__code__)
            self._key_version = source_fingerprint((function, *self._helpers))
        else:
            self._key_version = version
        self._heads: dict[bool, RecipeHead] = {}
        self._fingerprints: dict[str, str] | None = None
        self._compared: dict[tuple[str, str], bool] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> "Call[R_co]":
        """Describe a call of the step with these inputs; nothing runs.

        Raises:
            TypeError: the inputs do not fit the function.
            InputError: the function closes over what cannot be part of a key.
        """
        inputs = self.signature.bind(*args, **kwargs)
        if not self.is_closed and (outside := self._outside()):
            inputs[OUTSIDE] = outside
        return Call(self, inputs)

    def __repr__(self) -> str:
        return f"<node {self.name} {self.version or 'by source'}>"

    @_computed_once
    def signature(self) -> Signature:
        """How its inputs are named."""
        return signature_of(self.function, batch=self.batch)

    @_computed_once
    def codec(self) -> Codec:
        """How its outputs are written and read, by the type that it declares."""
        return Codec(self.signature.returns)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Digests of its code and source, recorded with results to notice that they drifted."""
        if self._fingerprints is None:
            self._fingerprints = {"code": code_fingerprint(self.function)}
            with suppress(InputError):  # code without a source
                self._fingerprints["source"] = source_fingerprint((self.function,))
        return self._fingerprints

    @_computed_once
    def notes(self) -> bytes:
        """The provenance of a result that says nothing about itself."""
        return write_notes(self.fingerprints)

    def drifted(self, provenance: Mapping[str, Any]) -> bool:
        """Say whether its source is another than when a result with this provenance was made."""
        code, source = provenance.get("code"), provenance.get("source")
        # Another program may have written the record, with anything in it.
        then = code if isinstance(code, str) else "", source if isinstance(source, str) else ""
        if then not in self._compared:
            self._compared[then] = drifted(self.function, *then)
        return self._compared[then]

    def changed_outside(self, inputs: Mapping[str, Any]) -> str | None:
        """Return a name from around the function that changed since a call was made, if any."""
        if self.is_closed:
            return None
        then = inputs.get(OUTSIDE, {})
        now = self._outside()
        name: str
        for name in sorted({*then, *now}):
            if encode((name in then, then.get(name))) != encode((name in now, now.get(name))):
                return name
        return None

    def recipe(self, inputs: Mapping[str, Any]) -> bytes:
        """Return the recipe of a call, given inputs with calls and resources replaced."""
        outside = OUTSIDE in inputs
        head = self._heads.get(outside)
        if head is None:
            names = (*self.signature.names, OUTSIDE) if outside else self.signature.names
            head = self._heads[outside] = RecipeHead(self.name, self._key_version, names)
        return head.recipe(inputs)

    def _outside(self) -> dict[str, Any]:
        return captured(self.function, versioned=self.version is not None)


class _Decorator(Protocol):
    """Makes a node of what is returned: a value, one that is awaited, or one in a `Computed`."""

    @overload
    def __call__(self, f: Callable[..., Coroutine[Any, Any, Computed[R]]], /) -> Node[R]: ...

    @overload
    def __call__(self, f: Callable[..., Coroutine[Any, Any, R]], /) -> Node[R]: ...

    @overload
    def __call__(self, f: Callable[..., Computed[R]], /) -> Node[R]: ...

    @overload
    def __call__(self, f: Callable[..., R], /) -> Node[R]: ...


@overload
def node(f: Callable[..., Coroutine[Any, Any, Computed[R]]], /) -> Node[R]: ...


@overload
def node(f: Callable[..., Coroutine[Any, Any, R]], /) -> Node[R]: ...


@overload
def node(f: Callable[..., Computed[R]], /) -> Node[R]: ...


@overload
def node(f: Callable[..., R], /) -> Node[R]: ...


@overload
def node(
    *,
    batch: Literal[True],
    version: str | None = None,
    name: str | None = None,
    helpers: Sequence[Callable[..., Any]] = (),
    executor: str | None = None,
) -> Callable[[Callable[..., Iterator[Any]]], Node[Any]]: ...


@overload
def node(
    *,
    version: str | None = None,
    name: str | None = None,
    helpers: Sequence[Callable[..., Any]] = (),
    batch: Literal[False] = False,
    executor: str | None = None,
    limiter: Limiter | None = None,
) -> _Decorator: ...


def node(
    function: Callable[..., Any] | None = None,
    /,
    *,
    version: str | None = None,
    name: str | None = None,
    helpers: Sequence[Callable[..., Any]] = (),
    batch: bool = False,
    executor: str | None = None,
    limiter: Limiter | None = None,
) -> Any:
    """Make a function a step whose results are kept.

    Args:
        function: the step; sync or async. With `batch`, a generator function: it is given a list
            of inputs and yields `(index, value)` for each as soon as it has it, an exception in
            the value's place where one fails, or None to let others of its executor have a turn.
        version: raise it when the results change. Without it, the function's normalised source is
            its version, together with that of the `helpers`; and the functions and plain data of
            its own module that it reads count as inputs.
        name: what it is known by; by default module and qualified name.
        helpers: functions of other modules whose source counts as its own; without `version`.
        batch: whether it takes its misses together.
        executor: steps that name the same executor share one thread and take turns.
        limiter: holds steps back that would go over a rate; a hit does not pass it.

    Raises:
        InputError: the function cannot be a node.
    """

    def wrap(function: Callable[..., Any]) -> Node[Any]:
        return Node(
            function,
            version=version,
            name=name,
            helpers=helpers,
            batch=batch,
            executor=executor,
            limiter=limiter,
        )

    return wrap if function is None else wrap(function)
