"""The examples in the engine's docstrings run, and public names have one."""

import doctest
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import cachedeval
import cachedeval.backend
import cachedeval.engine
from cachedeval.engine.explain import Explanation
from cachedeval.engine.maintenance import PruneReport
from cachedeval.engine.node import Limiter
from cachedeval.engine.plan import NodePlan
from cachedeval.engine.result import Stats


def modules() -> Iterator[ModuleType]:
    yield cachedeval
    yield cachedeval.backend
    folder = Path(cachedeval.engine.__path__[0])
    for path in sorted(folder.glob("*.py")):
        if path.stem != "__init__":
            yield import_module(f"cachedeval.engine.{path.stem}")


EXAMPLES = [
    pytest.param(example, id=example.name)
    for module in modules()
    for example in doctest.DocTestFinder(exclude_empty=True).find(module)
    if example.examples
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs(example: doctest.DocTest) -> None:
    printed: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    result = runner.run(example, out=printed.append, clear_globs=False)
    assert result.attempted
    assert not result.failed, "".join(printed)


PUBLIC = {name: getattr(cachedeval, name) for name in cachedeval.__all__ if name != "__version__"}
PUBLIC |= {each.__name__: each for each in (Explanation, Limiter, NodePlan, PruneReport, Stats)}


@pytest.mark.parametrize(
    "public",
    [
        pytest.param(public, id=name)
        for name, public in PUBLIC.items()
        if public.__module__.startswith("cachedeval.engine.")
    ],
)
def test_a_public_name_has_an_example(public: Any) -> None:
    assert ">>> " in public.__doc__


@pytest.mark.parametrize(("source", "failed"), [(">>> 1 + 1\n2\n", 0), (">>> 1 + 1\n3\n", 1)])
def test_the_test_notices(source: str, failed: int) -> None:
    example = doctest.DocTestParser().get_doctest(source, {}, "sum", None, None)
    assert doctest.DocTestRunner().run(example, out=lambda _: None).failed == failed
