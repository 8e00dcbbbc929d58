"""Nodes and calls: `@node` makes a function a step, and calling it describes one call of the step.

A `Node` is a function with a name and a version. A `Call` is a node bound to its inputs, not run
yet. The inputs of a call may be other calls: together they are a graph. A step may return its
output in a `Computed`, which adds its cost and provenance.
"""

import time
import types
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import wraps
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypeVar,
    get_args,
    overload,
)

from cachedeval.engine.closure import Closure, Step
from cachedeval.engine.encoding import Output, encode
from cachedeval.engine.errors import EncodingError, InputError
from cachedeval.engine.identity import (
    Standing,
    named,
    refuse_method,
    register,
    rival_of,
    standing_of,
)
from cachedeval.engine.keys import CLOSURE, RecipeHead
from cachedeval.engine.origin import place_of
from cachedeval.engine.record import TAGS, Record, write_notes
from cachedeval.engine.resource import Resource
from cachedeval.engine.settings import (
    checked_concurrency,
    checked_kinds,
    checked_retry,
    checked_tags,
    refuse_settings,
    seconds_of,
)
from cachedeval.engine.show import SECRET, add_note, is_secret, show
from cachedeval.engine.signature import Signature, signature_of
from cachedeval.engine.source import code_fingerprint, remember_source, source_fingerprint
from cachedeval.engine.unrun import Unrun
from cachedeval.engine.values import SIMPLE, Codec

if TYPE_CHECKING:
    from datetime import timedelta

    # To type checkers, a class derived from `Any` fits everywhere: a call may stand for its value,
    # so that `double(double(3))` checks, and `double("x")` does not. `list[Call[int]]` is still
    # no `list[int]`, but it is a `Sequence[int]`.
    from typing import Any as Value

    from typing_extensions import ParamSpec as ParamSpecWithDefault
    from typing_extensions import TypeVar as TypeVarWithDefault

    from cachedeval.engine.retry import RetryPolicy

    P_any = ParamSpecWithDefault("P_any", default=...)
    F_co = TypeVarWithDefault("F_co", covariant=True, default=Any)
else:
    Value = Unrun
    P_any = ParamSpec("P_any")
    F_co = TypeVar("F_co", covariant=True)

__all__ = [
    "Bound",
    "Call",
    "Computed",
    "Limiter",
    "Node",
    "describe",
    "node",
    "recipe_of",
    "substitute",
]


P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_ATOMS = frozenset({str, int, float, bool, bytes, type(None)})
"""The types of most inputs; their values contain neither calls nor resources."""

_SHOWN = 3
"""How many inputs a call's description shows."""

_WIDTH = 40
"""How many characters of an input it shows."""

_LONGEST_NAME = 200

_UNSET: Any = object()


class Computed(Generic[R]):
    """The output of a step with its cost and provenance.

    Args:
        value: the output.
        cost: what the step cost, in the node's own units.
        provenance: facts about the result that are not part of the output; plain data.
        inputs: inputs that the step used in place of the given ones, by name; plain data. The
            result is stored for a call with these inputs, not for this one.

    Example:
        >>> from cachedeval import Computed, Engine, node
        >>> @node(version="1", name="shout")
        ... def shout(text: str) -> Computed[str]:
        ...     return Computed(text.upper(), cost={"letters": len(text)})
        >>> with Engine() as engine:
        ...     engine.run(shout("hello"))
        ...     engine.stats["shout"].cost
        'HELLO'
        {'letters': 5.0}
    """

    __slots__ = ("cost", "inputs", "provenance", "value")

    def __init__(
        self,
        value: R,
        *,
        cost: Mapping[str, float] | None = None,
        provenance: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Any] | None = None,
    ) -> None:
        self.value = value
        self.inputs = dict(inputs or {})
        self.cost = {unit: float(amount) for unit, amount in (cost or {}).items()}
        self.provenance = dict(provenance or {})


# Calls.


class Call(Value, Generic[R_co]):  # type: ignore[misc]  # its base is Any, on purpose
    """A node bound to its inputs, not run yet.

    It has no value before it runs: `call + 1`, `if call:` or `f"{call}"` raise an error. Two calls
    are equal if they are the same object.

    Attributes:
        node: the node.
        inputs: the inputs by name, with defaults.
        plain: whether the inputs contain neither calls nor resources.
        frozen: whether no input can change: all are atoms, calls or resources.
        upstream: the calls among the inputs.
        depth: 0 without upstream calls, else one more than that of the deepest one.

    Raises:
        EncodingError: an input contains itself.

    Example:
        >>> from cachedeval import node
        >>> @node(version="1", name="add")
        ... def add(x: int, y: int = 1) -> int:
        ...     return x + y
        >>> call = add(add(1))
        >>> call, call.inputs, call.depth
        (<call of add>, {'x': <call of add>, 'y': 1}, 1)
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
    """Append the calls inside a value to a list; return whether it contains calls or resources."""
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

    Lists, dicts and sets are copied, so the receiver may change them.

    Args:
        value: an input of a call.
        call: returns the replacement of a call.
        resource: returns the replacement of a resource.
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


def _mentions_calls(declared: Any) -> bool:
    """Return whether a declared type is a call, or has one in it."""
    if declared is Call or getattr(declared, "__origin__", None) is Call:
        return True
    return any(map(_mentions_calls, getattr(declared, "__args__", ())))


def recipe_of(call: Call[Any], digest: Callable[[Call[Any]], str]) -> bytes:
    """Return a call's recipe, given the digests of its upstream calls' outputs.

    Raises:
        EncodingError: an input has no canonical encoding; its note names the call.
    """
    inputs = call.inputs
    try:
        if not call.plain:
            inputs = {
                name: value if type(value) in _ATOMS else _as_known(value, digest)
                for name, value in inputs.items()
            }
        return call.node.recipe(inputs)
    except EncodingError as error:
        add_note(error, describe(call))
        raise


def _as_known(value: Any, digest: Callable[[Call[Any]], str]) -> Any:
    """Return the value as a recipe holds it: calls by their outputs' digests, resources by theirs."""
    kind = type(value)
    if kind is Call:
        return Output(digest(value))
    if kind is list or kind is tuple:  # a fast path: it may hold thousands of calls
        return kind([Output(digest(m)) if type(m) is Call else _as_known(m, digest) for m in value])
    if kind in _ATOMS:
        return value
    return substitute(value, lambda c: Output(digest(c)), lambda r: r.identified)


def describe(call: Call[Any]) -> str:
    """Return a short description of a call for messages, as in `add(x=1, y=2)`.

    Its length is bounded, and it contains no secrets.
    """
    shown = []
    names = call.node.signature.names
    for name in names[:_SHOWN]:
        text = SECRET if is_secret(name) else show(call.inputs.get(name), _WIDTH)
        shown.append(f"{name}={text}")
    more = ", …" if len(names) > _SHOWN else ""
    return f"{call.node.name[:_LONGEST_NAME]}({', '.join(shown)}{more})"


# Nodes.


def _computed_once(compute: Callable[[Any], R]) -> Any:
    """Make a property that is computed when it is first read.

    Before Python 3.12, `functools.cached_property` takes a lock, which a thread of the parent may
    hold for ever in a forked child. Here, two threads may both compute the value; the results are
    equal.
    """
    slot = f"_{compute.__name__}"

    @wraps(compute)
    def read(node: Any) -> R:
        value = node.__dict__.get(slot, _UNSET)
        if value is _UNSET:
            value = node.__dict__[slot] = compute(node)
        return value  # type: ignore[no-any-return]

    return property(read)


class Limiter(Protocol):
    """Delays steps, for example to keep a rate. `RateLimiter` of the judging services is one.

    Example:
        >>> from contextlib import asynccontextmanager
        >>> from cachedeval import Engine, node
        >>> class CountingLimiter:
        ...     passed = 0
        ...
        ...     @asynccontextmanager
        ...     async def acquire(self):
        ...         self.passed += 1
        ...         yield
        >>> limiter = CountingLimiter()
        >>> @node(version="1", name="ask", limiter=limiter)
        ... def ask(question: str) -> str:
        ...     return question.upper()
        >>> with Engine() as engine:
        ...     engine.run([ask("a"), ask("a"), ask("b")])
        ['A', 'A', 'B']
        >>> limiter.passed
        2
    """

    def acquire(self) -> AbstractAsyncContextManager[Any]:
        """Return the context in which a step may run; entering it waits.

        Tasks of several event loops may use one limiter.
        """
        ...


class Bound(NamedTuple):
    """An input that only bounds the output, such as the most tokens of an answer.

    It is no part of the key. One result is stored for all bounds, the longest that was computed, and
    `within` returns the output for each. So every call has the output, and the digest of the output,
    that a step with its own bound would give.

    Attributes:
        name: the name of the input; its values are hashable.
        within: takes a stored output and a bound, and returns the output for that bound: the same
            object if it is the whole, or None if the stored output ends too early. Then the step
            runs, and its result replaces the stored one.

    Example:
        >>> from cachedeval import Bound, Engine, node
        >>> def first(digits: str, count: int) -> str | None:
        ...     return digits[:count] if len(digits) >= count else None
        >>> @node(version="1", name="digits", bound=Bound("count", first))
        ... def digits(count: int) -> str:
        ...     return "31415926"[:count]
        >>> with Engine() as engine:
        ...     engine.run([digits(6)]), engine.run([digits(4)]), engine.stats["digits"].computed
        (['314159'], ['3141'], 1)
    """

    name: str
    within: Callable[[Any, Any], Any]


class Node(Step, Generic[R_co, P_any, F_co]):
    """A step: a function with a name and a version. Use the decorator `node` to make one.

    For type checkers, `Node[R, P, F]` takes the arguments `P`, and its calls have values of type
    `R`. `F` is what the plain function returns: `R`, a coroutine, or a `Computed[R]`. `Node[R]`
    takes any arguments.

    Attributes:
        name: module and qualified name of the function, or the name given.
        version: the declared version, or None if the source is the version.
        batch: whether the function takes all misses together.
        executor: nodes with the same executor share one thread and take turns; None is any thread.
        limiter: delays the steps; None means no limit.
        bound: the input that only bounds the output, or None.
        tags: labels that are stored with each result, sorted.
        concurrency: how many of its steps an engine runs at once; None means no limit.
        timeout: seconds for one attempt of a step; None means no limit.
        retry: how often a step is tried, or the policy; None means once.
        retry_on: the exceptions after which it is tried again.
        ttl: seconds after which a result counts as a miss; None means never.
        is_guarded: whether steps need a limiter, a time limit or retries.

    Example:
        >>> from cachedeval import node
        >>> @node(version="1", name="double")
        ... def double(x: int) -> int:
        ...     return 2 * x
        >>> double, double(4), double.call(4)
        (<node double 1>, <call of double>, 8)
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
        bound: Bound | None = None,
        tags: Iterable[str] = (),
        concurrency: int | None = None,
        timeout: "float | timedelta | None" = None,
        retry: "int | RetryPolicy | None" = None,
        retry_on: type[Exception] | tuple[type[Exception], ...] = Exception,
        ttl: "float | timedelta | None" = None,
    ) -> None:
        qualname = getattr(function, "__qualname__", "")
        if not isinstance(function, types.FunctionType):
            wrapper = isinstance(function, (staticmethod, classmethod, property))
            where = "below @staticmethod, next to the def statement" if wrapper else "above a def"
            raise InputError(
                f"a node is made of a function, not of a {type(function).__qualname__}: write "
                f"@node {where}{'' if wrapper else ' statement'}"
            )
        if function.__name__ == "<lambda>":
            raise InputError(
                "a lambda has no name for its records: use a def statement with @node above it"
            )
        if version is not None and not isinstance(version, str):
            raise InputError(f'{qualname}: a version is a string, as in @node(version="1")')
        refuse_method(function)
        super().__init__(function, name or named(function), version)
        self.batch = batch
        self.executor = executor or (self.name if batch else None)
        self.is_async = bool(function.__code__.co_flags & 0x80)  # CO_COROUTINE
        if batch and self.is_async:
            raise InputError(f"{qualname}: a batched node is a generator function, not async def")
        if executor and self.is_async:
            raise InputError(
                f"{qualname}: an async step runs on the event loop and takes no executor: remove it"
            )
        self.concurrency = checked_concurrency(qualname, concurrency)
        self.timeout = seconds_of(qualname, "timeout", timeout)
        self.retry = checked_retry(qualname, retry)
        self.retry_on = checked_kinds(qualname, retry_on)
        self.ttl = seconds_of(qualname, "ttl", ttl)
        self.limiter = limiter
        self.bound = bound
        self.tags = checked_tags(qualname, tags)
        refuse_settings(
            qualname,
            {"limiter": limiter, "concurrency": concurrency, "timeout": timeout, "retry": retry},
            batch=batch,
            serial=executor is not None,
        )
        self.is_guarded = not (limiter is None and self.timeout is None and self.retry is None)
        self.is_closed = version is not None and not function.__closure__
        """Whether the closure of the function is no part of its calls' keys."""
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        self.__qualname__ = qualname
        self.__wrapped__ = function
        helpers = tuple(getattr(helper, "function", helper) for helper in helpers)
        if version is None:
            # Read the source now, before somebody edits the file while the program runs.
            remember_source(function.__code__)
            self._key_version = source_fingerprint((function, *helpers))
        else:
            self._key_version = version
            helpers = ()
        self._helpers = helpers
        self._heads: dict[bool, RecipeHead] = {}
        self._fingerprints: dict[str, str] | None = None
        self._standings: dict[tuple[str, str, str], Standing] = {}
        self.own_notes = b""  # the provenance of the result last found to be of this function
        self._classes: dict[type, Closure] = {}
        if function.__annotations__.get("return") not in SIMPLE:
            self._refuse_unstorable()
        register(self)

    def __set_name__(self, owner: type, name: str) -> None:
        """Refuse to be a method of a class."""
        refuse_method(self.function, owner)

    def _refuse_unstorable(self) -> None:
        """Raise an error if no value of the declared type can be stored."""
        try:
            _ = self.codec
        except EncodingError as error:
            raise EncodingError(f"{self.name} returns what cannot be stored: {error}") from None
        except Exception:  # noqa: BLE001, S110  a name that is defined later; else the first call raises
            pass

    def __call__(self, *args: P_any.args, **kwargs: P_any.kwargs) -> "Call[R_co]":
        """Return a call of the node with these inputs; runs nothing.

        Raises:
            TypeError: the inputs do not match the function's parameters.
            InputError: the node has no version, and depends on something that cannot be part of a
                key.
        """
        inputs = self.signature.bind(*args, **kwargs)
        if not self.is_closed and (outside := self._outside(inputs)):
            inputs[CLOSURE] = outside
        return Call(self, inputs)

    def call(self, *args: P_any.args, **kwargs: P_any.kwargs) -> F_co:
        """Call the plain function, without a cache and without an engine.

        What the function returns comes back as it is: a coroutine from an async function, a
        `Computed` from one that returns it, the generator of a batched node.
        """
        return self.function(*args, **kwargs)  # type: ignore[no-any-return]

    if not TYPE_CHECKING:  # `Node[int]` is short for `Node[int, ..., Any]`

        def __class_getitem__(cls, parameters: Any) -> types.GenericAlias:
            return types.GenericAlias(cls, parameters)

    def __repr__(self) -> str:
        return f"<node {self.name} {self.version or 'by source'}>"

    @_computed_once
    def signature(self) -> Signature:
        """The names of the inputs, and the declared type of the output."""
        return signature_of(self.function, batch=self.batch)

    @_computed_once
    def codec(self) -> Codec:
        """The codec of the declared type of the output; of any type if it declares calls."""
        declared = self.signature.returns
        return Codec(Any if _mentions_calls(declared) else declared)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Digests of the function's code and source, and its file, stored to detect changes."""
        if self._fingerprints is None:
            self._fingerprints = {
                "code": code_fingerprint(self.function),
                "file": place_of(self.function),
            }
            with suppress(InputError):  # the code has no source file
                self._fingerprints["source"] = source_fingerprint((self.function,))
        return self._fingerprints

    @_computed_once
    def notes(self) -> bytes:
        """The encoded provenance of a result without provenance of its own."""
        return write_notes(self.provenance({}))

    def provenance(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return the provenance that is stored with a result, which may have some of its own."""
        noted: dict[str, Any] = {**self.fingerprints, **own}
        if self.tags:  # those without tags keep the records that they had
            noted[TAGS] = list(self.tags)
        return noted

    def drifted(self, provenance: Mapping[str, Any]) -> bool:
        """Return whether the source has changed since a result with this provenance was stored."""
        return self._standing(provenance) != "same"

    def disowns(self, record: Record) -> str | None:
        """Return why a record is not of this function, but of another of its name; else None."""
        if self.version is None or record.notes == self.own_notes:
            self.own_notes = record.notes
            return None
        provenance = record.provenance
        standing = self._standing(provenance)
        if standing == "same" or (standing == "edited" and self.rival(record) is None):
            self.own_notes = record.notes
            return None
        return (
            f"another function of this name and version computed it, in {provenance.get('file')}: "
            "give one of the two a name of its own, @node(name=…)"
        )

    def rival(self, record: Record) -> InputError | None:
        """Return the error of a record that another live node of this name computed, or None."""
        return rival_of(self, str(record.provenance.get("code")))

    def _standing(self, provenance: Mapping[str, Any]) -> Standing:
        # Another program may have written the record, so the values may be of any type.
        found = [provenance.get(name) for name in ("code", "source", "file")]
        code, source, file = (value if isinstance(value, str) else "" for value in found)
        standing = self._standings.get((code, source, file))
        if standing is None:
            standing = standing_of(self.function, code, source, file)
            self._standings[code, source, file] = standing
        return standing

    def expired(self, created: float) -> bool:
        """Return whether a result that was stored at a time, in seconds, is too old by now."""
        return self.ttl is not None and not time.time() - created <= self.ttl

    def changed_closure(self, inputs: Mapping[str, Any]) -> str | None:
        """Return the name of a closure value that has changed since a call was made, or None."""
        if self.is_closed:
            return None
        then = inputs.get(CLOSURE, {})
        now = self._outside(inputs)
        if now is then:
            return None
        name: str
        for name in sorted({*then, *now}):
            if encode((name in then, then.get(name))) != encode((name in now, now.get(name))):
                return name
        return None

    def recipe(self, inputs: Mapping[str, Any]) -> bytes:
        """Return the recipe of a call.

        Args:
            inputs: the inputs by name, with calls and resources replaced.

        Raises:
            EncodingError: an input has no canonical encoding.
        """
        outside = CLOSURE in inputs
        head = self._heads.get(outside)
        if head is None or self.replaced:
            if self.replaced:
                raise EncodingError(
                    f"{self.name} was defined again, with other source and the same version: make "
                    "the call with the new definition, or give it another version"
                )
            names = (*self.signature.names, CLOSURE) if outside else self.signature.names
            if self.bound is not None:
                names = tuple(name for name in names if name != self.bound.name)
            head = self._heads[outside] = RecipeHead(self.name, self._key_version, names)
        return head.recipe(inputs)

    @_computed_once
    def closure(self) -> Closure:
        """What the function depends on outside of it."""
        item = () if self.signature.item is None else (self.signature.item,)
        roots = (*self._helpers, *item) if self.version is None else ()
        return Closure(self.name, self.function, *roots, versioned=self.version is not None)

    @_computed_once
    def output_classes(self) -> dict[type, None]:
        """The classes in the declared type of the output."""
        found: dict[type, None] = {}
        todo = [self.signature.returns]
        while todo:
            hint = todo.pop()
            todo += get_args(hint)
            if isinstance(hint, type):
                found[hint] = None
        return found

    def _outside(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the closure of a call: without a version, the classes of its inputs count, too."""
        values: dict[str, Any] = self.closure.read()
        if self.version is not None:
            return values
        classes: dict[type, None] = {}
        for name, value in inputs.items():
            if type(value) not in _ATOMS and name != CLOSURE:
                _find_classes(value, classes)
        if classes:
            values = {**values}
        for cls in classes:
            closure = self._classes.get(cls)
            if closure is None:
                closure = self._classes[cls] = Closure(self.name, cls, versioned=False)
            values |= closure.read()
        return values


def _find_classes(value: Any, found: dict[type, None]) -> None:
    """Add the classes of the objects inside an input that code may depend on."""
    kind = type(value)
    if kind is Call:
        found |= value.node.output_classes
    elif kind is dict:
        for key, member in value.items():
            _find_classes(key, found)
            _find_classes(member, found)
    elif kind in {list, tuple, set, frozenset}:
        for member in value:
            _find_classes(member, found)
    elif kind not in _ATOMS and not isinstance(value, Resource):
        from cachedeval.engine.parts import classes_in

        classes_in(value, found)


class _Decorator(Protocol):
    """The type of `node(…)`: the output may be awaited, and may be in a `Computed`."""

    @overload
    def __call__(
        self, f: Callable[P, Coroutine[Any, Any, Computed[R]]], /
    ) -> Node[R, P, Coroutine[Any, Any, Computed[R]]]: ...

    @overload
    def __call__(
        self, f: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Node[R, P, Coroutine[Any, Any, R]]: ...

    @overload
    def __call__(self, f: Callable[P, Computed[R]], /) -> Node[R, P, Computed[R]]: ...

    @overload
    def __call__(self, f: Callable[P, R], /) -> Node[R, P, R]: ...


@overload
def node(
    f: Callable[P, Coroutine[Any, Any, Computed[R]]], /
) -> Node[R, P, Coroutine[Any, Any, Computed[R]]]: ...


@overload
def node(f: Callable[P, Coroutine[Any, Any, R]], /) -> Node[R, P, Coroutine[Any, Any, R]]: ...


@overload
def node(f: Callable[P, Computed[R]], /) -> Node[R, P, Computed[R]]: ...


@overload
def node(f: Callable[P, R], /) -> Node[R, P, R]: ...


@overload
def node(
    *,
    batch: Literal[True],
    version: str | None = None,
    name: str | None = None,
    helpers: Sequence[Callable[..., Any]] = (),
    executor: str | None = None,
    bound: Bound | None = None,
    tags: Iterable[str] = (),
    ttl: "float | timedelta | None" = None,
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
    bound: Bound | None = None,
    tags: Iterable[str] = (),
    concurrency: int | None = None,
    timeout: "float | timedelta | None" = None,
    retry: "int | RetryPolicy | None" = None,
    retry_on: type[Exception] | tuple[type[Exception], ...] = Exception,
    ttl: "float | timedelta | None" = None,
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
    bound: Bound | None = None,
    tags: Iterable[str] = (),
    concurrency: int | None = None,
    timeout: "float | timedelta | None" = None,
    retry: "int | RetryPolicy | None" = None,
    retry_on: type[Exception] | tuple[type[Exception], ...] = Exception,
    ttl: "float | timedelta | None" = None,
) -> Any:
    """Make a function a node, a step whose results are cached.

    Args:
        function: the step; sync or async. With `batch`, a generator function: it takes a list of
            items and yields `(index, value)` for each result as soon as it is known, with an
            exception as the value of an item that failed. It yields None to give other steps of
            its executor a turn.
        version: change it when the results change. Without it, the normalised source of the
            function and its `helpers` is the version, and the functions and plain data of its own
            module that it reads count as inputs.
        name: the node's name in keys and reports; by default module and qualified name.
        helpers: functions of other modules whose source is part of the version; used only without
            `version`.
        batch: whether the function takes all misses together.
        executor: nodes with the same executor share one thread and take turns.
        limiter: delays steps to keep a rate; hits do not use it.
        bound: names the input that only bounds the output; see `Bound`.
        tags: labels by which results are listed and pruned. They are stored with each result, and
            are no part of the key: results that were stored before have the tags of that time.
        concurrency: how many of its steps an engine runs at once, at most. A step that waits for a
            run of its own does not count meanwhile.
        timeout: seconds for one attempt of a step, without the wait for the limiter. An async step
            is cancelled then. A synchronous one cannot be: its call fails, and what it returns
            later is dropped.
        retry: how often a step is tried, or a `RetryPolicy`, if it raises an exception.
        retry_on: the exceptions after which it is tried again; by default all, except those of this
            package.
        ttl: seconds (or a timedelta) after which a stored result counts as a miss. It is judged
            when a result is read, and is no part of the key.

    Returns:
        The node, or a decorator if `function` is None.

    Raises:
        InputError: the function cannot be a node.

    Example:
        >>> from collections.abc import Iterator, Sequence
        >>> from cachedeval import Engine, node
        >>> from msgspec import Struct
        >>> @node(version="1")
        ... async def length(text: str) -> int:
        ...     return len(text)
        >>> class Text(Struct):
        ...     text: str
        >>> @node(version="1", batch=True)
        ... def upper(batch: Sequence[Text]) -> Iterator[tuple[int, str]]:
        ...     for index, item in enumerate(batch):
        ...         yield index, item.text.upper()
        >>> with Engine() as engine:
        ...     engine.run([length(upper("a")), length(upper("bc"))])
        [1, 2]
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
            bound=bound,
            tags=tags,
            concurrency=concurrency,
            timeout=timeout,
            retry=retry,
            retry_on=retry_on,
            ttl=ttl,
        )

    return wrap if function is None else wrap(function)
