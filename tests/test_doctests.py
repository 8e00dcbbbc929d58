"""The examples in docstrings of modules that need no model, key or network run."""

import doctest
import importlib
from pathlib import Path

import pytest

import cachedeval

PACKAGE = Path(cachedeval.__file__).parent
EVALS = PACKAGE / "evals"

MODULES = [
    ".".join(["cachedeval", *path.relative_to(PACKAGE).with_suffix("").parts])
    for path in sorted([*EVALS.glob("*.py"), *EVALS.glob("mlx/prompts.py")])
    if path.stem != "__init__"
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testmod(importlib.import_module(name), optionflags=options)
    assert found.failed == 0


def test_the_public_modules_have_examples() -> None:
    finder = doctest.DocTestFinder()
    without = [
        name
        for name in ("audit", "evaluator", "report", "data", "sample", "statistics")
        if not any(
            test.examples
            for test in finder.find(importlib.import_module(f"cachedeval.evals.{name}"))
        )
    ]
    assert without == []
