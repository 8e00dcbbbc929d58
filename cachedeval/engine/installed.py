"""Entry points and versions of installed packages, read from their `.dist-info` folders.

`importlib.metadata` returns the same in ten times the time: it imports the email parser and opens a
file of each package. A run of hits takes a tenth of a second in all. So this module reads the usual
layout itself: `NAME-VERSION.dist-info` in the folders of `sys.path` (PyPA, "Recording installed
projects" and "Entry points specification"). With any other layout (an archive, an egg, an import
hook that finds packages), it falls back to `importlib.metadata`, which it imports only then.
"""

# ruff: noqa: PTH100, PTH118, PTH119, PTH123, PTH206, PTH208 - plain paths are faster

import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any

__all__ = ["FOLDERS", "entry_points", "load", "release_of_file", "version", "versions"]

FOLDERS = frozenset({"site-packages", "dist-packages"})
"""The names of folders into which packages are installed."""

_INFO = ".dist-info"
_ODD = (".egg", ".egg-info", ".egg-link")


def entry_points(group: str) -> dict[str, str]:
    """Return the entry points of a group: `module:attribute` by name.

    Args:
        group: the group's name, such as `cachedeval.backends`.
    """
    found: dict[str, str] = {}
    wanted = f"[{group}]"
    packages = _packages()
    if packages is None:
        from importlib import metadata

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
    """Import the object of an entry point.

    Args:
        reference: `module:attribute`.

    Raises:
        ImportError: the module cannot be imported.
        AttributeError: the module has no such attribute.
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
    """Return the versions of packages, by name; packages that are not installed are left out."""
    there = _packages()
    found: dict[str, str] = {}
    for package in packages:
        if there is None:
            from importlib import metadata

            with suppress(metadata.PackageNotFoundError):
                found[package] = metadata.version(package)
        elif (folder := there.get(_normal(package))) is not None:
            found[package] = os.path.basename(folder)[: -len(_INFO)].partition("-")[2]
    return found


def release_of_file(file: str) -> str | None:
    """Return name and version of the package that installed a file, or None.

    Args:
        file: a file below a folder of `FOLDERS`.
    """
    parts = os.path.abspath(file).split(os.sep)
    at = max(index for index, part in enumerate(parts) if part in FOLDERS) + 1
    folder, inside = os.sep.join(parts[:at]), "/".join(parts[at:])
    top = parts[at].partition(".")[0]
    infos = _infos(folder)
    # Usually a package has the name of its module, and one list of files is enough.
    for info in sorted(infos, key=lambda info: _normal(info.partition("-")[0]) != _normal(top)):
        if inside in _files(folder, info):
            name, _, release = info.removesuffix(_INFO).partition("-")
            return f"{name} {release}"
    from importlib import metadata

    for package in metadata.packages_distributions().get(top, ()):
        return f"{package} {metadata.version(package)}"
    return None


@cache
def _infos(folder: str) -> tuple[str, ...]:
    """Return the `.dist-info` folders in a folder."""
    return tuple(sorted(name for name in os.listdir(folder) if name.endswith(_INFO)))


@cache
def _files(folder: str, info: str) -> frozenset[str]:
    """Return the files that a package installed, relative to the folder that it is in."""
    try:
        with open(os.path.join(folder, info, "RECORD"), encoding="utf-8") as file:
            return frozenset(line.partition(",")[0] for line in file)
    except (OSError, UnicodeDecodeError):
        return frozenset()


def _packages() -> dict[str, str] | None:
    """Return each package's folder by its normalised name, or None if the layout is unusual."""
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
            continue  # it does not exist, which is usual for the standard library's archive
        for name in names:
            if name.endswith(_INFO):
                # Python imports the first match on the path.
                package = _normal(name.partition("-")[0].removesuffix(_INFO))
                found.setdefault(package, os.path.join(place, name))
            elif name.endswith(_ODD):
                return None
    return found


def _is_usual(finder: Any) -> bool:
    return getattr(finder, "__module__", "") == "_frozen_importlib_external"


def _normal(package: str) -> str:
    """Return the normalised name of a package (PEP 503, with underscores)."""
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
