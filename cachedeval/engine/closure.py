"""The closure of a node's function: the names outside the function that its result depends on.

These are closed-over names and, for a node without a version, globals of the function's module.
"""

# Lazy imports: nodes with a version need neither `ast` nor `dis`, and a run of hits is faster
# without them.

import types
from collections.abc import Iterator
from typing import Any

from cachedeval.engine.encoding import encode
from cachedeval.engine.errors import EncodingError, InputError
from cachedeval.engine.source import (
    code_fingerprint,
    once_a_code,
    source_fingerprint,
    syntax_of,
)

__all__ = ["closure_of"]

_SINKS = frozenset({"add", "append", "appendleft", "extend", "put", "put_nowait", "update"})


def closure_of(function: types.FunctionType, *, versioned: bool) -> dict[str, Any]:
    """Return the closed-over values, and the globals, that are part of a call's key.

    Closed-over plain data counts, and so does the code of closed-over functions. Names that the
    function only writes to (a list that it appends to, a counter) do not count. Another object (a
    lock, a client) is covered by the node's version; without a version it raises.

    Without a version, globals count by the same rules. But a global that is neither data nor a
    function of the same module does not count: declare helpers of other modules with `helpers=`.

    Args:
        function: the function of a node.
        versioned: whether the node has a version.

    Raises:
        InputError: a node without a version closes over something that is neither data nor code.
    """
    return _captured(function, versioned=versioned, seen={function})


def _captured(function: types.FunctionType, *, versioned: bool, seen: set[Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in _closed_over(function):
        if _is_function(value):
            _add_function(values, name, value, versioned=versioned, seen=seen)
        elif not _add_data(values, name, value) and not versioned:
            raise InputError(
                f"{function.__qualname__} closes over {name!r}, a {type(value).__qualname__} that "
                "cannot be part of a key: pass it as an argument, or give the node a version that "
                'answers for it, @node(version="1")'
            )
    for name in () if versioned else _globals_read(function.__code__):
        value = function.__globals__.get(name)
        if _is_function(value):
            if _function(value).__module__ == function.__module__:
                _add_function(values, name, value, versioned=versioned, seen=seen)
        elif value is not None and not isinstance(value, (type, types.ModuleType)):
            _add_data(values, name, value)
    return values


def _closed_over(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # not bound yet
            continue
        if _function(value) is not function and not only_written(code, name):
            yield name, value


def _is_function(value: Any) -> bool:
    return isinstance(_function(value), types.FunctionType)


def _function(value: Any) -> Any:
    return getattr(value, "function", value)  # the function of a node


def _add_function(
    values: dict[str, Any], name: str, value: Any, *, versioned: bool, seen: set[Any]
) -> None:
    function = _function(value)
    inner: dict[str, Any] = {}
    if function not in seen:  # a function may call itself
        seen.add(function)
        inner = _captured(function, versioned=versioned, seen=seen)
    values[name] = (_fingerprint(function), inner)


def _add_data(values: dict[str, Any], name: str, value: Any) -> bool:
    try:
        encode(value)
    except EncodingError:
        return False
    values[name] = value
    return True


def _fingerprint(function: types.FunctionType) -> str:
    try:
        return _source_fingerprint(function.__code__)
    except InputError:
        return code_fingerprint(function)


@once_a_code
def _source_fingerprint(code: types.CodeType) -> str:
    return source_fingerprint((code,))


@once_a_code
def _globals_read(code: types.CodeType) -> tuple[str, ...]:
    """Return the globals that a function, or a function inside it, reads."""
    import dis

    names = {
        str(instruction.argval)
        for part in _with_inner(code)
        for instruction in dis.get_instructions(part)
        if instruction.opname in {"LOAD_GLOBAL", "LOAD_NAME"}
    }
    return tuple(sorted(name for name in names if not only_written(code, name)))


def _with_inner(code: types.CodeType) -> list[types.CodeType]:
    parts = [code]
    for part in parts:
        parts += (inner for inner in part.co_consts if isinstance(inner, types.CodeType))
    return parts


@once_a_code
def only_written(code: types.CodeType, name: str) -> bool:
    """Return whether a function only writes to an outer name, according to its syntax."""
    import ast

    try:
        tree = syntax_of(code)
    except (OSError, TypeError, SyntaxError):
        return False
    sinks: set[int] = set()
    for part in ast.walk(tree):
        match part:
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
    return bool(uses) and all(id(use) in sinks or isinstance(use.ctx, ast.Store) for use in uses)
