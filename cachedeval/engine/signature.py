"""How a function's inputs are named, bound and declared, at a fraction of `inspect`'s cost."""

import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from cachedeval.engine.errors import InputError

if TYPE_CHECKING:
    import inspect

__all__ = ["Signature", "signature_of"]

_VARARGS = 0x04
_VARKEYWORDS = 0x08
_GENERATOR = 0x20
_GENERATORS = 0x20 | 0x200  # async ones too


class Signature:
    """The named inputs of a step.

    Attributes:
        names: the inputs' names, in order.
        returns: the declared type of the output; `Any` where none is declared.
        item: for a batched node, the class that its calls' inputs are given as.
    """

    __slots__ = (
        "_defaults",
        "_factories",
        "_positional",
        "_variadic",
        "_wanted",
        "item",
        "names",
        "returns",
        "title",
    )

    def __init__(
        self,
        title: str,
        names: tuple[str, ...],
        positional: int,
        defaults: Mapping[str, Any],
        returns: Any,
        *,
        item: type | None = None,
        factories: Mapping[str, Callable[[], Any]] | None = None,
        variadic: "inspect.Signature | None" = None,
    ) -> None:
        self.title = title
        self.names = names
        self._wanted = frozenset(names)
        self.returns = returns
        self.item = item
        self._positional = positional
        self._defaults = dict(defaults)
        self._factories = dict(factories or {})
        self._variadic = variadic

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the inputs by name, defaults filled in.

        Raises:
            TypeError: they do not fit, as if the function had been called with them.
        """
        if self._variadic is not None:
            bound = self._variadic.bind(*args, **kwargs)
            bound.apply_defaults()
            return dict(bound.arguments)
        if len(args) > self._positional:
            raise TypeError(
                f"{self.title}() takes {self._positional} positional arguments but {len(args)} "
                "were given"
            )
        inputs = self._defaults | dict(zip(self.names, args, strict=False)) | kwargs
        for name, make in self._factories.items():
            if name not in inputs:
                inputs[name] = make()
        if inputs.keys() != self._wanted or any(name in kwargs for name in self.names[: len(args)]):
            self._complain(args, kwargs, inputs)
        return inputs

    def call(self, function: Callable[..., Any], inputs: Mapping[str, Any]) -> Any:
        """Call the function with inputs as `bind` names them."""
        if self._variadic is None:
            return function(**inputs)
        from inspect import BoundArguments  # noqa: PLC0415  imported already, to bind

        bound = BoundArguments(self._variadic, dict(inputs))
        return function(*bound.args, **bound.kwargs)

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
        names = tuple(signature.parameters)
        return Signature(function.__qualname__, names, len(names), {}, returns, variadic=signature)
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
    returns = Any
    for produced in get_args(hints.get("return"))[:1]:
        for option in _options(produced):
            if get_origin(option) is tuple:
                returns = _value_type(get_args(option)[1])
    return _item_signature(title, item, returns)


def _item_signature(title: str, item: type, returns: Any) -> Signature:
    """Return the signature of a dataclass's or a struct's constructor."""
    import dataclasses  # noqa: PLC0415  slow to import, and few nodes are batched

    fields: list[Any]
    if dataclasses.is_dataclass(item):
        fields = [field for field in dataclasses.fields(item) if field.init]
        fields.sort(key=lambda field: field.kw_only)
        positional = sum(not field.kw_only for field in fields)
        absent: Any = dataclasses.MISSING
    else:
        from msgspec import NODEFAULT, structs  # noqa: PLC0415

        fields = list(structs.fields(item))
        positional = len(item.__match_args__)  # type: ignore[attr-defined]  # structs have it
        absent = NODEFAULT
    return Signature(
        title,
        tuple(field.name for field in fields),
        positional,
        {field.name: field.default for field in fields if field.default is not absent},
        returns,
        item=item,
        factories={
            field.name: field.default_factory
            for field in fields
            if field.default_factory is not absent
        },
    )


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
