"""Which classes are plain data: their fields, and what to say of those that are not."""

from collections.abc import Callable, Iterable
from typing import Any, cast

from cachedeval.engine.forks import importing

__all__ = ["extra_of", "fields_of", "refusal"]

_PLAIN = (str, bytes, int, float, list, tuple, set, frozenset, dict)


def fields_of(cls: type) -> tuple[str, ...] | None:
    """Return the fields of a dataclass, msgspec struct or named tuple; None for another class."""
    if issubclass(cls, tuple):
        return cast("tuple[str, ...] | None", getattr(cls, "_fields", None))
    if issubclass(cls, _PLAIN):  # its content is no field
        return None
    if "__dataclass_fields__" in cls.__dict__:
        with importing():
            import dataclasses  # noqa: PLC0415  slow to import, and no built-in node needs it

        return tuple(field.name for field in dataclasses.fields(cast("Any", cls)))
    return cast("tuple[str, ...] | None", getattr(cls, "__struct_fields__", None))


def extra_of(cls: type, names: tuple[str, ...]) -> Callable[[Any], Iterable[str]]:
    """Return what tells the attributes that an instance has beside its fields."""
    slots = {
        slot
        for base in cls.__mro__
        for slot in _slots(base)
        if slot not in {"__dict__", "__weakref__", *names}
    }

    def extra(instance: Any) -> Iterable[str]:
        attributes = getattr(instance, "__dict__", None)
        found = attributes.keys() - names if attributes else ()
        return sorted([*found, *(slot for slot in slots if hasattr(instance, slot))])

    return extra


def _slots(cls: type) -> tuple[str, ...]:
    slots = cls.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def refusal(value: Any) -> str:
    """Say why a value has no canonical encoding, and what to pass instead."""
    cls = type(value)
    name = cls.__qualname__
    if hasattr(value, "__fspath__"):
        return (
            f"a path ({name}) names a place, not content: pass the text itself, or what is known "
            'by its content, Resource("file", digest_file(path), lambda: path)'
        )
    if callable(value):
        return f"a {name} is code, not data: pass plain data, or make a node of it"
    plain = next((base.__name__ for base in _PLAIN if isinstance(value, base)), None)
    hint = {
        "Call": "give calls as arguments, or inside lists, tuples and dicts",
        "Resource": "give resources as arguments, or inside lists, tuples and dicts",
        "bytearray": "pass bytes(…)",
        "memoryview": "pass bytes(…)",
        "datetime": "pass .isoformat()",
        "date": "pass .isoformat()",
        "time": "pass .isoformat()",
        "timedelta": "pass .total_seconds()",
        "Decimal": "pass str(…)",
        "Fraction": "pass str(…)",
        "UUID": "pass str(…)",
        "complex": "pass the pair of floats",
        "ndarray": "pass .tolist(), or the bytes with shape and dtype",
    }.get(name)
    if hint is None and plain is not None:
        hint = f"it is a {plain} and more: pass {plain}(…)"
    if hint is None and hasattr(cls, "__dataclass_fields__"):
        hint = "make it a dataclass too, as its base is: write @dataclass above it"
    return f"a value of type {name} has no canonical encoding: " + (
        hint
        or "pass plain data: None, bool, int, float, str, bytes, list, tuple, dict, set, an enum, "
        "a dataclass or a msgspec struct"
    )
