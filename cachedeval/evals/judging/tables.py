"""TOML files that users write, read into declared types; what does not fit is named."""

import re
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from cachedeval.engine.errors import InputError

__all__ = ["convert_table", "read_table"]

T = TypeVar("T")

_UNKNOWN = re.compile(r"unknown field `(?P<field>[^`]*)`")


def read_table(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        InputError: It is missing, unreadable or no TOML.
    """
    import tomllib  # noqa: PLC0415  only where the user gives a file

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: is no TOML: {error}") from None


def convert_table(table: Any, form: type[T], where: str) -> T:
    """Make a declared type of plain data.

    Args:
        table: The data, as `read_table` gives it.
        form: The type.
        where: What the message calls the place: a file.

    Raises:
        InputError: A field is missing, unknown, or of another type.
    """
    try:
        return msgspec.convert(table, form)
    except msgspec.ValidationError as error:
        said = str(error)
        hint = ""
        if found := _UNKNOWN.search(said):
            import difflib  # noqa: PLC0415  only for the hint

            near = difflib.get_close_matches(found["field"], _fields(form), n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(f"{where}: {said}{hint}") from None
    except InputError as error:  # the type's own check
        raise InputError(f"{where}: {error}") from None


def _fields(form: Any) -> list[str]:
    """The names of all fields of a struct and of the structs in it."""
    names: list[str] = []
    if isinstance(form, type) and issubclass(form, msgspec.Struct):
        for name, kind in get_type_hints(form).items():
            names += [name, *_fields(kind)]
    for inner in get_args(form):
        names += _fields(inner)
    return names
