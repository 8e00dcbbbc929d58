"""What a code object reads from outside, according to its instructions and its syntax."""

import ast
import dis
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

from cachedeval.engine.source import once_a_code, syntax_of

__all__ = ["Import", "Reads", "is_dynamic", "is_sink", "only_written", "reads_of"]

_GLOBALS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_CELLS = frozenset({"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"})
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_FILLERS = frozenset({"CACHE", "EXTENDED_ARG"})


class Import(NamedTuple):
    """An import statement inside a function.

    Attributes:
        module: the module's name, relative if `level` is not 0.
        level: how many dots are before it.
        names: the names that are imported from it.
    """

    module: str
    level: int
    names: tuple[str, ...]


class Reads(NamedTuple):
    """What a code object, and those inside it, read from outside.

    Attributes:
        names: the global names, each with the chains of attributes that are read from it: `np` in
            `np.random.rand(…)` with `("random", "rand")`. An empty chain is any other use.
        cells: the same for closed-over names.
        imports: the import statements.
    """

    names: dict[str, set[tuple[str, ...]]]
    cells: dict[str, set[tuple[str, ...]]]
    imports: tuple[Import, ...]


@once_a_code
def reads_of(code: types.CodeType) -> Reads:
    """Return what a code object reads from outside, in the order of names."""
    names: dict[str, set[tuple[str, ...]]] = {}
    cells: dict[str, set[tuple[str, ...]]] = {}
    imports: dict[Import, None] = {}
    for part in _with_inner(code):
        steps = [step for step in dis.get_instructions(part) if step.opname not in _FILLERS]
        for at, step in enumerate(steps):
            if step.opname in _GLOBALS:
                names.setdefault(step.argval, set()).add(tuple(_chain(steps, at + 1)))
            elif step.opname in _CELLS:
                cells.setdefault(step.argval, set()).add(tuple(_chain(steps, at + 1)))
            elif step.opname == "IMPORT_NAME":
                level, wanted = steps[at - 2].argval, steps[at - 1].argval
                imports[Import(step.argval, level, tuple(wanted or ()))] = None
    return Reads(dict(sorted(names.items())), dict(sorted(cells.items())), tuple(sorted(imports)))


def _chain(steps: list[dis.Instruction], at: int) -> Iterator[str]:
    """Yield the attributes that the instructions from an index on read one from the other."""
    while at < len(steps) and steps[at].opname in _ATTRIBUTES:
        yield steps[at].argval
        at += 1


def _with_inner(code: types.CodeType) -> list[types.CodeType]:
    parts = [code]
    for part in parts:
        parts += (inner for inner in part.co_consts if isinstance(inner, types.CodeType))
    return parts


def is_dynamic(value: Any) -> bool:
    """Return whether a value finds others by names that are known only when it runs."""
    if value is sys.modules:
        return True
    if not isinstance(value, types.BuiltinFunctionType | types.FunctionType):
        return False
    dynamic = (eval, exec, globals, __import__, importlib.import_module, sys._getframe)  # noqa: SLF001  it finds names of callers
    return any(value is each for each in dynamic)


_SINKS = frozenset({"add", "append", "appendleft", "extend", "put", "put_nowait", "update"})
_SINK_MODULES = frozenset({"builtins", "collections", "queue"})


def is_sink(code: types.CodeType, name: str, value: Any) -> bool:
    """Return whether a value is a container or a number that a function only writes to."""
    return type(value).__module__ in _SINK_MODULES and only_written(code, name)


@once_a_code
def only_written(code: types.CodeType, name: str) -> bool:
    """Return whether a function only writes to an outer name, according to its syntax."""
    try:
        tree = syntax_of(code)
    except Exception:  # noqa: BLE001  without a syntax it may be read
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
