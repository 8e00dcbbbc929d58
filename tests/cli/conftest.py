"""A workplace that all tests of the command line read, and evaluations in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.evaluation import JUDGE, Evaluation
from support.judge_server import JudgeServer
from support.workplace import Workplace


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("work"))


@pytest.fixture
def evaluation(place: Workplace, tmp_path: Path) -> Evaluation:
    """An evaluation that was never run."""
    return Evaluation(place, tmp_path)


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with JudgeServer() as server:
        yield server


@pytest.fixture(scope="session")
def judged_once(place: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """An evaluation that was run twice, judged over HTTP; for reading."""
    evaluation = Evaluation(place, tmp_path_factory.mktemp("judged"))
    with JudgeServer() as server:
        evaluation.judged_by(server)
        for _ in range(2):
            done = evaluation("run", judge=JUDGE)
            assert done.status == 0, done.err
    return evaluation


@pytest.fixture
def judged(judged_once: Evaluation, tmp_path: Path) -> Evaluation:
    """A copy of it, to change; its judge is gone."""
    return judged_once.copied(tmp_path)
