"""redun's tasks on its SQLite backend."""

import logging
from pathlib import Path
from typing import Any

from redun import Scheduler, task
from redun.config import Config

from benchmarks.peers import plain
from benchmarks.peers.harness import Steps, main
from benchmarks.workload import question_of


@task(namespace="bench", version="1")
def generation(model: str, question: str, max_tokens: int) -> str:
    """Answer."""
    return plain.generation(model, question, max_tokens)


@task(namespace="bench", version="1")
def judge(model: str, question: str, answer: str) -> dict[str, Any]:
    """Judge."""
    return plain.judge(model, question, answer)


@task(namespace="bench", version="1")
def mean(verdicts: list[dict[str, Any]]) -> float:
    """Average."""
    return plain.mean(verdicts)


def open_cache(folder: Path) -> Steps:
    """Open a scheduler on a database in the folder."""
    logging.disable()
    scheduler = Scheduler(config=Config({"backend": {"db_uri": f"sqlite:///{folder}/redun.db"}}))
    scheduler.load()

    def run(questions: int) -> float:
        asked = [question_of(number) for number in range(questions)]
        verdicts = [judge("judge", q, generation("model", q, 150)) for q in asked]
        result: float = scheduler.run(mean(verdicts))
        return result

    return Steps(
        lambda *inputs: scheduler.run(generation(*inputs)),
        lambda *inputs: scheduler.run(judge(*inputs)),
        run=run,
    )


if __name__ == "__main__":
    main(open_cache)
