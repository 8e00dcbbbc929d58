"""Taking an object apart: what decides how code behaves that uses the object.

Callables come apart into the functions that they call. Other objects come apart into their class
and their state. Nothing here reads code: that is what `closure` does with the parts.
"""

import functools
import re
import types
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from cachedeval.engine.encoding import fields_of
from cachedeval.engine.origin import module_name, release_of

__all__ = ["OpaqueError", "Parts", "classes_in", "content_digest", "take_apart"]


class OpaqueError(Exception):
    """Nothing is known of what an object does; the text says why."""


class Parts(NamedTuple):
    """What an object consists of.

    Attributes:
        kind: what it is.
        parts: its parts, each with a label.
        ordered: whether the order of the parts counts.
        fixed: whether the object itself cannot change. Its parts may.
    """

    kind: str
    parts: list[tuple[str, Any]]
    ordered: bool = True
    fixed: bool = True


_TOOLS = frozenset(
    {
        *(f"_thread.{name}" for name in ("lock", "RLock")),
        *(
            f"threading.{name}"
            for name in ("Semaphore", "BoundedSemaphore", "Condition", "Event", "Barrier")
        ),
        *(
            f"asyncio.locks.{name}"
            for name in ("Lock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Barrier")
        ),
        "concurrent.futures.thread.ThreadPoolExecutor",
        "concurrent.futures.process.ProcessPoolExecutor",
        *("logging.Logger", "logging.RootLogger", "logging.LoggerAdapter"),
        *("loguru._logger.Logger", "rich.console.Console"),
        "cachedeval.engine.engine.Engine",
        "cachedeval.services.limiter.RateLimiter",
    }
)
"""Classes whose instances decide when or where code runs and what it prints, but no result."""

_BUILTIN = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)
_CONTAINERS = (list, tuple, set, frozenset)
_DICTS = (dict, types.MappingProxyType)
_HEAP_TYPE = 1 << 9
"""The flag of classes that a class statement has made."""


def content_digest(content: Any) -> str:
    """Return a digest of bytes, or of an object that holds bytes."""
    import hashlib

    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def take_apart(value: Any) -> Parts:
    """Return the parts of an object that is no function, class, module or plain data.

    Raises:
        OpaqueError: it cannot be taken apart.
    """
    cls = type(value)
    if f"{cls.__module__}.{cls.__qualname__}" in _TOOLS:
        return Parts(f"tool {cls.__qualname__}", [])
    if isinstance(value, re.Pattern):
        return Parts("regex", [("pattern", value.pattern), ("flags", value.flags)])
    if cls in _DICTS:
        pairs: list[tuple[str, Any]] = []
        for key, member in value.items():
            pairs += (("key", key), (f"[{key!r:.40}]", member))
        return Parts(cls.__name__, pairs, fixed=False)
    if cls in _CONTAINERS:
        members = [(f"[{index}]", member) for index, member in enumerate(value)]
        sets = cls in {set, frozenset}
        return Parts(cls.__name__, members, ordered=not sets, fixed=cls in {tuple, frozenset})
    if isinstance(value, _BUILTIN):
        return _builtin(value)
    found = _callable(value)
    if found is None:
        found = _array(value)
    if found is None:
        found = _instance(value) if release_of(cls.__module__) is None else _reduced(value)
    return found


def _builtin(value: Any) -> Parts:
    """Return the parts of a function or method that is not written in Python."""
    bound = getattr(value, "__self__", None)
    owner = getattr(value, "__objclass__", None)
    if owner is not None:
        return Parts(f"method {value.__name__}", [("class", owner)])
    if bound is not None and not isinstance(bound, types.ModuleType):
        return Parts(f"method {value.__name__}", [("self", bound)])
    module = value.__module__ or getattr(bound, "__name__", None) or "builtins"
    release = release_of(module)
    parts = [] if release else [("module", _binary(module))]
    return Parts(f"{module}.{value.__qualname__} {release or ''}", parts)


def _binary(module: str) -> str:
    """Return the digest of the file of a module that is not written in Python."""
    import sys
    from pathlib import Path

    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        raise OpaqueError("it is not written in Python")
    return content_digest(Path(file).read_bytes())


def _callable(value: Any) -> Parts | None:  # noqa: PLR0911  one case a type
    """Return the parts of a callable or a descriptor that contains functions, or None."""
    kind = type(value).__name__
    match value:
        case types.MethodType():
            return Parts(kind, [("__func__", value.__func__), ("__self__", value.__self__)])
        case functools.partial() | functools.partialmethod():
            arguments = {f"[{index}]": each for index, each in enumerate(value.args)}
            given = {**arguments, **value.keywords}
            return Parts(kind, [("func", value.func), *given.items()])
        case staticmethod() | classmethod():
            return Parts(kind, [("__func__", value.__func__)])
        case property() | types.DynamicClassAttribute():
            names = ("fget", "fset", "fdel")
            return Parts(kind, [(name, getattr(value, name)) for name in names])
        case functools.cached_property():
            return Parts(kind, [("func", value.func)])
        case functools.singledispatchmethod():
            return Parts(kind, [("dispatcher", value.dispatcher), ("func", value.func)])
        case functools._lru_cache_wrapper():  # noqa: SLF001  it has no public name
            return Parts("lru_cache", [("__wrapped__", value.__wrapped__)])
        case _:
            return None


def _array(value: Any) -> Parts | None:
    """Return the parts of an object that holds bytes, or None."""
    cls = type(value)
    match f"{cls.__module__}.{cls.__qualname__}":
        case "builtins.bytearray" | "builtins.memoryview":
            return Parts(cls.__name__, [("content", content_digest(bytes(value)))], fixed=False)
        case "numpy.ndarray":
            if value.dtype.hasobject:
                content: Any = value.tolist()
            else:
                content = content_digest(value.tobytes())
            shape = [("dtype", str(value.dtype)), ("shape", value.shape)]
            return Parts("ndarray", [*shape, ("content", content)], fixed=False)
        case _:
            return None


def _instance(value: Any) -> Parts:
    """Return the class and the attributes of an instance of a class of the project."""
    cls = type(value)
    parts: list[tuple[str, Any]] = [("class", cls)]
    for name, attribute in getattr(value, "__dict__", {}).items():
        # It is computed from the other attributes, when it is first read.
        if not isinstance(getattr(cls, name, None), functools.cached_property):
            parts.append((name, attribute))
    for base in cls.__mro__:
        for name, member in vars(base).items():
            if isinstance(member, types.MemberDescriptorType):
                with suppress(AttributeError):
                    parts.append((name, member.__get__(value)))
    if any(base is not object and not base.__flags__ & _HEAP_TYPE for base in cls.__mro__):
        # A base that is not written in Python has state of its own.
        parts += _reduced(value).parts
    if hasattr(cls, "__next__"):
        raise OpaqueError("an iterator changes when it is read")
    return Parts("instance", parts, fixed=False)


def _reduced(value: Any) -> Parts:
    """Return the parts by which `copy` would copy an object."""
    cls = type(value)
    if hasattr(cls, "__next__"):
        raise OpaqueError("an iterator changes when it is read")
    try:
        reduced = value.__reduce_ex__(4)
        if isinstance(reduced, str):
            module = getattr(value, "__module__", None) or cls.__module__
            return Parts(
                f"{module_name(module)}.{reduced} {release_of(module) or ''}", [("class", cls)]
            )
        make, arguments, state, members, items = (*reduced, None, None, None)[:5]
        parts: list[tuple[str, Any]] = [("class", cls), ("made by", make), ("of", arguments)]
        parts += [("state", state)] if state is not None else []
        parts += [("members", list(members))] if members is not None else []
        parts += [("items", list(items))] if items is not None else []
    except Exception as error:
        raise OpaqueError(str(error)) from error
    return Parts("instance", parts, fixed=cls.__module__ in _FIXED)


_FIXED = frozenset(
    {"builtins", "datetime", "decimal", "fractions", "uuid", "pathlib", "operator", "typing"}
)
"""Modules of the standard library whose objects do not change, if no container is among them."""


def classes_in(value: Any, found: dict[type, None]) -> None:
    """Add the classes of the objects inside plain data; other objects are left alone."""
    todo, seen = [value], set()
    while todo:
        each = todo.pop()
        cls = type(each)
        if cls in _ATOMS or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, Mapping):
            todo += [*each.keys(), *each.values()]
        elif isinstance(each, _CONTAINERS):
            todo += each
        if cls.__module__ != "builtins":
            found[cls] = None
            todo += _fields(each)


_ATOMS = frozenset({str, int, float, bool, bytes, type(None)})


def _fields(value: Any) -> Iterator[Any]:
    for name in fields_of(type(value)) or ():
        with suppress(AttributeError):
            yield getattr(value, name)
