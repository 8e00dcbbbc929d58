"""What a node's code is: fingerprints of functions, and the values that a function closes over."""

import types
from collections.abc import Callable, Iterable
from typing import Any

import xxhash

from cachedeval.engine.encoding import encode
from cachedeval.engine.errors import EncodingError, InputError

__all__ = ["captured", "code_fingerprint", "source_fingerprint"]

_SINKS = frozenset({"add", "append", "appendleft", "extend", "put", "put_nowait", "update"})


def source_fingerprint(functions: Iterable[Callable[..., Any]]) -> str:
    """Return a digest of the functions' normalised sources: comments, docstrings, layout are out.

    Raises:
        InputError: the source of one of them cannot be read.
    """
    import ast  # noqa: PLC0415  both are slow to import, and versioned nodes need neither
    import inspect  # noqa: PLC0415
    import textwrap  # noqa: PLC0415

    parts = []
    for function in functions:
        plain = inspect.unwrap(function)
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(plain)))
        except (OSError, TypeError, SyntaxError) as error:
            raise InputError(
                f"the source of {getattr(plain, '__qualname__', plain)!r} cannot be read "
                f'({error}), so it cannot be its version: give the node one, @node(version="1")'
            ) from None
        for part in ast.walk(tree):
            body = getattr(part, "body", None)
            if (
                isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
                and isinstance(body, list)
                and ast.get_docstring(part, clean=False) is not None
            ):
                part.body = body[1:]
            if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
                # How a node is registered (its memory, its lane) is not what it computes.
                part.decorator_list = []
        parts.append(ast.dump(tree))
    return "source:" + xxhash.xxh3_128_hexdigest(encode(parts))


def code_fingerprint(function: Callable[..., Any]) -> str:
    """Return a digest of the function's compiled code, cheap enough to compare on each start.

    It differs between versions of Python, so it begins with the version's tag: two fingerprints
    say something of each other only where that is equal.
    """
    import sys  # noqa: PLC0415

    code = getattr(function, "__code__", None)
    parts = _code_parts(code) if isinstance(code, types.CodeType) else None
    return f"{sys.implementation.cache_tag}:{xxhash.xxh3_128_hexdigest(encode(parts))}"


def _code_parts(code: types.CodeType) -> list[Any]:
    constants: list[Any] = []
    # The first constant is the docstring, or None: comment, not code.
    for constant in code.co_consts[1:]:
        if isinstance(constant, types.CodeType):
            constants.append(_code_parts(constant))
        else:
            try:
                constants.append(encode(constant))
            except EncodingError:
                constants.append(type(constant).__qualname__)
    return [code.co_code, list(code.co_names), list(code.co_varnames), constants]


def captured(function: types.FunctionType, *, versioned: bool) -> dict[str, Any]:
    """Return what the function closes over, as far as it is part of what the function computes.

    Plain data counts, and so does the code of a function. What the function only writes to (a list
    that it appends to, a name that it declares nonlocal) does not. Another object (a lock, a
    client) is a tool, not a value: the version answers for it, and without a version it is refused.

    Raises:
        InputError: without a version, something captured is neither data nor code.
    """
    code = function.__code__
    values: dict[str, Any] = {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # a name that is not bound yet, as in a function that calls itself
            continue
        if value is function or getattr(value, "function", None) is function:
            continue
        inner = getattr(value, "function", value)
        if isinstance(inner, types.FunctionType):
            values[name] = (code_fingerprint(inner), captured(inner, versioned=versioned))
            continue
        if _only_written(function, name):
            continue
        try:
            encode(value)
        except EncodingError as error:
            if versioned:
                continue
            raise InputError(
                f"{function.__qualname__} closes over {name!r}, a {type(value).__qualname__} that "
                f"cannot be part of a key ({error}): pass it as an argument, or give the node a "
                'version that answers for it, @node(version="1")'
            ) from None
        values[name] = value
    return values


def _only_written(function: types.FunctionType, name: str) -> bool:
    """Say whether the function uses a captured name as a sink alone, by its syntax."""
    import ast  # noqa: PLC0415  slow to import, and few functions capture data
    import inspect  # noqa: PLC0415
    import textwrap  # noqa: PLC0415

    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return False
    sinks: set[int] = set()
    for part in ast.walk(tree):
        match part:
            case ast.Nonlocal(names=names) if name in names:
                return True
            case ast.Expr(
                value=ast.Call(func=ast.Attribute(value=ast.Name(id=found) as use, attr=attr))
            ) if found == name and attr in _SINKS:
                sinks.add(id(use))
            case (
                ast.AugAssign(target=ast.Subscript(value=ast.Name(id=found) as use))
                | ast.Assign(targets=[ast.Subscript(value=ast.Name(id=found) as use)])
            ) if found == name:
                sinks.add(id(use))
    uses = [part for part in ast.walk(tree) if isinstance(part, ast.Name) and part.id == name]
    return bool(uses) and all(id(use) in sinks for use in uses)
