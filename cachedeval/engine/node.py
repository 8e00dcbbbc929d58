"""Nodes: `@node` makes a function a step, and calling it describes one call of the step."""

import types
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, Generic, Literal, Protocol, TypeVar, overload

from cachedeval.engine.call import Call
from cachedeval.engine.captured import captured
from cachedeval.engine.computed import Computed
from cachedeval.engine.encoding import encode
from cachedeval.engine.errors import InputError
from cachedeval.engine.recipe import OUTSIDE, RecipeHead
from cachedeval.engine.record import write_notes
from cachedeval.engine.signature import Signature, signature_of
from cachedeval.engine.source import (
    code_fingerprint,
    drifted,
    remember_source,
    source_fingerprint,
)
from cachedeval.engine.values import Codec

__all__ = ["Call", "Computed", "Node", "node"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


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


class Node(Generic[R_co]):
    """A step: a function with a name and a version. Made by `node`.

    Attributes:
        name: module and qualified name of the function, unless given.
        version: as declared, or None where the source is the version.
        batch: whether it takes its misses together.
        executor: steps that name the same executor share one thread and take turns; None is any
            thread.
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

    Raises:
        InputError: the function cannot be a node.
    """

    def wrap(function: Callable[..., Any]) -> Node[Any]:
        return Node(
            function, version=version, name=name, helpers=helpers, batch=batch, executor=executor
        )

    return wrap if function is None else wrap(function)
