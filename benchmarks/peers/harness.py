"""What every runner does: the pipeline, and single hits and stores.

python -m benchmarks.peers.NAME pipeline FOLDER QUESTIONS
python -m benchmarks.peers.NAME point FOLDER
"""

import contextlib
import io
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.workload import question_of

__all__ = ["Steps", "main"]

_POINTS = 200
_SLOW_S = 3.0


class Steps(NamedTuple):
    """The pipeline's steps as a peer caches them.

    Attributes:
        generation: of a model's name, a question and a bound of tokens.
        judge: of a judge's name, a question and an answer.
        mean: of the verdicts; None where the peer caches no such step.
        run: the whole pipeline for so many questions, where it is not called step by step.
    """

    generation: Callable[[str, str, int], Any]
    judge: Callable[[str, str, str], Any]
    mean: Callable[[list[Any]], float] | None = None
    run: Callable[[int], float] | None = None


def main(open_cache: Callable[[Path], Steps]) -> None:
    """Do what the arguments say, and print JSON as the last line."""
    mode, folder, *rest = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        steps = open_cache(Path(folder))
        if mode == "pipeline":
            told: dict[str, Any] = {"mean": _pipeline(steps, int(rest[0]))}
            told["seconds"] = time.perf_counter() - begun
        else:
            told = _points(steps)
    print(json.dumps(told))


def _pipeline(steps: Steps, questions: int) -> float:
    if steps.run is not None:
        return steps.run(questions)
    verdicts = []
    for number in range(questions):
        question = question_of(number)
        answer = steps.generation("model", question, 150)
        verdicts.append(steps.judge("judge", question, answer))
    if steps.mean is not None:
        return steps.mean(verdicts)
    return sum(float(verdict["score"]) for verdict in verdicts) / questions


def _points(steps: Steps) -> dict[str, float]:
    """Return the medians of single stores and single hits, in seconds."""
    steps.generation("model", question_of(0), 150)  # opens what is opened at the first use
    stores: list[float] = []
    hits: list[float] = []
    for times in (stores, hits):
        ends = time.perf_counter() + _SLOW_S
        for number in range(1, _POINTS + 1):
            question = question_of(number)
            begun = time.perf_counter()
            steps.generation("model", question, 150)
            times.append(time.perf_counter() - begun)
            if time.perf_counter() > ends:
                break
    # Those that were stored can be hit, if the stores ran out of time.
    return {"store": statistics.median(stores), "hit": statistics.median(hits[: len(stores)])}
