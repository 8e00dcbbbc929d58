"""What a node's code is: fingerprints of sources and of compiled code."""

import sys
import types
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import xxhash

from cachedeval.engine.encoding import encode
from cachedeval.engine.errors import EncodingError, InputError

if TYPE_CHECKING:
    import ast

__all__ = [
    "code_fingerprint",
    "drifted",
    "once_a_code",
    "remember_source",
    "source_fingerprint",
    "syntax_of",
]


R = TypeVar("R")


def once_a_code(function: Callable[..., R]) -> Callable[..., R]:
    """Remember what a function of a code object, and of plain arguments, returns.

    By identity: two code objects may be equal, and stand in different files with different
    defaults. What is remembered is kept, as no identity may come again.
    """
    known: dict[tuple[Any, ...], tuple[Any, R]] = {}

    @wraps(function)
    def wrapped(code: Any, *args: Any) -> R:
        key = (id(code), *args)
        if key not in known:
            known[key] = code, function(code, *args)
        return known[key][1]

    return wrapped


_remembered: dict[str, list[str]] = {}


def remember_source(code: types.CodeType) -> None:
    """Keep the lines of a function's file as they are now, when it was just compiled from them.

    Whoever edits the file while the program runs changes what is on disk, not what runs.
    """
    import linecache  # noqa: PLC0415  versioned nodes have no need of it

    linecache.checkcache(code.co_filename)
    _remembered[code.co_filename] = linecache.getlines(code.co_filename)


def source_fingerprint(functions: Iterable[Callable[..., Any] | types.CodeType]) -> str:
    """Return a digest of the functions' normalised sources: comments, docstrings, layout are out.

    The same for every version of Python that reads the source alike.

    Raises:
        InputError: the source of one of them cannot be read.
    """
    parts = []
    for function in functions:
        code = getattr(function, "__code__", function)
        try:
            parts.append(_normal(syntax_of(code)))
        except (OSError, TypeError, SyntaxError) as error:
            name = getattr(function, "__qualname__", getattr(code, "co_qualname", function))
            raise InputError(
                f"the source of {name!r} cannot be read ({error}), so it cannot be its version: "
                'give the node one, @node(version="1")'
            ) from None
    return "source:" + xxhash.xxh3_128_hexdigest(encode(parts))


@once_a_code
def syntax_of(code: Any) -> "ast.Module":
    """Return the syntax tree of a source, without decorators and docstrings.

    Args:
        code: a function's code, or a class.

    Raises:
        OSError, SyntaxError: it cannot be read.
        TypeError: it is neither, or not written in Python.
    """
    import ast  # noqa: PLC0415  both are slow to import, and versioned nodes need neither
    import inspect  # noqa: PLC0415
    import textwrap  # noqa: PLC0415

    lines = _remembered.get(getattr(code, "co_filename", ""))
    if lines:
        source = "".join(inspect.getblock(lines[code.co_firstlineno - 1 :]))
    else:
        source = inspect.getsource(code)
    tree = ast.parse(textwrap.dedent(source))
    for part in ast.walk(tree):
        if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and (
            ast.get_docstring(part, clean=False) is not None
        ):
            part.body = part.body[1:]
        if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
            # How a node is registered (its memory, its lane) is not what it computes.
            part.decorator_list = []
    return tree


def _normal(tree: Any) -> Any:
    """Return a syntax tree as plain data; what is empty is out, for versions differ in it."""
    import ast  # noqa: PLC0415

    if isinstance(tree, ast.AST):
        fields = ((name, _normal(value)) for name, value in ast.iter_fields(tree))
        return (type(tree).__name__, {n: v for n, v in fields if v not in (None, [])})
    if isinstance(tree, list):
        return [_normal(member) for member in tree]
    if isinstance(tree, complex):
        return ("complex", tree.real, tree.imag)
    return ("...",) if tree is ... else tree


def code_fingerprint(function: Callable[..., Any]) -> str:
    """Return a digest of the function's compiled code, cheap enough to compare on each start.

    It differs between versions of Python, so it begins with the version's tag, and a docstring
    changes it: where it differs, the source tells.
    """
    code = getattr(function, "__code__", None)
    parts = _code_parts(code) if isinstance(code, types.CodeType) else None
    return f"{sys.implementation.cache_tag}:{xxhash.xxh3_128_hexdigest(encode(parts))}"


def _code_parts(code: types.CodeType) -> list[Any]:
    constants: list[Any] = []
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            constants.append(_code_parts(constant))
        else:
            try:
                constants.append(encode(constant))
            except EncodingError:
                constants.append(type(constant).__qualname__)
    names = code.co_names, code.co_varnames, code.co_freevars
    return [code.co_code, code.co_exceptiontable, names, constants]


def drifted(function: Callable[..., Any], code: str, source: str) -> bool:
    """Say whether a function is another than when these fingerprints of it were taken.

    Args:
        function: as it is now.
        code: the fingerprint of its code.
        source: that of its source, or nothing where it could not be read.
    """
    now = code_fingerprint(function)
    if code == now:
        return False
    if source:
        with suppress(InputError):
            return source != source_fingerprint((function,))
    # Without the source, the code tells, if the same Python compiled it.
    return code.partition(":")[0] == now.partition(":")[0]
