"""How a function's inputs are named, bound and declared, at a fraction of `inspect`'s cost."""

import types
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from cachedeval.engine.errors import InputError
from cachedeval.engine.forks import importing

if TYPE_CHECKING:
    import inspect

__all__ = ["Signature", "signature_of"]

_VARARGS = 0x04
_VARKEYWORDS = 0x08
_GENERATOR = 0x20
_GENERATORS = 0x20 | 0x200  # async ones too

_MAKE: Any = object()
"""Stands for a default that is made at each call."""


class Signature:
    """The named inputs of a step.

    Attributes:
        names: the inputs' names, in order.
        returns: the declared type of the output; `Any` where none is declared.
        item: for a batched node, the class that its calls' inputs are given as.
        bind: called as the step is, returns the inputs by name, defaults filled in; raises
            `TypeError` where they do not fit.
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
        """Call the function with inputs as `bind` names them."""
        if self._variadic is None:
            return function(**inputs)
        from inspect import BoundArguments  # noqa: PLC0415  imported already, to bind

        bound = BoundArguments(self._variadic, dict(inputs))
        return function(*bound.args, **bound.kwargs)


def _binder(
    title: str, names: Sequence[str], positional: int, defaults: Mapping[str, Any]
) -> Callable[..., dict[str, Any]]:
    """Return a function of these parameters that returns them: the interpreter binds fastest.

    Args:
        title: what it is called in a `TypeError`.
        names: the parameters' names.
        positional: how many of them may be given by position, from the first on.
        defaults: of those that have one.
    """
    by_name = ("*", *names[positional:]) if positional < len(names) else ()
    parameters = ", ".join((*names[:positional], *by_name))
    items = ", ".join(f"{name!r}: {name}" for name in names)
    # Names of parameters and of fields are identifiers; nothing else is in this text.
    bind: types.FunctionType = eval(f"lambda {parameters}: {{{items}}}", {})  # noqa: S307
    bind.__qualname__ = title
    bind.__defaults__ = tuple(defaults[name] for name in names[:positional] if name in defaults)
    bind.__kwdefaults__ = {name: defaults[name] for name in names[positional:] if name in defaults}
    return bind


def signature_of(function: types.FunctionType, *, batch: bool) -> Signature:
    """Return the inputs of a function; of a batched node, the fields of what its list holds.

    Raises:
        InputError: a batched node does not declare what its list holds.
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
    elif isinstance(returns, type) and returns.__name__ == "Computed":
        returns = Any
    if code.co_flags & (_VARARGS | _VARKEYWORDS) or code.co_posonlyargcount:
        import inspect  # noqa: PLC0415  slow to import, and few nodes need it

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
    """Return the annotations that matter: the return's, and a batched node's first input's."""
    first = function.__code__.co_varnames[:1] if batch else ()
    wanted = {
        name: hint for name, hint in function.__annotations__.items() if name in {"return", *first}
    }
    if not any(isinstance(hint, str) for hint in wanted.values()):
        return wanted
    import typing  # noqa: PLC0415

    holder = types.SimpleNamespace(__annotations__=wanted)
    try:
        return typing.get_type_hints(holder, globalns=function.__globals__)
    except NameError as error:
        raise InputError(
            f"{function.__qualname__}: an annotation cannot be read ({error}); a node's types must "
            "be importable where it is defined"
        ) from None


def _bare(returns: Any) -> Any:
    """Return the value's type of `Computed[T]`; any other type as it is."""
    origin = get_origin(returns)
    if isinstance(origin, type) and origin.__name__ == "Computed":
        return get_args(returns)[0]
    return returns


def _batch_signature(function: types.FunctionType, hints: dict[str, Any]) -> Signature:
    """Read `def f(batch: Sequence[Item]) -> Iterator[tuple[int, Value] | None]`."""
    title = function.__qualname__
    first = function.__code__.co_varnames[0] if function.__code__.co_argcount else ""
    declared = get_args(hints.get(first))
    item = declared[0] if declared else None
    if not isinstance(item, type) or not (
        hasattr(item, "__dataclass_fields__") or hasattr(item, "__struct_fields__")
    ):
        raise InputError(
            f"{title}: a batched node declares what it is given, as in "
            f"def {function.__name__}(batch: Sequence[Item]), Item being a dataclass or a struct"
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
            import dataclasses  # noqa: PLC0415  slow to import, and our own items are structs

        fields = [field for field in dataclasses.fields(item) if field.init]
        fields.sort(key=lambda field: field.kw_only)
        positional = sum(not field.kw_only for field in fields)
        absent: Any = dataclasses.MISSING
    else:
        from msgspec import NODEFAULT, structs  # noqa: PLC0415

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
    """Return the binder that makes anew, at each call, the defaults that are made."""

    def bind_and_make(*args: Any, **kwargs: Any) -> dict[str, Any]:
        inputs = bind(*args, **kwargs)
        for name, make in made.items():
            if inputs[name] is _MAKE:
                inputs[name] = make()
        return inputs

    return bind_and_make


def _value_type(declared: Any) -> Any:
    """Return the value's type in `Computed[T] | Exception`, or in a plain `T`."""
    kept = [
        _bare(option)
        for option in _options(declared)
        if not (isinstance(option, type) and issubclass(option, BaseException))
    ]
    return Union[tuple(kept)] if kept else Any  # noqa: UP007  of a list, there is no other way


def _options(declared: Any) -> tuple[Any, ...]:
    union = get_origin(declared) in {types.UnionType, Union}
    return get_args(declared) if union else (declared,)
