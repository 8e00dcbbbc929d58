"""Fingerprints of source and of compiled code.

The source fingerprint is the version of a node without a declared one. Both fingerprints are stored
with results: a hit whose node has other source now is reported as a stale version.

A function is found in the syntax tree of its file by its place in the file. The file may have been
edited since it was compiled. Then the compiled code counts, because it is what runs.
"""

# Lazy imports: nodes with a version need neither `ast` nor `linecache`, and a run of hits is faster
# without them.

import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    "normal",
    "once_a_code",
    "remember_source",
    "source_fingerprint",
    "syntax_of",
    "text_fingerprint",
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


# The files of functions.


class _EditedError(Exception):
    """The file of a function is not what the function was compiled from."""


class _File:
    """The syntax tree of a file, and the code that it compiles to.

    Args:
        text: the text of the file.
        name: its name.
    """

    def __init__(self, text: str, name: str) -> None:
        import ast

        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT  # a cell of a notebook may have it
        self.text = text
        self.tree: ast.Module = _parsed(text, name, flags | ast.PyCF_ONLY_AST)
        self.nodes: dict[tuple[str, int], list[ast.AST]] = {}
        """Functions and lambdas by name and first line."""
        for part in ast.walk(self.tree):
            if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = min([part.lineno, *(each.lineno for each in part.decorator_list)])
                self.nodes.setdefault((part.name, first), []).append(part)
            elif isinstance(part, ast.Lambda):
                self.nodes.setdefault(("<lambda>", part.lineno), []).append(part)
        self.codes: dict[tuple[str, int], list[types.CodeType]] = {}
        todo = [compile(self.tree, name, "exec", flags, dont_inherit=True)]
        while todo:
            code = todo.pop()
            self.codes.setdefault((code.co_name, code.co_firstlineno), []).append(code)
            todo += (inner for inner in code.co_consts if isinstance(inner, types.CodeType))

    def find(self, code: types.CodeType) -> Any:
        """Return the syntax of a function.

        Raises:
            _EditedError: the text does not compile to the code.
        """
        at = code.co_name, code.co_firstlineno
        parts = _code_parts(code)
        if not any(_code_parts(other) == parts for other in self.codes.get(at, ())) and not (
            any(name.startswith("@py") for name in code.co_names)  # pytest rewrites assertions
        ):
            raise _EditedError
        found = self.nodes.get(at, [])
        if len(found) > 1:  # lambdas of one line
            found = sorted((node for node in found if _holds(node, code)), key=_extent)[:1]
        if not found:
            raise _EditedError
        return found[0]


def _parsed(text: str, name: str, flags: int) -> Any:
    try:
        return compile(text, name, "exec", flags, dont_inherit=True)
    except SystemError:
        # Python 3.11 loses count of its depth if a garbage collection comes in between.
        return compile(text, name, "exec", flags, dont_inherit=True)


def _holds(node: Any, code: types.CodeType) -> bool:
    """Return whether all instructions of a code object are within the body of a function."""
    body = node.body if isinstance(node.body, list) else [node.body]
    start = body[0].lineno, body[0].col_offset
    end = body[-1].end_lineno, body[-1].end_col_offset
    places = [place for place in code.co_positions() if None not in place and place[2] != place[3]]
    return bool(places) and all(
        start <= (line, column) and (end_line, end_column) <= end
        for line, end_line, column, end_column in places
    )


def _extent(node: Any) -> tuple[int, int]:
    return node.end_lineno - node.lineno, node.end_col_offset - node.col_offset


_remembered: dict[str, str] = {}
_files: dict[str, _File] = {}


def remember_source(code: types.CodeType) -> None:
    """Store the text of a function's file, just after the function was compiled from it.

    An edit of the file while the program runs changes the file, but not the code that runs.
    """
    import linecache

    linecache.checkcache(code.co_filename)
    _remembered[code.co_filename] = "".join(linecache.getlines(code.co_filename))


def _file(name: str, names: Mapping[str, Any] | None) -> _File:
    """Return a file by name.

    Args:
        name: the name of the file.
        names: the module's names, with a loader that may know the text.

    Raises:
        OSError: it cannot be read.
        SyntaxError: it cannot be parsed.
    """
    text = _remembered.get(name)
    if not text:
        import linecache

        linecache.checkcache(name)
        text = "".join(linecache.getlines(name, None if names is None else dict(names)))
    if not text:
        raise OSError("could not get source code")
    file = _files.get(name)
    if file is None or file.text != text:
        file = _files[name] = _File(text, name)
    return file


def syntax_of(function: Any) -> "ast.AST":
    """Return the syntax of a function or a class.

    Args:
        function: a function, its code object, or a class.

    Raises:
        OSError: the source cannot be read.
        SyntaxError: the source cannot be parsed.
        TypeError: it is neither a function nor a class, or is not written in Python.
        _EditedError: the file was edited since the function was compiled.
    """
    if isinstance(function, type):
        return _class_syntax(function)
    code = getattr(function, "__code__", function)
    if not isinstance(code, types.CodeType):
        raise TypeError("it is not written in Python")
    return _syntax(code, getattr(function, "__globals__", None))


_known: dict[int, tuple[types.CodeType, "ast.AST"]] = {}


def _syntax(code: types.CodeType, names: Mapping[str, Any] | None) -> "ast.AST":
    known = _known.get(id(code))
    if known is None:
        known = _known[id(code)] = code, _file(code.co_filename, names).find(code)
    return known[1]


def _class_syntax(cls: type) -> "ast.AST":
    import ast

    module = sys.modules.get(cls.__module__)
    name = getattr(module, "__file__", None)
    if module is None or name is None:
        raise OSError("could not get source code")
    todo: list[tuple[str, ast.AST]] = [("", _file(name, vars(module)).tree)]
    found: list[ast.AST] = []
    while todo:
        prefix, node = todo.pop()
        for part in ast.iter_child_nodes(node):
            inside = prefix
            if isinstance(part, ast.ClassDef):
                if prefix + part.name == cls.__qualname__:
                    found.append(part)
                inside = f"{prefix}{part.name}."
            elif isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
                inside = f"{prefix}{part.name}.<locals>."
            todo.append((inside, part))
    if len(found) != 1:
        raise OSError(f"{len(found)} classes of this name are in {name}")
    return found[0]


# Fingerprints.


def source_fingerprint(functions: Iterable[Any]) -> str:
    """Return a digest of the sources of functions and classes.

    Comments, docstrings, layout and their own decorators do not count. Python versions that parse
    the source to equal syntax trees give the same digest.

    Raises:
        InputError: the source of one of them cannot be read.
    """
    parts: list[Any] = []
    for function in functions:
        try:
            # The arguments of `@node` (its executor, its limiter) do not change the result.
            parts.append(("Module", {"body": [normal(syntax_of(function), decorated=False)]}))
        except _EditedError:
            parts.append(code_fingerprint(function))
        except (OSError, TypeError, SyntaxError) as error:
            code = getattr(function, "__code__", function)
            name = getattr(function, "__qualname__", getattr(code, "co_qualname", function))
            raise InputError(
                f"the source of {name!r} cannot be read ({error}), so it cannot be the version: "
                'give the node one, @node(version="1")'
            ) from None
    return "source:" + xxhash.xxh3_128_hexdigest(encode(parts))


def text_fingerprint(tree: "ast.Module") -> str:
    """Return a digest of the syntax tree of a whole module."""
    return "source:" + xxhash.xxh3_128_hexdigest(encode(normal(tree)))


def normal(tree: Any, *, decorated: bool = True) -> Any:
    """Return a syntax tree as plain data, without docstrings.

    Empty fields are left out, because Python versions differ in them.

    Args:
        tree: a node of a syntax tree.
        decorated: whether the decorators of the node itself count.
    """
    import ast

    if isinstance(tree, ast.AST):
        fields = {name: normal(value) for name, value in _fields(tree, decorated=decorated)}
        return (type(tree).__name__, {n: v for n, v in fields.items() if v not in (None, [])})
    if isinstance(tree, list):
        return [normal(member) for member in tree]
    if isinstance(tree, complex):
        return ("complex", tree.real, tree.imag)
    return ("...",) if tree is ... else tree


def _fields(tree: "ast.AST", *, decorated: bool) -> Iterator[tuple[str, Any]]:
    import ast

    documented = isinstance(
        tree, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
    ) and (ast.get_docstring(tree, clean=False) is not None)
    for name, value in ast.iter_fields(tree):
        if name == "body" and documented:
            yield name, value[1:]
        elif name != "decorator_list" or decorated:
            yield name, value


def code_fingerprint(function: Any) -> str:
    """Return a digest of a function's compiled code, which is fast to compute.

    It depends on the Python version, so it begins with the version's tag. It also depends on
    docstrings: if it differs, compare the sources.

    Args:
        function: a function or a code object.
    """
    code = getattr(function, "__code__", function)
    parts = _code_parts(code) if isinstance(code, types.CodeType) else None
    return f"{sys.implementation.cache_tag}:{xxhash.xxh3_128_hexdigest(encode(parts))}"


def _code_parts(code: types.CodeType) -> list[Any]:
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    names = code.co_names, code.co_varnames, code.co_freevars
    constants = [_constant(constant) for constant in code.co_consts]
    return [code.co_code, code.co_exceptiontable, counts, names, constants]


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return _code_parts(value)
    if isinstance(value, tuple):
        return tuple(_constant(member) for member in value)
    if isinstance(value, complex):
        return ("complex", value.real, value.imag)
    if isinstance(value, slice):
        return ("slice", _constant((value.start, value.stop, value.step)))
    try:
        return encode(value)
    except EncodingError:
        return type(value).__qualname__


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
