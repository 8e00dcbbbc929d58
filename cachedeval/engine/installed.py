"""What is installed, read from the folders that installers leave: entry points and versions.

`importlib.metadata` answers the same and takes ten times as long: it imports the parser for mail
and opens a file of each package. A run that is all hits lasts a tenth of a second, so the usual
layout is read here: folders on `sys.path` with `NAME-VERSION.dist-info` inside (PyPA, "Recording
installed projects" and "Entry points specification"). Where there is anything else, an archive, an
egg, an import hook that knows packages of its own, `importlib.metadata` is asked.
"""

# ruff: noqa: PTH118, PTH119, PTH123, PTH208 - plain paths: speed is what this module is for

import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any

__all__ = ["entry_points", "load", "version", "versions"]

_INFO = ".dist-info"
_ODD = (".egg", ".egg-info", ".egg-link")


def entry_points(group: str) -> dict[str, str]:
    """Return the entry points of a group: `module:attribute` by name.

    Args:
        group: as packages declare it, such as `cachedeval.backends`.
    """
    found: dict[str, str] = {}
    wanted = f"[{group}]"
    packages = _packages()
    if packages is None:
        from importlib import metadata  # noqa: PLC0415  slow, and seldom wanted

        return {entry.name: entry.value for entry in metadata.entry_points(group=group)}
    for folder in packages.values():
        try:
            with open(os.path.join(folder, "entry_points.txt"), encoding="utf-8") as file:
                text = file.read()
        except (OSError, UnicodeDecodeError):
            continue
        if wanted in text:
            found.update(_section(text, wanted))
    return found


def load(reference: str) -> Any:
    """Import what an entry point refers to.

    Raises:
        ImportError, AttributeError: it is not there.
    """
    module, _, attributes = reference.partition("[")[0].strip().partition(":")
    found: Any = import_module(module.strip())
    for attribute in filter(None, attributes.strip().split(".")):
        found = getattr(found, attribute)
    return found


def version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    return versions(package).get(package)


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of those of the packages that are installed."""
    there = _packages()
    found: dict[str, str] = {}
    for package in packages:
        if there is None:
            from importlib import metadata  # noqa: PLC0415

            with suppress(metadata.PackageNotFoundError):
                found[package] = metadata.version(package)
        elif (folder := there.get(_normal(package))) is not None:
            found[package] = os.path.basename(folder)[: -len(_INFO)].partition("-")[2]
    return found


def _packages() -> dict[str, str] | None:
    """Return each package's folder by its normal name, or None where the layout is unusual."""
    if any(
        hasattr(finder, "find_distributions") and not _is_usual(finder) for finder in sys.meta_path
    ):
        return None
    found: dict[str, str] = {}
    for place in dict.fromkeys(sys.path):
        try:
            names = os.listdir(place or ".")
        except NotADirectoryError:
            return None  # an archive
        except OSError:
            continue  # not there, as the standard library's archive seldom is
        for name in names:
            if name.endswith(_INFO):
                # What stands first on the path is what is imported.
                package = _normal(name.partition("-")[0].removesuffix(_INFO))
                found.setdefault(package, os.path.join(place, name))
            elif name.endswith(_ODD):
                return None
    return found


def _is_usual(finder: Any) -> bool:
    return getattr(finder, "__module__", "") == "_frozen_importlib_external"


def _normal(package: str) -> str:
    """Return a package's name in the one form that all its spellings share (PEP 503)."""
    return re.sub(r"[-_.]+", "_", package).lower()


def _section(text: str, wanted: str) -> Iterator[tuple[str, str]]:
    """Yield the entries of a section of an INI file."""
    inside = False
    for line in text.splitlines():
        entry = line.strip()
        if entry.startswith("["):
            inside = entry == wanted
        elif inside and entry and entry[0] not in "#;":
            name, _, value = entry.partition("=")
            yield name.strip(), value.strip()
