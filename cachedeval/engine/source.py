"""Fingerprints of a node's source and of its compiled code.

The source fingerprint is the version of a node without a declared one. Both fingerprints are stored
with results: a hit whose node has other source now is reported as a stale version.
"""

# Lazy imports: nodes with a version need neither `ast`, `inspect`, `linecache` nor `textwrap`, and
# a run of hits is faster without them.

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
    """Cache the results of a function of a code object and of plain arguments.

    Code objects are compared by identity: two equal ones may be of different files. The cache keeps
    the code objects alive, so that no other object gets the same id.
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
    """Store the lines of a function's file, just after the function was compiled from them.

    An edit of the file while the program runs changes the file, but not the code that runs.
    """
    import linecache

    linecache.checkcache(code.co_filename)
    _remembered[code.co_filename] = linecache.getlines(code.co_filename)


def source_fingerprint(functions: Iterable[Callable[..., Any] | types.CodeType]) -> str:
    """Return a digest of the functions' sources without comments, docstrings and layout.

    Python versions that parse the source to equal syntax trees give the same digest.

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
                f"the source of {name!r} cannot be read ({error}), so it cannot be the version: "
                'give the node one, @node(version="1")'
            ) from None
    return "source:" + xxhash.xxh3_128_hexdigest(encode(parts))


@once_a_code
def syntax_of(code: Any) -> "ast.Module":
    """Return the syntax tree of a source, without decorators and docstrings.

    Args:
        code: the code object of a function, or a class.

    Raises:
        OSError: the source cannot be read.
        SyntaxError: the source cannot be parsed.
        TypeError: it is neither a code object nor a class, or is not written in Python.
    """
    import ast
    import inspect
    import textwrap

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
            # The arguments of `@node` (its executor, its limiter) do not change the result.
            part.decorator_list = []
    return tree


def _normal(tree: Any) -> Any:
    """Return a syntax tree as plain data, without empty fields: Python versions differ in them."""
    import ast

    if isinstance(tree, ast.AST):
        fields = ((name, _normal(value)) for name, value in ast.iter_fields(tree))
        return (type(tree).__name__, {n: v for n, v in fields if v not in (None, [])})
    if isinstance(tree, list):
        return [_normal(member) for member in tree]
    if isinstance(tree, complex):
        return ("complex", tree.real, tree.imag)
    return ("...",) if tree is ... else tree


def code_fingerprint(function: Callable[..., Any]) -> str:
    """Return a digest of the function's compiled code, which is fast to compute.

    It depends on the Python version, so it begins with the version's tag. It also depends on
    docstrings: if it differs, compare the sources.
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
    """Return whether a function has changed since its fingerprints were taken.

    Args:
        function: the function now.
        code: the fingerprint of its code then.
        source: the fingerprint of its source then; empty if the source could not be read.
    """
    now = code_fingerprint(function)
    if code == now:
        return False
    if source:
        with suppress(InputError):
            return source != source_fingerprint((function,))
    # Without a source, the code decides if the same Python version compiled both.
    return code.partition(":")[0] == now.partition(":")[0]
