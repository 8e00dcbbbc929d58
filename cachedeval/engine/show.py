"""Short texts of inputs and values for messages: bounded, on one line, and without secrets.

The text of a value takes time in proportion to its length and not to the size of the value, and
runs no code of the value's own: a value of an unknown class is shown as the name of its class.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = ["SECRET", "add_note", "is_secret", "show", "show_text"]

SECRET = "***"  # noqa: S105  the opposite of a password
"""What is shown in place of a secret."""

_READ = 400
"""How many characters of a string are searched for secrets, and may be shown."""

_LONGEST = 1000
"""How many members of a collection are read at most."""

_DEPTH = 4

_BITS = 512
"""Longer integers are described: their digits take quadratic time."""

_NOTES = 3
"""How many calls the notes of one error name: an error may be that of a batch of thousands."""

_MORE = "cachedeval: and in other calls"

_SECRET_NAME = re.compile(
    r"(api|access|private|secret|auth)_?key|passw(or)?d|passphrase|secret|credential"
    r"|authori[sz]ation|bearer|cookie|(^|_|-)token$",
    re.IGNORECASE,
)
_SECRET_TEXT = re.compile(
    r"(?P<before>://[^/@\s:]*:)[^@/\s]+(?=@)"
    r"|(?P<scheme>\b(bearer|basic)\s+)[\w.~+/=-]{8,}"
    r"|\b(sk|pk|rk|csk|hf|gh[opsu]|github_pat|glpat|xox[abp])[-_][\w-]{8,}"
    r"|\bAKIA[0-9A-Z]{12,}",
    re.IGNORECASE,
)
_CUT_PASSWORD = re.compile(r"(://[^/@\s:]*:)[^@/\s]+$")
"""A password in a URL whose end is not read."""

_PLAIN_MODULES = frozenset({"datetime", "decimal", "fractions", "uuid"})
"""Standard modules whose values have a short repr."""

_ARRAY_PACKAGES = frozenset({"jax", "mlx", "numpy", "pandas", "torch"})


def is_secret(name: str) -> bool:
    """Return whether a value of this name may be a secret, such as `api_key`."""
    return _SECRET_NAME.search(name) is not None


def show(value: Any, width: int) -> str:
    """Return a value as text of at most `width` characters on one line.

    Example:
        >>> show({"model": "m", "api_key": "sk-0123456789"}, 60)
        "{'model': 'm', 'api_key': ***}"
        >>> show(list(range(1000)), 20)
        '[0, 1, 2, 3, 4, 5, …'
    """
    text = ""
    try:
        for part in _parts(value, 0):
            text += part
            if len(text) > width:
                return text[: width - 1] + "…"
    except Exception:  # noqa: BLE001  a property of the value's class may raise anything
        text = f"<{type(value).__qualname__}>"
    return text


def show_text(text: str, width: int) -> str:
    r"""Return a text of at most `width` characters on one line, without quotes.

    Example:
        >>> show_text("no route to\nhttp://me:hunter2@host/", 60)
        'no route to\\nhttp://me:***@host/'
    """
    shown = _string(text)[1:-1]
    return shown if len(shown) <= width else shown[: width - 1] + "…"


def add_note(error: BaseException, text: str) -> None:
    """Add a note that names a call to an error; an error of many calls names the first ones."""
    note = f"cachedeval: in {text}"
    try:
        notes = getattr(error, "__notes__", ())
        ours = [each for each in notes if isinstance(each, str) and each.startswith("cachedeval: ")]
        if note in ours or _MORE in ours:
            return
        error.add_note(note if len(ours) < _NOTES else _MORE)
    except Exception:  # noqa: BLE001  the error's class may forbid attributes, and is what matters
        return


def _parts(value: Any, depth: int) -> Iterator[str]:
    """Yield the text of a value in parts, so that the reader may stop."""
    kind = type(value)
    if depth > _DEPTH:
        yield "…"
    elif kind in _SHOWN:
        yield from _SHOWN[kind](value, depth)
    elif (names := _field_names(value)) is not None:
        yield from _joined(f"{kind.__qualname__}(", _fields(value, names, depth), ")")
    else:
        yield from _other(value, depth)


def _string(value: str) -> str:
    text = str.__getitem__(value, slice(_READ))
    if len(value) > _READ:
        text = _CUT_PASSWORD.sub(rf"\1{SECRET}", text)
    return repr(_SECRET_TEXT.sub(_mask, text))


def _mask(found: re.Match[str]) -> str:
    return f"{found['before'] or found['scheme'] or ''}{SECRET}"


def _joined(start: str, parts: Iterable[Iterator[str]], end: str) -> Iterator[str]:
    yield start
    for number, part in enumerate(parts):
        if number:
            yield ", "
        if number == _LONGEST:
            yield "…"
            break
        yield from part
    yield end


def _members(values: Iterable[Any], depth: int) -> Iterator[Iterator[str]]:
    for value in values:
        yield _parts(value, depth + 1)


def _items(values: dict[Any, Any], depth: int) -> Iterator[Iterator[str]]:
    for key, value in values.items():
        yield _pair(f"{show(key, _READ)}: ", key, value, depth)


def _fields(value: Any, names: Iterable[str], depth: int) -> Iterator[Iterator[str]]:
    for name in names:
        yield _pair(f"{name}=", name, getattr(value, name, None), depth)


def _pair(title: str, key: Any, value: Any, depth: int) -> Iterator[str]:
    yield title
    if type(key) is str and is_secret(key):
        yield SECRET
    else:
        yield from _parts(value, depth + 1)


def _field_names(value: Any) -> tuple[str, ...] | None:
    kind = type(value)
    names = getattr(kind, "__struct_fields__", None) or getattr(kind, "__dataclass_fields__", None)
    if names is None and isinstance(value, tuple):
        names = getattr(kind, "_fields", None)
    return tuple(names) if isinstance(names, (tuple, dict)) else None


def _other(value: Any, depth: int) -> Iterator[str]:
    kind = type(value)
    title = kind.__qualname__
    module = kind.__module__
    package = module.partition(".")[0]
    if hasattr(kind, "__members__"):
        yield f"{title}.{value.name}"  # of an enum
    elif package == "pathlib":
        yield _string(str(value))
    elif package in _PLAIN_MODULES:
        yield repr(value)
    elif package in _ARRAY_PACKAGES and isinstance(getattr(value, "shape", None), tuple):
        yield f"<{title} of shape {tuple(value.shape)}>"
    elif module == "cachedeval.engine.resource":
        yield f"<{value.label}>"
    elif module.startswith("cachedeval.engine."):
        yield repr(value)[:_READ]  # a call
    else:
        base = next((base for base in _SHOWN if isinstance(value, base)), None)
        if base is None:
            yield f"<{title}>"
        else:  # a subclass, such as Counter
            yield f"{title}("
            yield from _SHOWN[base](value, depth)
            yield ")"


_SHOWN: dict[type, Callable[[Any, int], Iterable[str]]] = {
    str: lambda value, _: [_string(value)],
    bool: lambda value, _: [repr(value)],
    int: lambda value, _: [_integer(value)],
    float: lambda value, _: [float.__repr__(value)],
    type(None): lambda _, __: ["None"],
    bytes: lambda value, _: [repr(bytes(value[:_READ]))],
    dict: lambda value, depth: _joined("{", _items(value, depth), "}"),
    list: lambda value, depth: _joined("[", _members(value, depth), "]"),
    tuple: lambda value, depth: _joined("(", _members(value, depth), ",)"[len(value) != 1 :]),
    set: lambda value, depth: _joined("{", _members(value, depth), "}"),
    frozenset: lambda value, depth: _joined("{", _members(value, depth), "}"),
}
"""How the values of a type are shown, given their depth in what contains them."""


def _integer(value: int) -> str:
    bits = value.bit_length()
    return int.__repr__(value) if bits <= _BITS else f"<int of {bits} bits>"
