"""Hamilton with its cache: a branch for each question by `Parallelizable`, gathered by `Collect`."""

import logging
from pathlib import Path
from typing import Any

from hamilton import ad_hoc_utils, driver
from hamilton.execution.executors import SynchronousLocalTaskExecutor
from hamilton.htypes import Collect, Parallelizable

from benchmarks.peers import plain
from benchmarks.peers.harness import Steps, main
from benchmarks.workload import question_of


def question(questions: int) -> Parallelizable[str]:  # noqa: D103  a node
    for number in range(questions):
        yield question_of(number)


def answer(question: str) -> str:  # noqa: D103
    return plain.generation("model", question, 150)


def verdict(question: str, answer: str) -> dict:  # type: ignore[type-arg]  # noqa: D103
    return plain.judge("judge", question, answer)


def score(verdict: Collect[dict]) -> float:  # noqa: D103
    return plain.mean(list(verdict))


def single(asked: str) -> str:  # noqa: D103
    return plain.generation("model", asked, 150)


def _driver(folder: Path, *functions: Any) -> Any:
    module = ad_hoc_utils.create_temporary_module(
        *functions, module_name="pipeline_" + functions[0].__name__
    )
    return (
        driver.Builder()
        .enable_dynamic_execution(allow_experimental_mode=True)
        .with_local_executor(SynchronousLocalTaskExecutor())
        .with_remote_executor(SynchronousLocalTaskExecutor())
        .with_modules(module)
        .with_cache(path=str(folder))
        .build()
    )


def open_cache(folder: Path) -> Steps:
    """Build the drivers."""
    logging.disable()
    whole = _driver(folder, question, answer, verdict, score)
    one = _driver(folder, single)
    return Steps(
        lambda _model, asked, _bound: one.execute(["single"], inputs={"asked": asked})["single"],
        plain.judge,
        run=lambda n: float(whole.execute(["score"], inputs={"questions": n})["score"]),
    )


if __name__ == "__main__":
    main(open_cache)
