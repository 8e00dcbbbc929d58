"""`python -m benchmarks judge`: what it costs to ask a judge for many verdicts.

The answers are in the cache, and each round has new criteria: so all that is left is judging. The
judge takes a second for each verdict, and 100 requests run at once. The lower bound is the latency,
times the questions, over 100. The peer script asks the same judge through the same SDK.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.judge_server import JudgeProcess
from benchmarks.measure import Rounds, command
from benchmarks.workplace import Profile, Workplace

__all__ = ["main", "measure_judge"]

_LATENCY_S = 1.0
_AT_ONCE = 100
_CRITERIA = """name = "round-{0}"

[[criteria]]
name = "accuracy"
description = "What the response says is true in round {0}."
"""


def measure_judge(
    root: Path, questions: int, rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Judge all answers anew in each round.

    Args:
        root: a folder to make.
        questions: how many answers there are.
        rounds: how often they are judged.
        say: called with what begins.

    Returns:
        The seconds of a whole command, less the warm one's, by candidate; `lower bound`.
    """
    model = root / "model"
    command([sys.executable, "-m", "benchmarks.models", "tiny", model])
    profile = Profile("judge", "tiny random Llama", questions, questions, 1, 1, 1)
    work = Workplace(root / "workplace", profile, model)
    limits = root / "limits.toml"
    limits.write_text(f"[limits]\nmax_concurrency = {_AT_ONCE}\n", encoding="utf-8")
    turn = {"ours": 0, "peer script": 0}

    def ours(judge: JudgeProcess, number: int) -> float:
        criteria = root / "criteria.toml"
        criteria.write_text(_CRITERIA.format(number), encoding="utf-8")
        further = ("--criteria", criteria, "--limits", limits)
        ran = command(work.run(f"disk:{root / 'cache'}", *further), env=judge.env)
        scored = json.loads(ran.out)["report"]["scored"]
        if scored != questions:
            raise RuntimeError(f"{scored} of {questions} answers were scored")
        return ran.seconds

    def script(judge: JudgeProcess, number: int) -> float:
        words = work.script(root / "script", f"accuracy in round {number}", str(_AT_ONCE))
        return command(words, env=judge.env).seconds

    candidates = {"ours": ours, "peer script": script}
    say("answers")
    time.sleep(2)  # a model as young as the clock's grain is read again
    with JudgeProcess(0.0) as quick:
        for run in candidates.values():
            run(quick, 0)
        warm = {
            name: statistics.median(run(quick, 0) for _ in range(3))
            for name, run in candidates.items()
        }
    with JudgeProcess(_LATENCY_S) as judge:

        def sample(name: str) -> float:
            turn[name] += 1
            return candidates[name](judge, turn[name]) - warm[name]

        taken = Rounds(rounds, 120, say).take(
            {name: lambda name=name: sample(name) for name in candidates}  # type: ignore[misc]
        )
    return {"lower bound": _LATENCY_S * -(-questions // _AT_ONCE), **taken}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks judge", description=__doc__)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    root = Path(tempfile.mkdtemp(prefix="cachedeval-judge-"))
    try:
        found = measure_judge(
            root, given.questions, given.rounds, lambda text: print(text, file=sys.stderr)
        )
    finally:
        shutil.rmtree(root, ignore_errors=True)
    bound = found.pop("lower bound")
    print(
        f"{given.questions} verdicts of {_LATENCY_S:g} s, {_AT_ONCE} at once: {bound:.2f} s at least"
    )
    for name, samples in found.items():
        median = statistics.median(samples)
        said = ", ".join(f"{sample:.2f}" for sample in samples)
        print(f"{name:12} {median:6.2f} s, {median / bound:.2f} times the lower bound (of {said})")
    return 0
