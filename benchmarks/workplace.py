"""What a profile measures with: its model, adapters and questions, in a folder of its own."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import CLI, REPOSITORY, command
from cachedeval.evals.data import Question, read_questions
from cachedeval.evals.sample import draw

__all__ = ["HEAVY", "QUICK", "SMALL", "Profile", "Workplace", "questions", "write_questions"]

_MT_BENCH = REPOSITORY.parent / "shared" / "data" / "mt_bench_question.jsonl"

_RUBRIC = """name = "edited"

[[criteria]]
name = "accuracy"
description = "What the response says is true."

[[criteria]]
name = "brevity"
description = "The response is as short as it can be."
"""


@dataclass(frozen=True)
class Profile:
    """How large the measured evaluations are.

    Attributes:
        name: as results and targets call it.
        about: what its model is.
        questions: of an evaluation.
        more: the larger sample that one scenario goes to.
        max_tokens: bound of an answer.
        adapters: of the sweep.
        part: how many questions the original runs; its time is scaled to all of them.
        latency: seconds of the judge's answer.
        wanted: samples of a short measurement.
        budget_s: seconds for the samples of one measurement, at least one of which is taken.
        terse: questions of one word, where computing is to be little.
    """

    name: str
    about: str
    questions: int
    more: int
    max_tokens: int
    adapters: int
    part: int
    latency: float = 1.0
    wanted: int = 7
    budget_s: float = 30
    terse: bool = False


QUICK = Profile("quick", "tiny random Llama", 6, 10, 8, 2, 2, wanted=5, budget_s=3)
SMALL = Profile("small", "SmolLM2-135M-Instruct, float32", 20, 50, 32, 5, 4)
HEAVY = Profile(
    "heavy", "random Llama, 1.0 billion parameters, float32", 40, 50, 2, 1, 3, terse=True
)


def questions(count: int) -> list[str]:
    """Return real questions: MT-Bench's where it lies beside the repository, else the examples'."""
    path = _MT_BENCH if _MT_BENCH.exists() else REPOSITORY / "examples" / "demo.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = [row["turns"][0] if "turns" in row else row["question"] for row in rows]
    return (found * (count // len(found) + 1))[:count]


def write_questions(path: Path, count: int) -> Path:
    """Write them as a file to evaluate on, each with a reference that no answer equals."""
    rows = [{"question": question, "answer": "-"} for question in questions(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


class Workplace:
    """Folder, files and commands of one profile.

    Args:
        root: an empty folder.
        profile: what to make.
        model: the model's folder.
    """

    def __init__(self, root: Path, profile: Profile, model: Path) -> None:
        self.root = root
        self.profile = profile
        self.model = model
        self.adapter = root / "adapters" / "adapter-0"
        make = [sys.executable, "-m", "benchmarks.models", "adapters"]
        command([*make, model, root / "adapters", str(max(2, profile.adapters))])
        rows = [self._row(number) for number in range(profile.more + 2)]
        extra, rows = rows[profile.more :], rows[: profile.more]
        self.all = self._write("all.jsonl", rows)
        self.drawn = draw(read_questions(self.all), profile.questions, seed=42)
        by_question = {row["question"]: row for row in rows}
        few = [by_question[question.question] for question in self.drawn]
        self.few = self._write("few.jsonl", few)
        self.added = self._write("added.jsonl", [*few, extra[0]])
        self.edited = self._write("edited.jsonl", [extra[1], *few[1:]])
        self.shuffled = self._write("shuffled.jsonl", [*rows[1::2], *rows[::2][::-1]])
        self.rubric = root / "edited.toml"
        self.rubric.write_text(_RUBRIC, encoding="utf-8")

    @property
    def sets(self) -> dict[str, list[Question]]:
        """The questions that scenarios compute, by the name of what they belong to."""
        profile = self.profile
        questions = read_questions(self.all)
        known = {question.id for question in self.drawn}
        return {
            "cold": self.drawn,
            "half": self.drawn[profile.questions // 2 :],
            "one": self.drawn[:1],
            "more": [q for q in draw(questions, profile.more, 42) if q.id not in known],
            "seed": [q for q in draw(questions, profile.questions, 7) if q.id not in known],
        }

    def run(
        self,
        cache: str,
        *further: str | Path,
        data: Path | None = None,
        count: int | None = None,
        adapters: int = 1,
    ) -> list[str | Path]:
        """Return the command of an evaluation."""
        chosen = [self.root / "adapters" / f"adapter-{number}" for number in range(adapters)]
        return [
            CLI,
            "run",
            *("--model", self.model),
            *(word for adapter in chosen for word in ("--adapter", adapter)),
            *("--data", data or self.all),
            *("--num-questions", str(count or self.profile.questions)),
            *("--max-tokens", str(self.profile.max_tokens)),
            *("--judge", "cerebras:judge"),
            *("--cache", cache),
            "--json",
            *further,
        ]

    def script(self, folder: Path, *further: str) -> list[str | Path]:
        """Return the command of the peer script's evaluation.

        Args:
            folder: where it saves answers and verdicts.
            further: other criteria, and how many requests run at once.
        """
        sizes = (str(self.profile.questions), str(self.profile.max_tokens))
        start = (sys.executable, "-m", "benchmarks.peers.script")
        return [*start, self.model, self.adapter, self.few, *sizes, folder, *further]

    @contextmanager
    def retrained(self, other: str) -> Iterator[None]:
        """Put another adapter's tensors in the place of the first, size and time as they were."""
        file = self.adapter / "adapters.safetensors"
        saved = self.root / "saved.safetensors"
        shutil.copy2(file, saved)
        before = file.stat()
        try:
            file.write_bytes((self.root / "adapters" / other / file.name).read_bytes())
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
            yield
        finally:
            shutil.copy2(saved, file)

    def _row(self, number: int) -> dict[str, str]:
        if self.profile.terse:
            return {"question": f"{number}?", "answer": str(number)}
        # Of unequal lengths: one to four times the story, in an order that no batch is made for.
        story = " ".join(
            f"Baker {baker} sells {number + baker + 3} loaves of bread on Monday and twice as many "
            "on Tuesday."
            for baker in range(1 + number * 7 % 4)
        )
        return {
            "question": f"{story} How many does baker 0 sell on both days together?",
            "answer": str(3 * (number + 3)),
        }

    def _write(self, name: str, rows: list[dict[str, str]]) -> Path:
        path = self.root / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path
