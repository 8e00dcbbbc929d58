"""The demo: base and adapters, two judges, then all of it again from the cache."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cachedeval.evals.evaluator import AdapterEvaluator
from cachedeval.evals.report import Report
from cachedeval.evals.run_stats import OnProgress

__all__ = ["ADAPTERS", "Pass", "adapter_folder", "questions_file", "run_demo"]

_MAX_TOKENS = 24

_QUESTIONS, _QUICK_QUESTIONS = 20, 6

_RUBRIC = "correctness"

# The best first.
ADAPTERS = ("triage", "triage-undertrained")

# The wheel has them beside this module (pyproject.toml, force-include); an editable install leaves
# them where the repository keeps them.
_PACKAGED = Path(__file__).parent / "examples"

_REPOSITORY = Path(__file__).parents[3] / "examples"


class Pass(NamedTuple):
    """One time through.

    Attributes:
        seconds: how long it took.
        reports: by judge, one report a target: the base model first, then the adapters.
    """

    seconds: float
    reports: dict[str, list[Report]]

    def count(self, what: str) -> int:
        """Return the sum of a count (`computed`, `hits`, `calls`, `failed`) over all steps."""
        return sum(
            counts[what]
            for found in self.reports.values()
            for counts in found[0].run["nodes"].values()
        )

    @property
    def loads(self) -> int:
        """How many models were loaded."""
        return sum(found[0].run["loads"] for found in self.reports.values())


def run_demo(
    model: Path,
    cache: str,
    *,
    quick: bool = False,
    say: Callable[[str], None],
    on_progress: OnProgress | None = None,
) -> tuple[Pass, Pass]:
    """Evaluate the demo's base model and adapters twice.

    Args:
        model: the demo model's folder.
        cache: URL of the cache, on disk so that the second pass finds the results of the first.
        quick: fewer questions.
        say: called with a line when a pass begins.
        on_progress: as in `AdapterEvaluator.evaluate_adapter`.

    Returns:
        The first pass and the second, each with a new evaluator.
    """
    passes = []
    for title in ("First pass: nothing is stored yet", "Second pass: the same again"):
        say(title)
        start = time.perf_counter()
        reports = {}
        for judge in ("f1", f"mlx:{model}"):
            criteria = "default" if judge == "f1" else _RUBRIC
            with AdapterEvaluator(
                model, judge, cache, max_tokens=_MAX_TOKENS, criteria=criteria
            ) as evaluator:
                found = evaluator.evaluate_adapters(
                    [None, *(adapter_folder(name) for name in reversed(ADAPTERS))],
                    questions_file(),
                    _QUICK_QUESTIONS if quick else _QUESTIONS,
                    on_progress=on_progress,
                )
            reports[found[0].judge] = found
        passes.append(Pass(time.perf_counter() - start, reports))
    first, second = passes
    return first, second


def questions_file() -> Path:
    """Return the JSONL file of the demo's questions and reference answers."""
    return _folder() / "demo.jsonl"


def adapter_folder(name: str) -> Path:
    """Return the folder of one of `ADAPTERS`, LoRA adapters of the demo model."""
    return _folder() / "adapters" / name


def _folder() -> Path:
    return _PACKAGED if _PACKAGED.is_dir() else _REPOSITORY
