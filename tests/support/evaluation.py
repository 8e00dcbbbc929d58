"""One evaluation with a cache of its own, on which the commands of the command line are run."""

import copy
import shutil
from pathlib import Path
from typing import Self

from support.judge_server import JudgeServer
from support.workplace import Finished, Workplace

__all__ = ["JUDGE", "QUESTIONS", "Evaluation"]

QUESTIONS = 6
JUDGE = "cerebras:gpt-oss-120b"
"""A judge whose price is known."""


class Evaluation:
    """The options of an evaluation: `run`, `plan`, `explain` and `cache audit` take the same.

    Args:
        place: where the model and the adapters are.
        folder: where the data and the cache go.
    """

    def __init__(self, place: Workplace, folder: Path) -> None:
        self.place = place
        self.folder = folder
        self.data = place.questions(folder, QUESTIONS)
        self.kept = folder / "cache"
        self.cache = f"disk:{self.kept}"
        self.env: dict[str, str] = {}

    def judged_by(self, server: JudgeServer) -> None:
        """Let this server be the judge."""
        self.env = {"CEREBRAS_BASE_URL": server.url, "CEREBRAS_API_KEY": "a-key"}

    def copied(self, folder: Path) -> Self:
        """Return the same evaluation with a copy of its cache, to change or to spoil."""
        copied = copy.copy(self)
        copied.folder = folder
        copied.kept = Path(shutil.copytree(self.kept, folder / "cache"))
        copied.cache = f"disk:{copied.kept}"
        return copied

    def options(self, adapter: Path | str | None = "changing", judge: str = "f1") -> list[str]:
        """Return the options; None stands for the base model."""
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
        """Run a command with the options and some more."""
        options = self.options(adapter, judge)
        return self.place.run(*command.split(), *options, *more, env=self.env)
