"""How a function's inputs are named, bound and declared, at a fraction of `inspect`'s cost."""

import types
from collections.abc import Callable, Mapping
from typing import Any, Union, get_args, get_origin

from cachedeval.engine.errors import InputError

__all__ = ["Signature", "signature_of"]

_VARARGS = 0x04
_VARKEYWORDS = 0x08
_GENERATOR = 0x20


class Signature:
    """The named inputs of a step.

    Attributes:
        names: the inputs' names, in order.
        returns: the declared type of the output; `Any` where none is declared.
        item: for a batched node, the class that its calls' inputs are given as.
    """

    __slots__ = ("_bind", "_defaults", "_positional", "item", "names", "returns", "title")

    def __init__(
        self,
        title: str,
        names: tuple[str, ...],
        positional: int,
        defaults: Mapping[str, Any],
        returns: Any,
        *,
        item: type | None = None,
        bind: Callable[..., Any] | None = None,
    ) -> None:
        self.title = title
        self.names = names
        self.returns = returns
        self.item = item
        self._positional = positional
        self._defaults = dict(defaults)
        self._bind = bind

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the inputs by name, defaults filled in.

        Raises:
            TypeError: they do not fit, as if the function had been called with them.
        """
        if self._bind is not None:
            bound = self._bind(*args, **kwargs)
            bound.apply_defaults()
            return dict(bound.arguments)
        if len(args) > self._positional:
            raise TypeError(
                f"{self.title}() takes {self._positional} positional arguments but {len(args)} "
                "were given"
            )
        inputs = self._defaults | dict(zip(self.names, args, strict=False)) | kwargs
        if len(inputs) != len(self.names) or any(
            name in kwargs for name in self.names[: len(args)]
        ):
            self._complain(args, kwargs, inputs)
        return inputs

    def _complain(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: dict[str, Any]
    ) -> None:
        for name in kwargs:
            if name not in self.names:
                raise TypeError(f"{self.title}() got an unexpected keyword argument {name!r}")
            if name in self.names[: len(args)]:
                raise TypeError(f"{self.title}() got multiple values for argument {name!r}")
        missing = [name for name in self.names if name not in inputs]
        raise TypeError(f"{self.title}() is missing the arguments {', '.join(missing)}")


def signature_of(function: types.FunctionType, *, batch: bool) -> Signature:
    """Return the inputs of a function; of a batched node, the fields of what its list holds.

    Raises:
        InputError: a batched node does not declare what its list holds.
    """
    hints = _hints(function, batch=batch)
    if batch:
        return _batch_signature(function, hints)
    code = function.__code__
    returns = hints.get("return", Any)
    if get_origin(returns) is not None and get_args(returns):
        returns = _bare(returns)
    elif isinstance(returns, type) and returns.__name__ == "Computed":
        returns = Any
    if code.co_flags & (_VARARGS | _VARKEYWORDS) or code.co_posonlyargcount:
        import inspect  # noqa: PLC0415  slow to import, and few nodes need it

        signature = inspect.signature(function)
        names = tuple(signature.parameters)
        return Signature(function.__qualname__, names, len(names), {}, returns, bind=signature.bind)
    count = code.co_argcount
    names = code.co_varnames[: count + code.co_kwonlyargcount]
    values = function.__defaults__ or ()
    defaults = dict(zip(names[count - len(values) : count], values, strict=True))
    defaults |= function.__kwdefaults__ or {}
    return Signature(function.__qualname__, names, count, defaults, returns)


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
    names = _fields(item)
    positional, defaults = len(names), _field_defaults(item)
    returns = Any
    for produced in get_args(hints.get("return"))[:1]:
        for option in (produced, *get_args(produced)):
            if get_origin(option) is tuple:
                returns = _value_type(get_args(option)[1])
    return Signature(title, names, positional, defaults, returns, item=item)


def _fields(item: type) -> tuple[str, ...]:
    if hasattr(item, "__struct_fields__"):
        return tuple(item.__struct_fields__)
    return tuple(item.__dataclass_fields__)  # type: ignore[attr-defined]


def _field_defaults(item: type) -> dict[str, Any]:
    if hasattr(item, "__struct_fields__"):
        names, values = item.__struct_fields__, item.__struct_defaults__  # type: ignore[attr-defined]
        return dict(zip(names[len(names) - len(values) :], values, strict=True))
    import dataclasses  # noqa: PLC0415

    return {
        field.name: field.default
        for field in dataclasses.fields(item)
        if field.default is not dataclasses.MISSING
    }


def _value_type(declared: Any) -> Any:
    """Return the value's type in `Computed[T] | Exception`, or in a plain `T`."""
    union = get_origin(declared) in {types.UnionType, Union}
    options = get_args(declared) if union else (declared,)
    for option in options:
        if not (isinstance(option, type) and issubclass(option, BaseException)):
            return _bare(option)
    return Any
