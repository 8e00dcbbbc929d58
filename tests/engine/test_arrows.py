"""The wings and the direction of their imports, wherever in a module an import stands."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ALLOWED = {
    "cachedeval/engine": {"cachedeval.engine"},
    "cachedeval/services": {"cachedeval.engine", "cachedeval.services"},
    "cachedeval/evals": {
        "cachedeval",
        "cachedeval.engine",
        "cachedeval.services",
        "cachedeval.evals",
    },
    "cachedeval/cli": {"cachedeval", "cachedeval.engine", "cachedeval.evals", "cachedeval.cli"},
    "cachedeval/testing": {"cachedeval.backend", "cachedeval.engine.backend", "cachedeval.testing"},
    "backends/cachedeval_memory": {
        *["cachedeval.backend", "cachedeval_memory"],
    },
    "backends/cachedeval_disk": {
        *["cachedeval.backend", "cachedeval_disk"],
    },
}
"""What the modules of each wing may import of ours."""


def imports(source: str) -> Iterator[str]:
    """Yield the modules that a source imports, and what it may import by their names in strings."""
    for part in ast.walk(ast.parse(source)):
        match part:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=str(module), level=0, names=names):
                # `from cachedeval.engine import node` imports the module of that name.
                yield from (f"{module}.{name.name}" for name in names)
            case ast.ImportFrom():
                raise AssertionError("a relative import")
            case ast.Constant(value=str(text)) if text.startswith("cachedeval_"):
                yield text


def ours(name: str) -> bool:
    return name == "cachedeval" or name.startswith(("cachedeval.", "cachedeval_"))


def allowed(name: str, wings: set[str]) -> bool:
    if "cachedeval" in wings:
        package, _, public = name.partition(".")
        if package == "cachedeval" and "." not in public and not _is_module(name):
            return True  # the package itself, or one of its public names
    return any(name == wing or name.startswith(f"{wing}.") for wing in wings - {"cachedeval"})


def _is_module(name: str) -> bool:
    """Say whether a name is that of a module of ours below the package."""
    if name == "cachedeval":
        return False
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


MODULES = sorted(
    (wing, path) for wing in ALLOWED for path in (ROOT / wing).rglob("*.py") if path.exists()
)


@pytest.mark.parametrize(
    ("wing", "path"), MODULES, ids=[str(path.relative_to(ROOT)) for _, path in MODULES]
)
def test_imports_go_one_way(wing: str, path: Path) -> None:
    wrong = [
        name
        for name in imports(path.read_text("utf-8"))
        if ours(name) and not allowed(name, ALLOWED[wing])
    ]
    assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_every_package_of_ours_is_a_wing() -> None:
    found = {path.parent for path in (ROOT / "cachedeval").glob("*/__init__.py")}
    found |= {path.parent for path in (ROOT / "backends").glob("*/__init__.py")}
    assert {str(path.relative_to(ROOT)) for path in found} == set(ALLOWED)
    assert {path.name for path in (ROOT / "cachedeval").glob("*.py")} <= {
        *["__init__.py", "__main__.py", "backend.py"],
    }


@pytest.mark.parametrize(
    ("wing", "source", "fine"),
    [
        ("cachedeval/engine", "from cachedeval.engine.node import node", True),
        ("cachedeval/engine", "import json", True),
        ("cachedeval/engine", "import cachedeval.evals.report", False),
        ("cachedeval/engine", "from cachedeval import evals", False),
        ("cachedeval/engine", "from cachedeval import node", False),
        ("cachedeval/engine", "def f():\n    from cachedeval.cli.main import main", False),
        ("cachedeval/engine", "import cachedeval_disk", False),
        ("cachedeval/engine", "import_module('cachedeval_disk.backend')", False),
        ("cachedeval/engine", "import cachedeval.services.limits", False),
        ("cachedeval/services", "from cachedeval.engine.errors import InputError", True),
        ("cachedeval/services", "from cachedeval.evals.judging import rubric", False),
        ("cachedeval/services", "from cachedeval import node", False),
        ("cachedeval/evals", "from cachedeval.services.errors import ServiceError", True),
        ("cachedeval/cli", "from cachedeval.services.errors import ServiceError", False),
        ("cachedeval/evals", "from cachedeval import __version__", True),
        ("cachedeval/evals", "from cachedeval import cli", False),
        ("cachedeval/evals", "from cachedeval.cli import main", False),
        ("cachedeval/evals", "from cachedeval_disk.backend import DiskBackend", False),
        ("cachedeval/cli", "from cachedeval.evals.report import Report", True),
        ("cachedeval/cli", "import cachedeval_memory", False),
        ("backends/cachedeval_disk", "from cachedeval.backend import InputError", True),
        ("backends/cachedeval_disk", "from cachedeval.engine.store import Store", False),
        ("backends/cachedeval_disk", "from cachedeval import Backend", False),
        ("backends/cachedeval_disk", "import cachedeval_memory", False),
    ],
)
def test_the_test_notices(wing: str, source: str, fine: bool) -> None:  # noqa: FBT001
    found = [name for name in imports(source) if ours(name)]
    assert all(allowed(name, ALLOWED[wing]) for name in found) is fine
