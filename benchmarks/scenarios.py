"""The scenarios: what a user does after a first evaluation, each timed as a whole command."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from benchmarks.judge_server import JudgeProcess
from benchmarks.measure import REPOSITORY, Ran, command, environment
from benchmarks.workplace import Workplace

__all__ = ["SCENARIOS", "Scenario", "Scenarios"]

_NEW_PARSER = (
    "import sys; from cachedeval.evals.judging.nodes import judge_parse; "
    "judge_parse.version = 'benchmark'; from cachedeval.cli.main import main; main(sys.argv[1:])"
)


@dataclass(frozen=True)
class Scenario:
    """One thing that a user does.

    Attributes:
        name: as results and targets call it.
        title: as tables call it.
        decodes: the sets of questions that must be answered, by name and how often.
        judged: whether the judge must be asked.
        start: the cache it starts from: `empty`, `cold` (after a first evaluation) or `killed`.
        options: arguments of `Workplace.run`.
        sizes: what the original would run: `questions`, `more`, `sweep`, `added`.
        change: what is changed on disk for as long as it runs.
    """

    name: str
    title: str
    decodes: dict[str, int] = field(default_factory=dict)
    judged: bool = True
    start: str = "cold"
    options: Callable[[Workplace], dict[str, Any]] = lambda _: {}
    sizes: str = "questions"
    change: Callable[[Workplace], AbstractContextManager[Any]] = lambda _: nullcontext()


SCENARIOS = (
    Scenario("cold", "cold", {"cold": 1}, start="empty"),
    Scenario("warm", "warm, new process", judged=False),
    Scenario("same-process", "warm, same process", judged=False),
    Scenario(
        "criterion", "a criterion changed", options=lambda w: {"further": ["--criteria", w.rubric]}
    ),
    Scenario("parser", "the parser changed", judged=False),
    Scenario(
        "added",
        "one question added",
        {"one": 1},
        options=lambda w: {"data": w.added, "count": w.profile.questions + 1},
        sizes="added",
    ),
    Scenario("edited", "one question edited", {"one": 1}, options=lambda w: {"data": w.edited}),
    Scenario(
        "more",
        "a larger sample",
        {"more": 1},
        options=lambda w: {"count": w.profile.more},
        sizes="more",
    ),
    Scenario("seed", "another seed", {"seed": 1}, options=lambda _: {"further": ["--seed", "7"]}),
    Scenario(
        "retrained",
        "retrained, other answers",
        {"cold": 1},
        change=lambda w: w.retrained("adapter-1"),
    ),
    Scenario(
        "same-answers",
        "retrained, same answers",
        {"cold": 1},
        judged=False,
        change=lambda w: w.retrained("same-answers"),
    ),
    Scenario(
        "sweep",
        "sweep of adapters",
        {"cold": 0},
        start="empty",
        options=lambda w: {"adapters": w.profile.adapters},
        sizes="sweep",
    ),
    Scenario("resumed", "resumed after a kill at half", {"half": 1}, start="killed"),
    Scenario("swapped", "the backend swapped", {"cold": 1}),
)


class Scenarios:
    """Runs scenarios in a workplace.

    Args:
        workplace: models, adapters and questions.
        judge: a running judge.
    """

    def __init__(self, workplace: Workplace, judge: JudgeProcess) -> None:
        self.workplace = workplace
        self.judge = judge
        self._states = workplace.root / "states"

    def prepare(self) -> None:
        """Make the caches that scenarios start from."""
        run, half = self.workplace.run, self.workplace.profile.questions // 2
        # The files are given time to be older than the clock's grain, as a user's are.
        time.sleep(2)
        command(run(f"disk:{self._states / 'cold'}"), env=self.judge.env)
        command(run(f"disk:{self._states / 'cold'}"), env=self.judge.env)
        # Half of the answers are decoded and judged first; it is killed amid the other half.
        limits = self.workplace.root / "limits.toml"
        limits.write_text(f"[limits]\nmax_concurrency = {half}\n", encoding="utf-8")
        slowly = ("--batch-size", str(half), "--limits", limits)
        answered = self.judge.answered()
        killed = subprocess.Popen(
            [str(word) for word in run(f"disk:{self._states / 'killed'}", *slowly)],
            env=environment(self.judge.env),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=REPOSITORY,
        )
        while killed.poll() is None and self.judge.answered() - answered < half:
            time.sleep(0.02)
        time.sleep(0.1)
        killed.send_signal(signal.SIGKILL)
        killed.wait()

    def sample(self, scenario: Scenario) -> dict[str, Any]:
        """Run a scenario once, and return what it took and did."""
        work = self.workplace
        folder = work.root / "caches" / scenario.name
        shutil.rmtree(folder, ignore_errors=True)
        if scenario.start != "empty":
            shutil.copytree(self._states / scenario.start, folder)
        options = {"further": [], **scenario.options(work)}
        further = options.pop("further")
        url = "memory:" if scenario.name == "swapped" else f"disk:{folder}"
        words = work.run(url, *further, **options)
        if scenario.name == "parser":
            words = [sys.executable, "-c", _NEW_PARSER, *words[1:]]
        if scenario.name == "same-process":
            words = [sys.executable, "-m", "benchmarks.same_process", *words[2:]]
        asked = self.judge.calls()
        with scenario.change(work):
            ran = command(words, env=self.judge.env)
        shutil.rmtree(folder, ignore_errors=True)
        return _told(ran, self.judge.calls() - asked)


def _told(ran: Ran, asked: int) -> dict[str, Any]:
    said = json.loads(ran.out)
    reports = said.get("reports") or [said["report"]]
    nodes = said["run"]["nodes"]
    return {
        "seconds": said.get("seconds", ran.seconds),
        "peak_mb": ran.peak_mb,
        "loads": said["run"]["loads"],
        "generated": nodes["generation"]["computed"],
        "judged": nodes["judge"]["computed"],
        "asked": asked,
        "failed": sum(report["failed"] for report in reports),
        "score": reports[0]["score"],
    }
