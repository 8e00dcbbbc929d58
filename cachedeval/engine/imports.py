"""Modules that a function imports when it runs: known by their files, without importing them.

A run of hits must not import what only a computation needs. So the whole file counts, and so do the
files that it imports in turn.
"""

import ast
import os
import sys
import time
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, NamedTuple

from cachedeval.engine.origin import release_of, release_of_file
from cachedeval.engine.parts import content_digest
from cachedeval.engine.reads import Import
from cachedeval.engine.source import text_fingerprint

__all__ = ["Module", "imported"]


class Module(NamedTuple):
    """A module that is known by its file.

    Attributes:
        name: its name.
        known_by: its release or fingerprint; empty if there is no such module.
        inner: the names of the modules that it imports.
        file: its file, or None.
        stamp: when the file was changed last, and its size; None if that was just now.
    """

    name: str
    known_by: str
    inner: list[str]
    file: str | None = None
    stamp: tuple[int, int] | None = None

    def holds(self) -> bool:
        """Return whether the file is as it was; that of a loaded module does not count any more."""
        if self.file is None or self.name in sys.modules:
            return True
        return self.stamp is not None and _stamp(self.file) == self.stamp


_RACY = 2 * 10**9
"""Nanoseconds for which the time of a file's last change does not say whether it is the last."""

_modules: dict[str, Module] = {}


def imported(statement: Import, package: str) -> list[Module]:
    """Return the modules that an import statement loads, in the order of their names.

    Args:
        statement: the statement.
        package: the package of the module that it is in.
    """
    found: dict[str, Module] = {}
    todo = list(_names(statement, package))
    while todo:
        name = todo.pop()
        if name not in found:
            module = _modules.get(name)
            if module is None or not module.holds():
                module = _modules[name] = _read(name)
            found[name] = module
            todo += module.inner
    return [module for _, module in sorted(found.items())]


def _names(statement: Import, package: str) -> list[str]:
    """Return the names of the modules that a statement may load, parents first."""
    base = statement.module
    if statement.level:
        parents = package.split(".")
        above = parents[: len(parents) - statement.level + 1]
        base = ".".join([*above, *filter(None, [statement.module])])
    parts = base.split(".")
    names = [".".join(parts[: end + 1]) for end in range(len(parts))]
    return [*names, *(f"{base}.{name}" for name in statement.names if name != "*")]


def _read(name: str) -> Module:
    if name.partition(".")[0] in {*sys.builtin_module_names, "cachedeval"}:
        return Module(name, release_of(name) or "", [])
    spec = _spec(name)
    if spec is None:  # in `from module import name`, the name may be no module
        return Module(name, "", [])
    file = spec.origin if spec.has_location else None
    release = release_of(name) if file is None else release_of_file(file)
    if release is not None or file is None:
        return Module(name, release or "namespace", [])
    stamp, content = _stamp(file), Path(file).read_bytes()
    known_by, inner = content_digest(content), []
    if file.endswith(".py"):
        with suppress(SyntaxError):
            tree = ast.parse(content)
            known_by = text_fingerprint(tree)
            isolated = spec.submodule_search_locations is None
            package = name.rpartition(".")[0] if isolated else name
            inner = [each for found in _statements(tree) for each in _names(found, package)]
    return Module(name, known_by, inner, file, stamp)


def _stamp(file: str) -> tuple[int, int] | None:
    try:
        found = os.stat(file)  # noqa: PTH116  it is asked for at each call of a node
    except OSError:
        return None
    # Two edits in quick succession may leave the same time.
    recent = time.time_ns() - found.st_mtime_ns < _RACY
    return None if recent else (found.st_mtime_ns, found.st_size)


def _spec(name: str) -> ModuleSpec | None:
    """Find a module, without importing the packages that it is in."""
    path: Any = None
    spec: ModuleSpec | None = None
    parts = name.split(".")
    for end in range(len(parts)):
        spec = _find(".".join(parts[: end + 1]), path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
        if path is None and end + 1 < len(parts):
            return None
    return spec


def _find(name: str, path: Any) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = None if find is None else find(name, path)
        if spec is not None:
            return spec
    return None


def _statements(tree: ast.Module) -> list[Import]:
    found = []
    for part in ast.walk(tree):
        if isinstance(part, ast.Import):
            found += [Import(each.name, 0, ()) for each in part.names]
        elif isinstance(part, ast.ImportFrom):
            names = tuple(each.name for each in part.names)
            found.append(Import(part.module or "", part.level, names))
    return found
