"""The pipeline that every peer runs: `python -m benchmarks.pipeline FOLDER QUESTIONS [CHANGED]`.

For each question a generation and a judge call that depends on its output, and one mean over all
scores: 2 n + 1 steps.
"""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.peers.steps import answer_of, question_of, verdict_of
from cachedeval import Engine, node

computed = {"generation": 0, "judge": 0, "mean": 0}


@node(version="1", name="bench_generation")
def generation(model: str, question: str, max_tokens: int) -> str:
    """Answer."""
    del model, max_tokens
    computed["generation"] += 1
    return answer_of(question)


@node(version="1", name="bench_judge")
def judge(model: str, question: str, answer: str) -> dict[str, Any]:
    """Judge."""
    del model
    computed["judge"] += 1
    return verdict_of(question, answer)


@node(version="1", name="bench_mean")
def mean(verdicts: Sequence[dict[str, Any]]) -> float:
    """Average."""
    computed["mean"] += 1
    return sum(float(verdict["score"]) for verdict in verdicts) / len(verdicts)


def run_on(engine: Engine, questions: int, changed: int = -1) -> float:
    """Run the pipeline on an engine and return the mean."""
    verdicts = []
    for number in range(questions):
        question = question_of(number, changed)
        answer = generation("model", question, max_tokens=150)
        verdicts.append(judge("judge", question, answer))
    return float(engine.run(mean(verdicts)))


def main() -> None:
    """Run it and print what was computed."""
    folder, questions, *rest = sys.argv[1:]
    begun = time.perf_counter()
    with Engine(cache=f"disk:{folder}") as engine:
        result = run_on(engine, int(questions), int(rest[0]) if rest else -1)
    seconds = time.perf_counter() - begun
    print(json.dumps({"mean": result, "seconds": seconds, "computed": computed}))


if __name__ == "__main__":
    main()
