"""Fingerprints of what decides the results of each built-in step; run as a program, prints them.

`python tests/support/node_sources.py > tests/evals/node_sources.json` writes the golden file anew.
"""

import ast
import json
import sys
from pathlib import Path
from typing import Any

from cachedeval.engine.node import Node
from cachedeval.engine.source import source_fingerprint, text_fingerprint
from cachedeval.evals import adapters, generation, proofs
from cachedeval.evals.judging import nodes as judging
from cachedeval.evals.judging import scorers

__all__ = ["NODES", "declared", "sources"]

_PACKAGE = Path(generation.__file__).parents[1]

_SPEED_ALONE = {"__init__", "cpu", "runtime"}
"""Modules of `evals/mlx` that decide how fast it is, not what comes out."""


def _mlx(*of_others: str) -> tuple[str, ...]:
    """Return the modules of `evals/mlx` but those of other steps: a new one counts at once."""
    found = {path.stem for path in (_PACKAGE / "evals" / "mlx").glob("*.py")}
    return tuple(f"evals/mlx/{name}.py" for name in sorted(found - _SPEED_ALONE - {*of_others}))


NODES: dict[str, tuple[Node[Any], tuple[str, ...]]] = {
    "render": (generation.render, ("evals/mlx/prompts.py", "evals/mlx/texts.py")),
    "decode": (
        generation.decode,
        ("evals/generation.py", *_mlx("scoring", "prompts", "texts")),
    ),
    "text": (generation.text, ("evals/reasoning.py", "evals/mlx/texts.py")),
    "adapter_effect": (adapters.adapter_effect, ("evals/adapters.py",)),
    "judge": (
        judging.judge_call,
        (
            "evals/judging/prompt.py",
            "evals/judging/verdict.py",
            "evals/judging/client.py",
            "services/chat.py",
        ),
    ),
    "judge_parse": (judging.judge_parse, ("evals/judging/prompt.py", "evals/judging/verdict.py")),
    "scorer": (
        scorers.scorer,
        tuple(
            f"evals/scorers/{path.stem}.py"
            for path in sorted((_PACKAGE / "evals" / "scorers").glob("*.py"))
            if path.stem != "__init__"
        ),
    ),
    "local_judge": (
        judging.local_judge,
        _mlx("decoding", "near_ties", "batch_trial", "sampling", "texts"),
    ),
    "batch_proof": (
        proofs.batch_proof,
        tuple(f"evals/mlx/{name}.py" for name in ("near_ties", "prefix", "batch_trial")),
    ),
}
"""Each step, and the modules that decide what it returns, within the package."""


def sources() -> dict[str, dict[str, str]]:
    """Return by step its version, and the fingerprints of its function and modules."""
    return {
        name: {
            "version": str(node.version),
            "function": source_fingerprint((node.function,)),
            **{path: _module_fingerprint(_PACKAGE / path) for path in modules},
        }
        for name, (node, modules) in NODES.items()
    }


def _module_fingerprint(path: Path) -> str:
    """Return a digest of a module that is not imported; comments, docstrings, layout are out."""
    tree = ast.parse(path.read_text("utf-8"))
    for part in ast.walk(tree):
        body = getattr(part, "body", None)
        if isinstance(part, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            assert isinstance(body, list)
            part.body = [one for one in body if not _is_text(one)]
    return text_fingerprint(tree)


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def declared() -> dict[str, str | None]:
    """Return name and version of each step that the package declares, as its sources say."""
    found: dict[str, str | None] = {}
    for path in sorted(_PACKAGE.rglob("*.py")):
        for part in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                for decorator in filter(_is_node, part.decorator_list):
                    options = _options(decorator)
                    found[options.get("name") or part.name] = options.get("version")
    return found


def _is_node(decorator: ast.expr) -> bool:
    function = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(function, ast.Name) and function.id == "node"


def _options(decorator: ast.expr) -> dict[str | None, str | None]:
    if not isinstance(decorator, ast.Call):
        return {}
    return {
        option.arg: option.value.value
        for option in decorator.keywords
        if isinstance(option.value, ast.Constant) and isinstance(option.value.value, str)
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(sources(), indent=2) + "\n")
