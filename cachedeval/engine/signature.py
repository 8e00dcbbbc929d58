"""Signatures: the names, defaults and declared types of a step's inputs and output.

Binding uses a generated function with the same parameters: the interpreter binds 17 times faster
than `inspect.Signature.bind`.

A plain function is read from its code object. `inspect` gives the same, but a run of hits makes
calls too, and importing `inspect` takes a tenth of it. Functions with variadic or positional-only
parameters are read and bound by `inspect`.
"""

# Lazy imports: a run of hits on nodes with plain functions and structs needs neither `inspect` nor
# `dataclasses`, and both are slow to import.

import types
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

from msgspec import NODEFAULT, structs

from cachedeval.engine.errors import InputError
from cachedeval.engine.process import importing

if TYPE_CHECKING:
    import inspect

__all__ = ["Signature", "signature_of"]

_VARARGS = 0x04
_VARKEYWORDS = 0x08
_GENERATOR = 0x20
_GENERATORS = 0x20 | 0x200  # async ones too

_MAKE: Any = object()
"""The placeholder of a default that a factory creates at each call."""


class Signature:
    """The inputs and the output type of a step.

    Attributes:
        names: the names of the inputs, in order.
        returns: the declared type of the output; `Any` if none is declared.
        item: for a batched node, the class that holds the inputs of one call.
        bind: takes the arguments of the step and returns the inputs by name, with defaults; raises
            `TypeError` if they do not match the parameters.
    """

    __slots__ = ("_variadic", "bind", "item", "names", "returns")

    def __init__(
        self,
        names: tuple[str, ...],
        returns: Any,
        bind: Callable[..., dict[str, Any]],
        *,
        item: type | None = None,
        variadic: "inspect.Signature | None" = None,
    ) -> None:
        self.names = names
        self.returns = returns
        self.bind = bind
        self.item = item
        self._variadic = variadic

    def call(self, function: Callable[..., Any], inputs: Mapping[str, Any]) -> Any:
        """Call the function with inputs as `bind` returns them."""
        if self._variadic is None:
            return function(**inputs)
        from inspect import BoundArguments

        bound = BoundArguments(self._variadic, dict(inputs))
        return function(*bound.args, **bound.kwargs)


def _binder(
    title: str, names: Sequence[str], positional: int, defaults: Mapping[str, Any]
) -> Callable[..., dict[str, Any]]:
    """Return a function with these parameters that returns its arguments by name.

    Args:
        title: the name of the function in a `TypeError`.
        names: the names of the parameters.
        positional: how many of them, from the first on, may be passed by position.
        defaults: the defaults, by name.
    """
    by_name = ("*", *names[positional:]) if positional < len(names) else ()
    parameters = ", ".join((*names[:positional], *by_name))
    items = ", ".join(f"{name!r}: {name}" for name in names)
    # The text contains only names of parameters or fields, which are identifiers.
    bind: types.FunctionType = eval(f"lambda {parameters}: {{{items}}}", {})  # noqa: S307
    bind.__qualname__ = title
    bind.__defaults__ = tuple(defaults[name] for name in names[:positional] if name in defaults)
    bind.__kwdefaults__ = {name: defaults[name] for name in names[positional:] if name in defaults}
    return bind


def signature_of(function: types.FunctionType, *, batch: bool) -> Signature:
    """Return the signature of a function; for a batched node, the fields of its item class.

    Raises:
        InputError: a batched node does not declare its item class, a plain node is a generator, or
            an annotation cannot be resolved.
    """
    hints = _hints(function, batch=batch)
    if batch:
        return _batch_signature(function, hints)
    code = function.__code__
    if code.co_flags & _GENERATORS:
        raise InputError(
            f"{function.__qualname__}: a generator cannot be stored: return a list, or yield "
            "(index, value) for each call of a batched node, @node(batch=True)"
        )
    returns = hints.get("return", Any)
    if get_origin(returns) is not None and get_args(returns):
        returns = _bare(returns)
    elif _is_computed(returns):
        returns = Any
    if code.co_flags & (_VARARGS | _VARKEYWORDS) or code.co_posonlyargcount:
        import inspect

        signature = inspect.signature(function)

        def bind(*args: Any, **kwargs: Any) -> dict[str, Any]:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return dict(bound.arguments)

        return Signature(tuple(signature.parameters), returns, bind, variadic=signature)
    count = code.co_argcount
    names = code.co_varnames[: count + code.co_kwonlyargcount]
    values = function.__defaults__ or ()
    defaults = dict(zip(names[count - len(values) : count], values, strict=True))
    defaults |= function.__kwdefaults__ or {}
    return Signature(names, returns, _binder(function.__qualname__, names, count, defaults))


def _hints(function: types.FunctionType, *, batch: bool) -> dict[str, Any]:
    """Return the annotations of the output and, for a batched node, of the first parameter.

    The others are not resolved: they may name types that exist only for type checkers.
    """
    first = function.__code__.co_varnames[:1] if batch else ()
    wanted = {
        name: hint for name, hint in function.__annotations__.items() if name in {"return", *first}
    }
    if not any(isinstance(hint, str) for hint in wanted.values()):
        return wanted
    holder = types.SimpleNamespace(__annotations__=wanted)
    try:
        return get_type_hints(holder, globalns=function.__globals__)
    except NameError as error:
        raise InputError(
            f"{function.__qualname__}: an annotation cannot be read ({error}); import or define "
            "the type in the node's module, outside of `if TYPE_CHECKING`"
        ) from None


def _bare(returns: Any) -> Any:
    """Return `T` for `Computed[T]`, and any other type unchanged."""
    origin = get_origin(returns)
    return get_args(returns)[0] if _is_computed(origin) else returns


def _is_computed(declared: Any) -> bool:
    """Return whether a type is `cachedeval.Computed`, whose module imports this one."""
    path = "cachedeval.engine.node", "Computed"
    return isinstance(declared, type) and (declared.__module__, declared.__qualname__) == path


def _batch_signature(function: types.FunctionType, hints: dict[str, Any]) -> Signature:
    """Return the signature of `def f(batch: Sequence[Item]) -> Iterator[tuple[int, Value] | None]`."""
    title = function.__qualname__
    first = function.__code__.co_varnames[0] if function.__code__.co_argcount else ""
    declared = get_args(hints.get(first))
    item = declared[0] if declared else None
    if not isinstance(item, type) or not (
        hasattr(item, "__dataclass_fields__") or hasattr(item, "__struct_fields__")
    ):
        raise InputError(
            f"{title}: a batched node declares its item class, as in "
            f"def {function.__name__}(batch: Sequence[Item]), where Item is a dataclass or a struct"
        )
    if not function.__code__.co_flags & _GENERATOR:
        raise InputError(f"{title}: a batched node yields (index, value) for each of its calls")
    returns = Any
    for produced in get_args(hints.get("return"))[:1]:
        for option in _options(produced):
            if get_origin(option) is tuple:
                returns = _value_type(get_args(option)[1])
    return _item_signature(title, item, returns)


def _item_signature(title: str, item: type, returns: Any) -> Signature:
    """Return the signature of a dataclass's or a struct's constructor."""
    fields: list[Any]
    if hasattr(item, "__dataclass_fields__"):
        with importing():
            import dataclasses

        fields = [field for field in dataclasses.fields(item) if field.init]
        fields.sort(key=lambda field: field.kw_only)
        positional = sum(not field.kw_only for field in fields)
        absent: Any = dataclasses.MISSING
    else:
        fields = list(structs.fields(item))
        positional = len(item.__match_args__)  # type: ignore[attr-defined]  # structs have it
        absent = NODEFAULT
    names = tuple(field.name for field in fields)
    defaults = {field.name: field.default for field in fields if field.default is not absent}
    made = {f.name: f.default_factory for f in fields if f.default_factory is not absent}
    bind = _binder(title, names, positional, defaults | dict.fromkeys(made, _MAKE))
    return Signature(names, returns, _making(bind, made) if made else bind, item=item)


def _making(
    bind: Callable[..., dict[str, Any]], made: Mapping[str, Callable[[], Any]]
) -> Callable[..., dict[str, Any]]:
    """Return a binder that calls the default factories at each call."""

    def bind_and_make(*args: Any, **kwargs: Any) -> dict[str, Any]:
        inputs = bind(*args, **kwargs)
        for name, make in made.items():
            if inputs[name] is _MAKE:
                inputs[name] = make()
        return inputs

    return bind_and_make


def _value_type(declared: Any) -> Any:
    """Return `T` for `Computed[T] | Exception` and for a plain `T`."""
    kept = [
        _bare(option)
        for option in _options(declared)
        if not (isinstance(option, type) and issubclass(option, BaseException))
    ]
    return Union[tuple(kept)] if kept else Any  # noqa: UP007  the members are in a list


def _options(declared: Any) -> tuple[Any, ...]:
    union = get_origin(declared) in {types.UnionType, Union}
    return get_args(declared) if union else (declared,)
