"""What type checkers know of nodes: the types of their arguments and of their values."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
from collections.abc import Iterator, Sequence
from typing import Any
from typing_extensions import reveal_type

from cachedeval import Call, Computed, Engine, Handle, Node, Resource, node

engine = Engine()

@node(version="1")
def double(x: int, *, by: int = 2) -> int:
    return x * by

@node
async def words(text: str) -> list[str]:
    return text.split()

@node(version="1")
async def judge(text: str) -> Computed[float]:
    return Computed(1.0)

@node(version="1")
def mean(values: list[float]) -> float:
    return sum(values)

@node(version="1")
def total(values: Sequence[float]) -> float:
    return sum(values)

@node(version="1")
def answer(model: Handle[str], text: str) -> str:
    with model as opened:
        reveal_type(opened)  # str
    return text

@node(version="1", batch=True)
def many(batch: Sequence[Any]) -> Iterator[tuple[int, int]]:
    yield 0, 1

model: Resource[str] = Resource("model", 1, lambda: "m")

# Arguments have their types.
double("x")  # error
double(3, to=1)  # error
double()  # error
double.call("x")  # error
words(3)  # error
answer(model, 5)  # error
many(a=1, b="x")

# A call may stand for its value, and a resource for its handle.
reveal_type(double(double(3), by=double(1)))  # Call[int]
mean([judge("a"), judge("b")])
mean([judge(text) for text in "ab"])
judges = [judge(text) for text in "ab"]
total(judges)
words(answer(model, "x"))
call: Call[int] = double(3)
step: Node[int] = double
anything: Node[Any] = judge

# Values have their types.
reveal_type(engine.run(double(3)))  # int
reveal_type(engine.run(words("a b")))  # list[str]
reveal_type(engine.run(judge("a")))  # float
reveal_type(engine.run([judge("a")]))  # list[float]
reveal_type(double.call(3))  # int
reveal_type(engine.settle(double(3)))  # Outcome
reveal_type(engine.settle([double(3)]))  # list[Outcome]

async def main() -> None:
    reveal_type(await words.call("a"))  # list[str]
    reveal_type(await judge.call("a"))  # Computed[float]
"""

EXPECTED = {
    number: line.rpartition("  # ")[2]
    for number, line in enumerate(PROGRAM.splitlines(), 1)
    if "  # " in line
}


def found(lines: str, revealed: str, error: str) -> dict[int, str]:
    """Return what a checker says of each line: a type, or `error`."""
    said = {int(line): "error" for line in re.findall(error, lines)}
    for line, kind in re.findall(revealed, lines):
        said[int(line)] = re.sub(r"\b(\w+\.)+", "", kind)
    return said


@pytest.mark.slow
def test_mypy_knows_the_types(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    config = tmp_path / "mypy.ini"  # without the evaluator, which takes ten times as long
    config.write_text("[mypy]\nstrict=true\n[mypy-cachedeval.evals.*]\nfollow_imports=skip\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", config, "--cache-dir", os.devnull, program],
        cwd=ROOT,
        env={"PATH": "", "MYPYPATH": f"{ROOT}:{ROOT / 'backends'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    said = found(
        "\n".join(line for line in done.stdout.splitlines() if "program.py" in line),
        r'program\.py:(\d+): note: Revealed type is "(.*)"',
        r"program\.py:(\d+): error: ",
    )
    assert said == EXPECTED, done.stdout


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("basedpyright") is None or shutil.which("node") is None,
    reason="basedpyright, which is pyright as a wheel, is not installed",
)
def test_pyright_knows_the_types(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("basedpyright")
    assert spec is not None
    assert spec.origin is not None
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    config = tmp_path / "pyrightconfig.json"
    config.write_text(json.dumps({"typeCheckingMode": "standard", "extraPaths": [str(ROOT)]}))
    done = subprocess.run(
        [
            "node",
            Path(spec.origin).with_name("index.js"),
            "-p",
            config,
            "--pythonpath",
            sys.executable,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    said = found(
        done.stdout,
        r'program\.py:(\d+):\d+ - information: Type of ".*" is "(.*)"',
        r"program\.py:(\d+):\d+ - error: ",
    )
    assert said == EXPECTED, done.stdout + done.stderr
