"""What a call refuses to do: whatever works on a value, as a call has none before it is run.

Without this, `if call:` is always true, `call == 3` never, and `f"{call}"` puts the text of an object
into a prompt. Type checkers do not see these methods: to them a call may stand for its value.

These go on working: the hash and the identity of calls, `call is None`, comparing calls with each
other, `repr` and `str` (so that `print(call)` says what it is), and copying.
"""

from typing import TYPE_CHECKING, Any, NoReturn

__all__ = ["Unrun"]

_VALUES = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, type(None))

_OPERATORS = {
    "+": ("add", "radd"),
    "-": ("sub", "rsub", "neg"),
    "*": ("mul", "rmul"),
    "/": ("truediv", "rtruediv"),
    "//": ("floordiv", "rfloordiv"),
    "%": ("mod", "rmod"),
    "**": ("pow", "rpow"),
    "@": ("matmul", "rmatmul"),
    "&": ("and", "rand"),
    "|": ("or", "ror"),
    "^": ("xor", "rxor"),
    "<<": ("lshift", "rlshift"),
    ">>": ("rshift", "rrshift"),
    "~": ("invert",),
    "<": ("lt",),
    "<=": ("le",),
    ">": ("gt",),
    ">=": ("ge",),
    "abs": ("abs",),
    "divmod": ("divmod", "rdivmod"),
    "round": ("round",),
    "int": ("int", "index", "trunc", "floor", "ceil"),
    "float": ("float",),
    "complex": ("complex",),
    "bytes": ("bytes",),
    "the truth of it (if, and, or, not)": ("bool",),
    "len": ("len",),
    "iteration": ("iter", "next", "reversed"),
    "in": ("contains",),
    "[…]": ("getitem", "setitem", "delitem"),
    "with": ("enter", "exit"),
    "an f-string (for its description, write {call!r})": ("format",),
}
"""The special methods that are refused, by what the caller wrote."""

_AWAITED = {
    "await": ("await",),
    "async for": ("aiter",),
    "async with": ("aenter", "aexit"),
}


class Unrun:
    """The base class of `Call`: raises an error that names `engine.run` where a value is needed."""

    __slots__ = ()

    if not TYPE_CHECKING:

        def __eq__(self, other: object) -> bool:
            if self is other:
                return True
            if isinstance(other, _VALUES) or _has_fields(type(other)):
                _refuse(self, "==")
            return NotImplemented

        __hash__ = object.__hash__

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            raise AttributeError(
                f"{self!r} has no value before it runs, so it has no {name!r}: take it from "
                f"the result, engine.run(call).{name}"
            )


def _has_fields(kind: type) -> bool:
    return any(
        hasattr(kind, name)
        for name in ("__dataclass_fields__", "__struct_fields__", "__members__", "__attrs_attrs__")
    )


def _refuse(call: Any, what: str, run: str = "engine.run(call)") -> NoReturn:
    raise TypeError(
        f"{call!r} has no value before it runs, so it does not support {what}: use the result of "
        f"{run}, or do this in a node that takes the call as an input"
    )


def _refusing(what: str, run: str) -> Any:
    def method(self: Any, *_: Any) -> NoReturn:
        _refuse(self, what, run)

    return method


for _names, _run in ((_OPERATORS, "engine.run(call)"), (_AWAITED, "await engine.arun(call)")):
    for _what, _methods in _names.items():
        for _method in _methods:
            setattr(Unrun, f"__{_method}__", _refusing(_what, _run))
