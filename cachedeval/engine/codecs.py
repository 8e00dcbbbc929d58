"""Codecs: how values that are not plain data become plain data under a name, and back.

The canonical encoding of such a value is the codec's name and the data. Built-in codecs cover types
of the standard library, NumPy, pandas, PyArrow, mlx and PyTorch; `register_codec` adds others. A
built-in codec is loaded when a value of its type is first met, and imports no package before.
"""

# Lazy imports: a run that meets no such type loads no codec.

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from cachedeval.engine.errors import EncodingError, InputError
from cachedeval.engine.process import importing

__all__ = [
    "Coder",
    "coder_named",
    "coder_of",
    "is_base",
    "is_builtin",
    "on_register",
    "register_codec",
]

T = TypeVar("T")

_STANDARD = frozenset(
    {"builtins", "collections", "datetime", "decimal", "fractions", "pathlib", "uuid", "zoneinfo"}
)
_LIBRARIES = frozenset({"mlx", "numpy", "pandas", "pyarrow", "torch"})
"""The modules and packages for whose types there are built-in codecs."""

_FOR_SUBCLASSES = frozenset({"numpy.generic", "pyarrow.Array"})
"""The codecs that serve all subclasses within their package."""

_PLAIN = frozenset(
    {type(None), bool, int, float, str, bytes, list, tuple, set, frozenset, dict, object, type}
)


class Coder(NamedTuple):
    """A codec of one type.

    Attributes:
        name: what the type is called in keys and records.
        to_data: returns plain data, from which `from_data` makes an equal value.
        from_data: returns the value; may raise any exception for data that no value gives.
    """

    name: str
    to_data: Callable[[Any], Any]
    from_data: Callable[[Any], Any]


_registered: dict[type, Coder] = {}
_names: dict[str, type] = {}
_builtin_names: dict[str, Coder] = {}
_listeners: list[Callable[[type], None]] = []


def register_codec(
    cls: type[T], name: str, encode: Callable[[T], bytes], decode: Callable[[bytes], T]
) -> None:
    """Let values of a class be inputs and outputs of steps.

    Register a codec before the nodes that use it run, in each process that reads the cache. Name,
    bytes and class are part of no version: if `encode` changes, register it under a new name.

    Args:
        cls: the class. Its subclasses need codecs of their own.
        name: what keys and records call it, such as `mypackage.Molecule`; must not change.
        encode: returns bytes. Equal values must give equal bytes, and others different ones. Never
            use pickle: reading it would run code from the cache.
        decode: returns the value. For other bytes it may raise any exception: that is a miss.

    Raises:
        InputError: the class is plain data, or the name belongs to another class.

    Example:
        >>> from cachedeval import Engine, node, register_codec
        >>> class Celsius:
        ...     def __init__(self, degrees: float) -> None:
        ...         self.degrees = degrees
        >>> register_codec(
        ...     Celsius,
        ...     "weather.Celsius",
        ...     lambda value: repr(value.degrees).encode(),
        ...     lambda data: Celsius(float(data)),
        ... )
        >>> @node(version="1")
        ... def warmer(value: Celsius) -> Celsius:
        ...     return Celsius(value.degrees + 1)
        >>> with Engine() as engine:
        ...     engine.run(warmer(Celsius(20.5))).degrees
        21.5
    """
    _check(cls, name)

    def to_data(value: T) -> bytes:
        try:
            data = encode(value)
        except Exception as error:
            raise EncodingError(f"the codec {name!r} raised {_shown(error)}") from error
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise EncodingError(
                f"the codec {name!r} returned a {type(data).__qualname__}: it must return bytes"
            )
        return bytes(data)

    if name in _names:
        del _registered[_names[name]]  # the module of the class was imported again
    _names[name] = cls
    _registered[cls] = Coder(name, to_data, decode)
    for listener in _listeners:
        listener(cls)


def _check(cls: type, name: str) -> None:
    """Raise an error if a class cannot have a codec of this name."""
    if not isinstance(cls, type):
        raise InputError(f"a codec is registered for a class, not for a {type(cls).__name__}")
    if not isinstance(name, str) or not name:
        raise InputError(
            f"the codec of {cls.__qualname__} needs a name, as in 'mypackage.Molecule'"
        )
    if cls in _PLAIN or _builtin_of(cls) is not None:
        raise InputError(f"{cls.__qualname__} needs no codec: it can be stored as it is")
    if name in _names and _path(_names[name]) != _path(cls):
        raise InputError(f"the codec name {name!r} belongs to {_path(_names[name])}: use another")
    if cls in _registered and _registered[cls].name != name:
        raise InputError(f"{cls.__qualname__} has a codec already: {_registered[cls].name!r}")
    if is_builtin(name):
        raise InputError(f"the codec name {name!r} is reserved: begin it with your package's name")


def on_register(listener: Callable[[type], None]) -> None:
    """Call a function with each class that is registered from now on."""
    _listeners.append(listener)


def coder_of(cls: type) -> Coder | None:
    """Return the codec of a class, or None if it has none."""
    return _registered.get(cls) or _builtin_of(cls)


def coder_named(name: str) -> Coder | None:
    """Return the codec of this name, or None if there is none in this process.

    Raises:
        ImportError: the package of a built-in codec is not installed.
    """
    cls = _names.get(name)
    if cls is not None:
        return _registered[cls]
    if name not in _builtin_names:
        _builtin_names.update({parts[0]: Coder(*parts) for parts in _builtins_of(name).values()})
    return _builtin_names.get(name)


def is_builtin(name: str) -> bool:
    """Return whether a name is that of a built-in codec, or reserved for one."""
    return name.partition(".")[0] in _STANDARD | _LIBRARIES


def is_base(cls: type) -> bool:
    """Return whether values of a class may have codecs although the class has none, as `Path`."""
    known = [*_registered, *_builtins_of(cls.__module__)]
    return any(issubclass(each, cls) for each in known)


def _builtin_of(cls: type) -> Coder | None:
    known = _builtins_of(cls.__module__)
    for base in cls.__mro__ if known else ():
        if base in known and (base is cls or known[base][0] in _FOR_SUBCLASSES):
            return Coder(*known[base])
    return None


def _builtins_of(path: str) -> Mapping[type, tuple[str, Any, Any]]:
    """Return the built-in codecs of a module's types, given its path or that of one of its names."""
    package = path.partition(".")[0]
    with importing():
        if package in _STANDARD:
            from cachedeval.engine.standard_codecs import codecs_of as standard

            return standard(package)
        if package in _LIBRARIES:
            from cachedeval.engine.array_codecs import codecs_of as arrays

            return arrays(package)
    return {}


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _shown(error: Exception) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  the error's own `__str__` may raise, too
        return type(error).__name__
