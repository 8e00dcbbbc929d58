"""The benchmarks import no tests, and the tests of all else import no benchmarks."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))
TESTS = sorted(
    path
    for folder in (ROOT / "tests").iterdir()
    if folder.is_dir() and folder.name != "benchmarks"
    for path in folder.rglob("*.py")
)


def packages(source: str) -> Iterator[str]:
    """Yield the packages that a source imports, or names in a string: a module or a path."""
    for part in ast.walk(ast.parse(source)):
        match part:
            case ast.Import(names=names):
                yield from (name.name.split(".")[0] for name in names)
            case ast.ImportFrom(module=str(module)):
                yield module.split(".")[0]
            case ast.Constant(value=str(text)) if " " not in text:
                name, separator, _ = text.replace("/", ".").partition(".")
                if separator or name == "tests":
                    yield name


@pytest.mark.parametrize("path", BENCHMARKS, ids=[str(p.relative_to(ROOT)) for p in BENCHMARKS])
def test_a_benchmark_imports_no_test(path: Path) -> None:
    assert {"tests", "support", "faults"}.isdisjoint(packages(path.read_text("utf-8")))


@pytest.mark.parametrize("path", TESTS, ids=[str(p.relative_to(ROOT)) for p in TESTS])
def test_a_test_imports_no_benchmark(path: Path) -> None:
    assert "benchmarks" not in packages(path.read_text("utf-8"))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from support.judge_server import JudgeServer", "support"),
        ("def f():\n    import benchmarks.check", "benchmarks"),
        ("run('python', '-m', 'benchmarks.check')", "benchmarks"),
        ("run('tests/support/judge_server.py')", "tests"),
        ("sys.path.insert(0, str(ROOT / 'tests'))", "tests"),
    ],
)
def test_an_import_is_found(source: str, found: str) -> None:
    assert found in packages(source)
