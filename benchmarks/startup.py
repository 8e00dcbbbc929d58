"""How long commands take to start, in multiples of `python -c pass`."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.judge import JudgeProcess
from benchmarks.measure import CLI, Rounds, command, summary
from benchmarks.workplace import Profile, Workplace

__all__ = ["measure_startup", "warm_run"]

_WANTED = 15
_PROFILE = Profile("startup", "tiny random Llama", 20, 20, 4, 1, 1)


def measure_startup(root: Path, model: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Time the bare interpreter, imports, `--help`, and a run of 20 questions that is all hits.

    Args:
        root: an empty folder.
        model: a model's folder.
        say: told what begins.
    """
    workplace = Workplace(root, _PROFILE, model)
    with JudgeProcess(0.0) as judge:
        run = workplace.run(f"disk:{root / 'cache'}", data=workplace.all, count=20)
        time.sleep(2)  # files as young as the clock's grain are read again
        for _ in range(2):
            command(run, env=judge.env)
        commands: dict[str, list[str | Path]] = {
            "pass": [sys.executable, "-c", "pass"],
            "import argparse": [sys.executable, "-c", "import argparse"],
            "import asyncio": [sys.executable, "-c", "import asyncio"],
            "import cachedeval.engine": [sys.executable, "-c", "from cachedeval import Engine"],
            "cachedeval --help": [CLI, "--help"],
            "cachedeval run, 20 hits": run,
        }
        taken = Rounds(_WANTED, 20, _quiet(say)).take(
            {name: partial(command, words, env=judge.env) for name, words in commands.items()}
        )
    results = {}
    for name, samples in taken.items():
        seconds = summary([ran.seconds for ran in samples])
        # Of the same round: what slowed the one slowed the other.
        ratios = [
            ran.seconds / bare.seconds for ran, bare in zip(samples, taken["pass"], strict=False)
        ]
        results[name] = {"seconds": seconds, "ratio": summary(ratios)}
    return results


@contextmanager
def warm_run(
    root: Path, environments: Sequence[dict[str, str]]
) -> Iterator[list[tuple[list[str | Path], dict[str, str]]]]:
    """Yield a command of 20 hits for each environment, and the environment to run it in.

    Args:
        root: a folder to make.
        environments: each with the `PYTHONPATH` of a checkout.
    """
    model = root / "model"
    command([sys.executable, "-m", "benchmarks.models", "tiny", model])
    workplace = Workplace(root / "workplace", _PROFILE, model)
    runs = []
    with JudgeProcess(0.0) as judge:
        time.sleep(2)  # files as young as the clock's grain are read again
        for number, environment in enumerate(environments):
            words = workplace.run(f"disk:{root / str(number)}", data=workplace.all, count=20)
            env = {**judge.env, **environment}
            runs.append(([sys.executable, "-m", "cachedeval", *words[1:]], env))
            for _ in range(2):
                command(runs[-1][0], env=env)
        yield runs


def _quiet(say: Callable[[str], None]) -> Callable[[str], None]:
    said: set[str] = set()

    def once(text: str) -> None:
        name = text.partition(",")[0]
        if name not in said:
            said.add(name)
            say(name)

    return once
