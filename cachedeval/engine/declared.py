"""Declared types: what a type says of its values, and making values of it from stored data.

The canonical encoding names the class of each value. `Declared` finds the classes that a declared
type mentions, so that nothing else is made of stored data, and checks what was made against the
type. So it knows types that msgspec does not: unions of any kind, subclasses of what is declared,
values with codecs.
"""

import collections.abc
import types
import typing
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

from cachedeval.engine.codecs import coder_named, coder_of, is_base
from cachedeval.engine.encoding import FIELDS_SET, Coded, Maker, fields_of, is_pydantic
from cachedeval.engine.errors import EncodingError
from cachedeval.engine.origin import class_name

__all__ = ["ANYTHING", "Declared"]

_PLAIN = {Any, type(None), bool, int, float, str, bytes, list, tuple, set, frozenset, dict, object}
_CODE = {
    *(type, collections.abc.Callable, collections.abc.Awaitable, collections.abc.Coroutine),
    *(collections.abc.Iterator, collections.abc.Generator, collections.abc.AsyncIterator),
    *(collections.abc.AsyncGenerator, types.FunctionType, types.ModuleType),
}
"""Types of code and of things that happen; no value of them is data."""

_WRAPPERS = {typing.Annotated, typing.ClassVar, typing.Final, typing.Required, typing.NotRequired}


class Declared(Maker):
    """Makes the values of one declared type from their decoded form.

    Args:
        declared: the type that a node returns, as annotated.

    Raises:
        EncodingError: values of the type cannot be stored.
    """

    views = True

    def __init__(self, declared: Any) -> None:
        self._declared = declared
        self._classes: dict[str, type] = {}
        self._seen: set[Any] = set()
        self._hints: dict[type, dict[str, Any]] = {}
        self._find(declared)

    def check(self, value: Any) -> None:
        """Raise an error if a value does not match the declared type.

        Raises:
            EncodingError: it does not.
        """
        where = self._mismatch(value, self._declared, "")
        if where is not None:
            raise EncodingError(f"not a {self._declared!r}{where}")

    # Making values.

    def typed(self, kind: str, fields: dict[str, Any]) -> Any:
        """Return an instance of a declared class, or its decoded form."""
        cls = self._class(kind)
        if cls is None or fields_of(cls) is None:
            return super().typed(kind, fields)
        if is_pydantic(cls):
            return _model(cls, fields)
        by_init, others = dict(fields), {}
        if "__dataclass_fields__" in cls.__dict__:
            known = cls.__dict__["__dataclass_fields__"]
            others = {name: by_init.pop(name) for name in fields if not known[name].init}
        elif "__attrs_attrs__" in cls.__dict__:
            attributes = {each.name: each for each in typing.cast("Any", cls).__attrs_attrs__}
            others = {name: by_init.pop(name) for name in fields if not attributes[name].init}
            by_init = {attributes[name].alias: value for name, value in by_init.items()}
        made = cls(**by_init)
        for name, value in others.items():
            object.__setattr__(made, name, value)
        return made

    def member(self, kind: str, name: str, value: Any) -> Any:
        """Return the member of a declared enum, or its decoded form."""
        cls = self._class(kind)
        if cls is None or not issubclass(cls, Enum):
            return super().member(kind, name, value)
        return cls(value)

    def coded(self, name: str, data: Any) -> Any:
        """Return the value that a codec makes of its data."""
        coder = coder_named(name)
        if coder is None:
            raise EncodingError(
                f"it holds a value of the codec {name!r}, which is not registered here"
            )
        return coder.from_data(data)

    def _class(self, kind: str) -> type | None:
        if kind not in self._classes:
            self._seen.clear()
            self._hints.clear()
            self._find(self._declared)  # a class may have been defined since
        return self._classes.get(kind)

    # What the type mentions.

    def _find(self, declared: Any) -> None:  # noqa: C901  a case a kind of type
        """Add the classes that a type mentions.

        Raises:
            EncodingError: no value of it can be stored.
        """
        try:
            if declared in self._seen:
                return
            self._seen.add(declared)
        except TypeError:  # not hashable: such as metadata of Annotated
            return
        for part in _parts(declared):
            self._find(part)
        cls = get_origin(declared) or declared
        if not isinstance(cls, type) or cls in _PLAIN or cls is types.UnionType:
            return
        if cls in _CODE:
            raise EncodingError(f"values of the declared type {declared!r} cannot be stored")
        if coder_of(cls) is not None:
            return
        fields = fields_of(cls)
        if fields is not None or issubclass(cls, Enum):
            self._classes[class_name(cls)] = cls
        for hint in self._hints_of(cls).values():
            self._find(hint)
        # A subclass may be data where its base is not.
        below = cls.__subclasses__() if type(cls).__name__ != "_TypedDictMeta" else []
        for subclass in below:
            if not subclass.__module__.startswith(("builtins", "typing")):
                self._find_subclass(subclass)
        storable = fields is not None or issubclass(cls, Enum) or below or _is_open(cls)
        if not storable and not is_base(cls):
            raise EncodingError(
                f"values of the declared type {_name(declared)} cannot be stored: make it a "
                "dataclass, or register a codec for it first, register_codec(…)"
            )

    def _find_subclass(self, cls: type) -> None:
        try:
            self._find(cls)
        except EncodingError:
            return  # it is only returned, if at all

    def _hints_of(self, cls: type) -> dict[str, Any]:
        """Return the types of a class's fields, as far as they can be resolved."""
        if cls not in self._hints:
            hints: dict[str, Any] = {}
            if fields_of(cls) is not None or hasattr(cls, "__total__"):
                try:
                    hints = get_type_hints(cls)
                except Exception:  # noqa: BLE001  a name may exist for type checkers only
                    hints = {}
                names = fields_of(cls)
                hints = {n: h for n, h in hints.items() if names is None or n in names}
            self._hints[cls] = hints
        return self._hints[cls]

    # What matches it.

    def _mismatch(self, value: Any, declared: Any, where: str) -> str | None:  # noqa: C901, PLR0911, PLR0912  a case a kind of type
        """Return where a value does not match a type, and None if it does."""
        declared = _bare(declared)
        wrong = f" at {where}" if where else ""
        if declared is None:
            return None if value is None else wrong
        if declared is Any or declared is object or isinstance(declared, (str, typing.TypeVar)):
            return wrong if _is_raw(value) else None
        origin, args = get_origin(declared), get_args(declared)
        if origin in {typing.Union, types.UnionType}:
            return wrong if all(self._mismatch(value, each, where) for each in args) else None
        if origin is typing.Literal:
            same = any(type(value) is type(each) and value == each for each in args)
            return None if same else wrong
        cls = origin or declared
        inner: Iterable[tuple[str, Any, Any]]
        if not isinstance(cls, type):
            return None  # a kind of type that says nothing about values
        if hasattr(cls, "__total__"):  # a TypedDict
            required = typing.cast("Any", cls).__required_keys__
            if type(value) is not dict or not required <= value.keys():
                return wrong
            hints = self._hints_of(cls)
            inner = ((f"{where}[{n!r}]", m, hints[n]) for n, m in value.items() if n in hints)
        elif getattr(cls, "_is_protocol", False):
            return wrong if _is_raw(value) else None
        elif cls in {int, float, complex}:
            numbers: dict[Any, Any] = {
                int: int,
                float: (int, float),
                complex: (int, float, complex),
            }
            fits = isinstance(value, numbers[cls]) and not isinstance(value, bool)
            return None if fits else wrong
        elif not isinstance(value, cls) or _is_raw(value):
            return wrong
        else:
            inner = self._inner(value, origin, args, where)
        for at, member, hint in inner:
            found = self._mismatch(member, hint, at)
            if found is not None:
                return found or f" at {at}"
        return None

    def _inner(  # noqa: C901  a case a kind of value
        self, value: Any, origin: Any, args: tuple[Any, ...], where: str
    ) -> Iterator[tuple[str, Any, Any]]:
        """Yield path, value and declared type of each member of a value."""
        cls = type(value)
        if fields_of(cls) is not None:
            for name, hint in self._hints_of(cls).items():
                yield f"{where}.{name}", getattr(value, name), hint
        elif not args:
            return
        elif origin is tuple:
            every = args[:1] * len(value) if args[1:] == (...,) else args
            if len(every) != len(value):
                yield where, value, _NEVER
            for index, (member, hint) in enumerate(zip(value, every, strict=False)):
                yield f"{where}[{index}]", member, hint
        elif isinstance(value, dict):
            for key, member in value.items():
                yield f"{where}[{key!r:.40}]", key, args[0]
                if len(args) > 1:  # a Counter declares its keys alone
                    yield f"{where}[{key!r:.40}]", member, args[1]
        elif isinstance(value, (list, tuple, set, frozenset, collections.deque)):
            for index, member in enumerate(value):
                yield f"{where}[{index}]", member, args[0]


class _Never:
    """A class without values."""


_NEVER = _Never


class _Anything(Declared):
    """Makes the values of nodes that declare no type: only codecs' values have a class."""

    def __init__(self) -> None:
        super().__init__(Any)

    def check(self, value: Any) -> None:
        """Accept all."""

    def typed(self, kind: str, fields: dict[str, Any]) -> Any:
        """Raise an error: the class is not known."""
        del fields
        raise _undeclared(kind)

    def member(self, kind: str, name: str, value: Any) -> Any:
        """Raise an error: the class is not known."""
        del name, value
        raise _undeclared(kind)


def _undeclared(kind: str) -> EncodingError:
    name = kind.rpartition(".")[2]
    return EncodingError(
        f"a value of type {name} would not come back from the cache as a {name}: annotate the node "
        "with the type that it returns"
    )


def _is_raw(value: Any) -> bool:
    """Return whether a value is the decoded form of a class that the type does not mention."""
    return type(value).__module__ == Coded.__module__


def _parts(declared: Any) -> Iterator[Any]:
    """Yield the types inside a type."""
    bare = _bare(declared)
    if bare is not declared:
        yield bare
        return
    if get_origin(declared) is typing.Literal:
        yield from (type(each) for each in get_args(declared))
    elif get_origin(declared) not in _CODE and _is_package_free(declared):
        yield from get_args(declared)


def _is_package_free(declared: Any) -> bool:
    """Return whether a generic type's arguments are types of members, not those of an array."""
    cls = get_origin(declared)
    return not isinstance(cls, type) or coder_of(cls) is None or cls.__module__ == "collections"


def _bare(declared: Any) -> Any:
    """Return a type without what surrounds it: Annotated, NewType, a type alias."""
    if get_origin(declared) in _WRAPPERS:
        return _bare(get_args(declared)[0])
    if isinstance(declared, typing.NewType):
        return _bare(declared.__supertype__)
    value = getattr(declared, "__value__", None)  # of a `type` statement
    return declared if value is None or isinstance(declared, type) else _bare(value)


def _is_open(cls: type) -> bool:
    """Return whether values of other classes count as a class's: protocols, abstract classes."""
    return (
        bool(getattr(cls, "_is_protocol", False))
        or bool(getattr(cls, "__abstractmethods__", None))
        or cls.__module__ in {"collections.abc", "numbers"}
        or hasattr(cls, "__total__")
    )


def _name(declared: Any) -> str:
    return declared.__qualname__ if isinstance(declared, type) else repr(declared)


def _model(cls: Any, fields: dict[str, Any]) -> Any:
    """Return a pydantic model with these fields, validated."""
    given = dict(fields)
    were_set = given.pop(FIELDS_SET, None)
    if getattr(cls, "__pydantic_root_model__", False):
        model = cls.model_validate(given["root"])
    else:
        model = cls.model_validate(given, by_name=True)
    if were_set is not None:
        object.__setattr__(model, "__pydantic_fields_set__", were_set)
    return model


ANYTHING = _Anything()
"""Serves every node that declares no type."""
