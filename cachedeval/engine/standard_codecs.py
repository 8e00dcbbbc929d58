"""The codecs of types of the standard library.

A codec is a name, a function from a value to plain data, and one back. Each module is imported when
one of its types is first met.
"""

# Lazy imports: each of these modules takes longer to import than a hit takes.

from collections.abc import Callable
from functools import cache
from typing import Any

from cachedeval.engine.errors import EncodingError
from cachedeval.engine.process import importing

__all__ = ["codecs_of"]

_Codec = tuple[str, Callable[[Any], Any], Callable[[Any], Any]]


@cache
def codecs_of(module: str) -> dict[type, _Codec]:
    """Return the codecs of a module's types: for each type its codec's name and functions."""
    with importing():
        return _TABLES[module]()


def _of_builtins() -> dict[type, _Codec]:
    return {
        complex: (
            "builtins.complex",
            lambda value: (value.real, value.imag),
            lambda data: complex(*data),
        ),
        range: (
            "builtins.range",
            lambda value: (value.start, value.stop, value.step),
            lambda data: range(*data),
        ),
        bytearray: ("builtins.bytearray", bytes, bytearray),
    }


def _of_collections() -> dict[type, _Codec]:
    from collections import Counter, OrderedDict, defaultdict, deque

    builtin: list[Any] = [bool, bytes, dict, float, frozenset, int, list, set, str, tuple]
    factories = {each.__name__: each for each in builtin}

    def from_default(value: defaultdict[Any, Any]) -> tuple[str | None, dict[Any, Any]]:
        factory = value.default_factory
        if factory is None:
            return None, dict(value)
        name = getattr(factory, "__name__", "")
        if factories.get(name) is not factory:
            raise EncodingError(
                f"a defaultdict whose default_factory is {factory!r} has no canonical encoding: "
                f"use a built-in type ({', '.join(sorted(factories))}), or pass dict(…)"
            )
        return name, dict(value)

    return {
        Counter: ("collections.Counter", dict, Counter),
        OrderedDict: ("collections.OrderedDict", dict, OrderedDict),
        defaultdict: (
            "collections.defaultdict",
            from_default,
            lambda data: defaultdict(None if data[0] is None else factories[data[0]], data[1]),
        ),
        deque: (
            "collections.deque",
            lambda value: (value.maxlen, list(value)),
            lambda data: deque(data[1], data[0]),
        ),
    }


def _of_datetime() -> dict[type, _Codec]:
    from datetime import date, datetime, time, timedelta, timezone

    def offset_of(value: timezone) -> tuple[int, str | None]:
        # `timezone` tells the name that it was given, if any, only in this way.
        offset, *name = value.__getinitargs__()  # type: ignore[attr-defined]
        return offset // timedelta(microseconds=1), name[0] if name else None

    def offset_from(data: tuple[int, str | None]) -> timezone:
        offset = timedelta(microseconds=data[0])
        if data[1] is None:
            return timezone.utc if not offset else timezone(offset)  # noqa: UP017  it is the class
        return timezone(offset, data[1])

    def zone_of(value: Any) -> Any:
        if value is None or type(value) is timezone:
            return value
        if type(value).__module__.partition(".")[0] == "zoneinfo":
            return value  # by its own codec
        raise EncodingError(
            f"the time zone {value!r} is a {type(value).__qualname__}: use datetime.timezone or "
            "zoneinfo.ZoneInfo"
        )

    def parts(value: Any) -> tuple[Any, ...]:
        return value.replace(tzinfo=None, fold=0).isoformat(), value.fold, zone_of(value.tzinfo)

    def build(cls: Any) -> Callable[[Any], Any]:
        return lambda data: cls.fromisoformat(data[0]).replace(fold=data[1], tzinfo=data[2])

    return {
        datetime: ("datetime.datetime", parts, build(datetime)),
        time: ("datetime.time", parts, build(time)),
        date: ("datetime.date", date.isoformat, date.fromisoformat),
        timedelta: (
            "datetime.timedelta",
            lambda value: (value.days, value.seconds, value.microseconds),
            lambda data: timedelta(*data),
        ),
        timezone: ("datetime.timezone", offset_of, offset_from),
    }


def _of_zoneinfo() -> dict[type, _Codec]:
    from zoneinfo import ZoneInfo

    def key(value: ZoneInfo) -> str:
        if value.key is None:
            raise EncodingError("a ZoneInfo made from a file has no key: use ZoneInfo(key)")
        return value.key

    return {ZoneInfo: ("zoneinfo.ZoneInfo", key, ZoneInfo)}


def _of_decimal() -> dict[type, _Codec]:
    from decimal import Decimal

    return {Decimal: ("decimal.Decimal", str, Decimal)}


def _of_fractions() -> dict[type, _Codec]:
    from fractions import Fraction

    return {
        Fraction: (
            "fractions.Fraction",
            lambda value: (value.numerator, value.denominator),
            lambda data: Fraction(*data),
        )
    }


def _of_pathlib() -> dict[type, _Codec]:
    import pathlib

    kinds = (pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath)
    return {cls: (f"pathlib.{cls.__name__}", str, cls) for cls in kinds}


def _of_uuid() -> dict[type, _Codec]:
    from uuid import UUID

    return {UUID: ("uuid.UUID", lambda value: value.bytes, lambda data: UUID(bytes=data))}


_TABLES: dict[str, Callable[[], dict[type, _Codec]]] = {
    "builtins": _of_builtins,
    "collections": _of_collections,
    "datetime": _of_datetime,
    "decimal": _of_decimal,
    "fractions": _of_fractions,
    "pathlib": _of_pathlib,
    "uuid": _of_uuid,
    "zoneinfo": _of_zoneinfo,
}
