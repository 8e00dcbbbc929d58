"""A workplace that all tests of the command line read, and the options of one evaluation in it."""

from pathlib import Path

import pytest
from support.workplace import Finished, Workplace

QUESTIONS = 6


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("work"))


class Evaluation:
    """One evaluation with a cache of its own; `run`, `plan` and the others take its options."""

    def __init__(self, place: Workplace, folder: Path) -> None:
        self.place = place
        self.folder = folder
        self.data = place.questions(folder, QUESTIONS)
        self.cache = f"disk:{folder / 'cache'}"
        self.env: dict[str, str] = {}

    def options(self, adapter: Path | str | None = "changing", judge: str = "f1") -> list[str]:
        adapters = [] if adapter is None else ["--adapter", str(adapter)]
        given = ["--model", self.place.model, "--data", self.data, "--judge", judge]
        return [*map(str, given), *adapters, "--max-tokens", "8", "--cache", self.cache]

    def __call__(
        self,
        command: str,
        *more: str | Path,
        adapter: Path | str | None = "changing",
        judge: str = "f1",
    ) -> Finished:
        options = self.options(adapter, judge)
        return self.place.run(command, *options, *more, env=self.env)

    def look(self, *arguments: str | Path) -> Finished:
        """Run a command of `cachedeval cache` on this cache."""
        return self.place.run("cache", *arguments, "--cache", self.cache, env=self.env)


@pytest.fixture
def evaluation(place: Workplace, tmp_path: Path) -> Evaluation:
    return Evaluation(place, tmp_path)
