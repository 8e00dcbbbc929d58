"""What a fresh process imports: nothing that it has no need of."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HEAVY = {
    *["mlx", "mlx_lm", "transformers", "tokenizers", "numpy", "httpx", "cerebras", "rich"],
    *["diskcache", "asyncio", "click", "pickle", "concurrent", "multiprocessing"],
    *["cachedeval.evals", "cachedeval.cli"],
}

PROGRAM = """
import json, sys
import cachedeval
from cachedeval import Engine, Resource, node

def never():
    raise AssertionError

@node(version="1")
def answer(model, x: int) -> str:
    if sys.argv[2] == "hit":
        raise AssertionError
    return f"{x}"

@node(version="1")
async def judge(text: str) -> int:
    return len(text)

with Engine(sys.argv[1]) as engine:
    model = Resource("model", {"w": "xxh3:1"}, never)
    assert engine.run([judge(answer(model, n)) for n in range(20)]) == [1] * 10 + [2] * 10
    assert engine.stats["program.judge"].calls == 20
print(json.dumps(sorted(sys.modules)))
"""


def modules(*arguments: str) -> set[str]:
    """Return the modules that a program imports beyond those of a bare interpreter."""
    found = []
    for words in (["-c", "import json, sys; print(json.dumps(sorted(sys.modules)))"], arguments):
        done = subprocess.run(
            [sys.executable, *words],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
            text=True,
        )
        found.append(set(json.loads(done.stdout)))
    return found[1] - found[0]


def heavy(found: set[str]) -> set[str]:
    return {name for name in HEAVY if any(m == name or m.startswith(f"{name}.") for m in found)}


def test_importing_the_engine_alone() -> None:
    use = "cachedeval.Engine, cachedeval.node, cachedeval.Resource"
    found = modules(
        "-c", f"import json, sys, cachedeval; {use}; print(json.dumps(sorted(sys.modules)))"
    )
    assert "cachedeval.engine.engine" in found
    assert heavy(found) == set()


def test_importing_the_package_imports_nothing_of_it() -> None:
    found = modules("-c", "import json, sys, cachedeval; print(json.dumps(sorted(sys.modules)))")
    assert {name for name in found if name.startswith("cachedeval")} == {"cachedeval"}


@pytest.mark.parametrize("packages", ["cachedeval_disk"])
def test_a_run_of_hits_on_disk(tmp_path: Path, packages: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    url = f"disk:{tmp_path / 'cache'}"
    first = modules(str(program), url, "miss")
    assert {"asyncio", "diskcache"} <= heavy(first)
    found = modules(str(program), url, "hit")
    assert packages in found
    assert heavy(found) == set()
