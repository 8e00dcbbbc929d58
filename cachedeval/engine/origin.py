"""Where code comes from: the name of its module, the release that installed it, and its file.

`__main__` is named by its file, so that a script and its import are one. Code of an installed
package is known by the package's version, code of the standard library by Python's. All other code
is the project's, and known by its source. That includes packages installed with `pip install -e`.
"""

# ruff: noqa: PTH100, PTH110, PTH118, PTH120, PTH122, PTH206 - plain paths are faster

import os
import sys
import types
from collections.abc import Mapping
from functools import cache
from typing import Any

from cachedeval.engine import installed

__all__ = ["class_name", "module_name", "namespace_of", "place_of", "release_of", "release_of_file"]

_MAIN = frozenset({"__main__", "__mp_main__"})
"""The names of a program's first module; the second one in children that are spawned."""

_ROOTS = (".git", ".hg", "pyproject.toml", "setup.py", "setup.cfg")
"""What the root folder of a project holds."""

_OURS = "cachedeval"


def class_name(cls: type) -> str:
    """Return module and qualified name of a class."""
    return f"{module_name(cls.__module__)}.{cls.__qualname__}"


def module_name(module: str, namespace: Mapping[str, Any] | None = None) -> str:
    """Return the name of a module; for `__main__` the name that an import would give it.

    Without a file (a notebook, a prompt, `python -c`), it stays `__main__`.

    Args:
        module: the module's `__name__`.
        namespace: the module's names; by default those of the loaded module.
    """
    if module not in _MAIN:
        return module
    if namespace is None:
        namespace = getattr(sys.modules.get(module), "__dict__", {})
    spec = namespace.get("__spec__")
    if spec is not None and spec.name not in _MAIN:  # python -m package.module
        return str(spec.name)
    file = namespace.get("__file__")
    if not file:
        return module
    folder, base = os.path.split(os.path.abspath(file))
    parts = [os.path.splitext(base)[0]]
    if parts[0] in _MAIN:  # python FOLDER
        folder, package = os.path.split(folder)
        parts.insert(0, package)
    while os.path.exists(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        parts.insert(0, package)
    return ".".join(parts)


def namespace_of(function: types.FunctionType) -> Mapping[str, Any]:
    """Return the names of the module that a function says it is of.

    `functools.wraps` gives a wrapper the module of what it wraps.
    """
    names = function.__globals__
    if names.get("__name__") == function.__module__:
        return names
    module = sys.modules.get(function.__module__)
    return names if module is None else vars(module)


def release_of(module: str) -> str | None:
    """Return what installed a module, as in `numpy 2.1.0` or `python 3.12`; None for the project.

    Args:
        module: the module's `__name__`.
    """
    top = module.partition(".")[0]
    if top == _OURS or top.startswith(f"{_OURS}_"):
        return f"{_OURS} {installed.version(_OURS)}"
    if module in _MAIN:
        return None
    # A class may name a module that is not loaded, or that does not exist.
    known = module
    while known not in sys.modules and "." in known:
        known = known.rpartition(".")[0]
    file = getattr(sys.modules.get(known), "__file__", None)
    if file is None:
        return _PYTHON if top in sys.stdlib_module_names else None
    return release_of_file(file)


_PYTHON = f"python {sys.version_info[0]}.{sys.version_info[1]}"


@cache
def release_of_file(file: str) -> str | None:
    """Return what installed a file, as `release_of`."""
    folders = os.path.abspath(file).split(os.sep)
    if installed.FOLDERS.isdisjoint(folders):
        within = os.path.abspath(file).startswith(os.path.dirname(os.__file__) + os.sep)
        return _PYTHON if within else None
    return installed.release_of_file(file)


def place_of(function: types.FunctionType) -> str:
    """Return the file of a function, for telling an edited function from another one.

    It is the path from the project's root folder, so that it is the same in each checkout.
    """
    module = function.__module__ or ""
    if release_of(module) is not None:
        return module
    file = namespace_of(function).get("__file__")
    if not file:
        return f"session {_session()}" if module in _MAIN else ""
    path: str = os.path.abspath(file)
    folder = os.path.dirname(path)
    while not any(os.path.exists(os.path.join(folder, root)) for root in _ROOTS):
        above = os.path.dirname(folder)
        if above == folder:
            return path
        folder = above
    return os.path.relpath(path, os.path.dirname(folder)).replace(os.sep, "/")


@cache
def _session() -> str:
    """Return a name for this process: a prompt or a notebook has no file to be known by."""
    return os.urandom(8).hex()
