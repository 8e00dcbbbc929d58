"""The public names: what the API returns and what its messages name can be imported."""

import ast
import inspect
import pkgutil
import re
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import cachedeval
from cachedeval import backend

ROOT = Path(cachedeval.__file__).parent
INTERNAL = {"Closure", "Codec", "EvalTarget", "Identified", "Signature", "Unreadable"}
"""The parts of which public classes are made. Users neither create nor read them."""

PUBLIC = {name: getattr(cachedeval, name) for name in cachedeval.__all__ if name != "__version__"}


def modules(package: ModuleType) -> Iterator[ModuleType]:
    yield package
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if (
            ".mlx" not in found.name
            and ".testing" not in found.name
            and "__main__" not in found.name
        ):
            yield import_module(found.name)


def names() -> dict[str, Any]:
    """Return what annotations may name, by name: some are imported for type checkers only."""
    found: dict[str, Any] = {}
    for module in modules(cachedeval):
        for name, value in vars(module).items():
            found.setdefault(name, value)
    return found


def classes_in(hint: Any) -> Iterator[type]:
    """Yield the classes of the package that an annotation names."""
    if isinstance(hint, type) and hint.__module__.startswith("cachedeval"):
        yield hint
    for part in typing.get_args(hint):
        yield from classes_in(part)


def returned(owner: Any, known: dict[str, Any]) -> Iterator[type]:
    """Yield the classes that a public function, or the public methods of a class, return."""
    if not isinstance(owner, type):
        yield from hinted(owner, known)
        return
    for name, member in inspect.getmembers_static(owner):
        if name.startswith("_") and name not in {"__enter__", "__call__", "__getitem__"}:
            continue
        function = member.fget if isinstance(member, property) else member
        function = getattr(function, "__func__", function)
        if inspect.isfunction(function):
            yield from hinted(function, known)
    for name, hint in getattr(owner, "__annotations__", {}).items():
        if not name.startswith("_"):  # the fields of a named tuple or a struct
            yield from classes_in(evaluated(hint, owner.__module__, known))


def hinted(function: Any, known: dict[str, Any]) -> Iterator[type]:
    hint = getattr(function, "__annotations__", {}).get("return")
    yield from classes_in(evaluated(hint, function.__module__, known))


def evaluated(hint: Any, module: str, known: dict[str, Any]) -> Any:
    if isinstance(hint, typing.ForwardRef):
        hint = hint.__forward_arg__
    if isinstance(hint, str):
        return eval(hint, {**known, **vars(import_module(module))})  # noqa: S307  our annotations
    return hint


def test_every_class_that_the_api_returns_can_be_imported() -> None:
    known = names()
    seen: set[type] = set()
    missing: set[str] = set()
    todo = list(PUBLIC.values())
    while todo:
        for kind in returned(todo.pop(), known):
            if kind not in seen and kind.__name__ not in INTERNAL:
                seen.add(kind)
                todo.append(kind)
                if kind not in (PUBLIC.get(kind.__name__), vars(backend).get(kind.__name__)):
                    missing.add(f"{kind.__module__}.{kind.__name__}")
    assert len(seen) > 10
    assert not missing, "\n".join(sorted(missing))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_an_example(name: str) -> None:
    assert ">>> " in (PUBLIC[name].__doc__ or "")


def messages(path: Path) -> Iterator[str]:
    """Yield the strings of a module that are no docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    loose = {id(part.value) for part in ast.walk(tree) if isinstance(part, ast.Expr)}
    for part in ast.walk(tree):
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and id(part) not in loose:
            yield part.value


@pytest.mark.parametrize("path", sorted((ROOT / "engine").glob("*.py")), ids=lambda p: p.stem)
def test_what_a_message_of_the_engine_names_is_public(path: Path) -> None:
    defined = {
        name
        for module in modules(cachedeval)
        for name in getattr(module, "__all__", ())
        if module.__name__.startswith("cachedeval.engine")
    }
    for message in messages(path):
        called = set(re.findall(r"\b([a-zA-Z_]\w*)\(", message))
        for name in called & defined:
            assert name in PUBLIC, message


def test_the_list_is_sorted_and_complete() -> None:
    assert cachedeval.__all__ == sorted(cachedeval.__all__)
    assert set(cachedeval._HOMES) == set(PUBLIC)
    for name in PUBLIC:
        assert name in dir(cachedeval)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = cachedeval.Nothing
