"""The program that `faults.attacks` kills: a graph in the shape of an evaluation.

`python -m faults.attacked FOLDER LOG ROUND COUNT` answers COUNT questions in one batch, judges each
answer as soon as it exists, and takes the mean. It appends a line to LOG for each step that it
computes, and for each result that the engine reports.
"""

import asyncio
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cachedeval import Call, Computed, Engine, Outcome, Resource, node
from cachedeval.engine.resource import Handle

__all__ = ["Graph", "Log", "expected", "graph_of", "run"]

_LARGE = 150_000
"""Characters of every seventh answer: too many for a database row, so that it gets a file."""


class Log:
    """A file to which several processes append lines, whole or not at all."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __call__(self, *words: object) -> None:
        """Append a line: this process, and the words."""
        os.write(self._fd, f"{os.getpid()} {' '.join(map(str, words))}\n".encode())


@dataclass(frozen=True)
class _Question:
    log: Handle[Log]
    round: str
    number: int


@node(version="1", name="attacked.answer", batch=True)
def _answer(batch: Sequence[_Question]) -> Iterator[tuple[int, Computed[str]] | None]:
    for index, question in enumerate(batch):
        time.sleep(0.002)
        yield None
        with question.log as log:
            log("computed", "answer", question.round, question.number)
        yield index, Computed(expected(question.round, question.number), cost={"tokens": 3.0})


@node(version="1", name="attacked.judge")
async def _judge(log: Handle[Log], round: str, number: int, answer: str) -> int:  # noqa: A002
    await asyncio.sleep(0.004)
    with log as write:
        write("computed", "judge", round, number)
    return len(answer) + number


@node(version="1", name="attacked.mean")
def _mean(scores: Sequence[int]) -> float:
    return sum(scores) / len(scores)


def expected(round: str, number: int) -> str:  # noqa: A002  the word for it
    """Return the answer to a question."""
    text = f"{round}: {number} 😀 "
    return text * (_LARGE // len(text)) if number % 7 == 0 else text


class Graph(NamedTuple):
    """A round's calls, and the values that they must have."""

    calls: list[Call[Any]]
    names: list[str]
    values: list[Any]


def graph_of(log: str, round: str, count: int) -> Graph:  # noqa: A002
    """Return the graph of a round.

    Args:
        log: path of the file to append to.
        round: rounds have nothing in common.
        count: how many questions there are.
    """
    # Its identity is constant, so that the path of the log is in no key.
    writer: Resource[Log] = Resource("log", "log", lambda: Log(log))
    answers = [_answer(writer, round, number) for number in range(count)]
    scores = [_judge(writer, round, number, answers[number]) for number in range(count)]
    numbers = range(count)
    values = [len(expected(round, number)) + number for number in numbers]
    return Graph(
        [*answers, *scores, _mean(scores)],
        [f"answer {n}" for n in numbers] + [f"judge {n}" for n in numbers] + ["mean 0"],
        [expected(round, n) for n in numbers] + values + [sum(values) / count],
    )


def run(folder: str, log: str, round: str, count: int) -> None:  # noqa: A002
    """Run a round, and log each result as soon as it is reported."""
    graph = graph_of(log, round, count)
    names = dict(zip(graph.calls, graph.names, strict=True))
    write = Log(log)

    def note(outcome: Outcome) -> None:
        write("reported", names[outcome.call], outcome.state)

    with Engine(f"disk:{folder}") as engine:
        write("begins")
        outcomes = engine.settle(graph.calls, on_outcome=note)
        right = [o.value for o in outcomes] == graph.values
        write("ends", "right" if right else "wrong")


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
