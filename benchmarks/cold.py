"""What is computed for the first time, against mlx_lm alone: `python -m benchmarks.cold`.

Whole commands on real questions, in turns, so that a busy machine slows all alike; medians.

- `cold`: an evaluation into an empty cache, with a judge that takes a second for each of its calls,
  against importing mlx_lm, loading the model, and `mlx_lm.batch_generate` of the same prompts.
- `sweep`: adapters over one base, against `batch_generate` with each of them and one load; and
  whether the answers are those of as many runs of one adapter each, on caches of their own.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.judge_server import JUDGE, JudgeProcess
from benchmarks.measure import CLI, command
from benchmarks.questions import write_questions
from cachedeval.evals.dataset import read_questions
from cachedeval.evals.demo import ensure_demo_model
from cachedeval.evals.sample import draw

SECTIONS = ("cold", "sweep")
COLD, SWEEP = 1.15, 1.1
"""The ratios that are wanted."""


class Bench:
    """A model and questions, and the two ways to answer them.

    Args:
        root: an empty folder.
        given: the command line.
    """

    def __init__(self, root: Path, given: argparse.Namespace) -> None:
        self.root = root
        self.given = given
        self.model: Path = given.model
        self.data = write_questions(root / "questions.jsonl", given.questions)
        drawn = draw(read_questions(self.data), given.questions, seed=42)
        self._sets = root / "sets.json"
        chats = [[dict(message) for message in question.messages] for question in drawn]
        self._sets.write_text(json.dumps({"all": chats}), encoding="utf-8")

    def plain(self, adapter: Path | None) -> dict[str, float]:
        """Return the seconds of mlx_lm alone: `import`, `load` and `decode all`."""
        ran = command(
            [
                *(sys.executable, "-m", "benchmarks.ideal", self.model, adapter or ""),
                *(str(self.given.tokens), self._sets),
            ]
        )
        told: dict[str, float] = json.loads(ran.out.splitlines()[-1])
        return told

    def ours(
        self, adapters: Sequence[Path], judge: str, env: dict[str, str]
    ) -> tuple[float, dict[str, Any]]:
        """Evaluate into an empty cache; return the command's seconds and what it told."""
        cache = self.root / "cache"
        ran = command(
            [
                *(CLI, "run", "--json", "--model", self.model, "--data", self.data),
                *(word for adapter in adapters for word in ("--adapter", adapter)),
                *("--num-questions", str(self.given.questions), "--judge", judge),
                *("--max-tokens", str(self.given.tokens), "--cache", f"disk:{cache}"),
            ],
            env=env,
        )
        shutil.rmtree(cache)
        told: dict[str, Any] = json.loads(ran.out)
        return ran.seconds, told


def cold(bench: Bench) -> Iterator[str]:
    """Compare a cold evaluation with what must be done."""
    ratios = []
    with JudgeProcess(1.0) as judge:
        for _ in range(bench.given.rounds):
            plain = bench.plain(None)
            floor = plain["import"] + plain["load"] + plain["decode all"]
            seconds, told = bench.ours([], JUDGE, judge.env)
            if told["report"]["scored"] != bench.given.questions:
                raise RuntimeError(f"not all were scored: {told['run']}")
            ratios.append(seconds / floor)
            yield (
                f"{seconds:.2f} s, against import {plain['import']:.2f} + load {plain['load']:.2f} "
                f"+ decode {plain['decode all']:.2f} = {floor:.2f} s"
            )
    yield f"cold: {_told(ratios)}; wanted: at most {COLD}"


def sweep(bench: Bench) -> Iterator[str]:
    """Compare a sweep with decoding as often, and its answers with separate runs."""
    count = bench.given.adapters
    folder = bench.root / "adapters"
    command(
        [sys.executable, "-m", "benchmarks.models", "adapters", bench.model, folder, str(count)]
    )
    adapters = [folder / f"adapter-{number}" for number in range(count)]
    ratios = []
    answers: list[Any] = []
    for _ in range(bench.given.rounds):
        plain = [bench.plain(adapter) for adapter in adapters]
        decode = sum(each["decode all"] for each in plain)
        once = statistics.median(each["import"] + each["load"] for each in plain)
        seconds, told = bench.ours(adapters, "exact", {})
        answers = [_answers(report) for report in told["reports"]]
        ratios.append((seconds - once) / decode)
        yield (
            f"{seconds:.2f} s with {told['run']['loads']} load and "
            f"{told['run']['near_ties']['met']} near ties, against {count} times decoding "
            f"= {decode:.2f} s, and import and load once = {once:.2f} s"
        )
    yield f"sweep, less import and load: {_told(ratios)}; wanted: at most {SWEEP}"
    if not bench.given.separately:
        return
    separate = [_answers(bench.ours([one], "exact", {})[1]["report"]) for one in adapters]
    pairs = zip(answers, separate, strict=True)
    equal = sum(a == b for one, other in pairs for a, b in zip(one, other, strict=True))
    different = len({json.dumps(each) for each in answers})
    yield (
        f"{equal} of {sum(map(len, answers))} answers are those of {count} separate runs; "
        f"{different} of {count} adapters answer differently"
    )


def _answers(report: dict[str, Any]) -> list[str]:
    return [item["response"] for item in report["items"]]


def _told(ratios: Sequence[float]) -> str:
    of = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    return f"{statistics.median(ratios):.2f} times (of {of})"


def main() -> None:
    """Measure what is asked for, and print it as it comes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cold", description=__doc__)
    parser.add_argument("--model", type=Path, help="a folder; else the demo's model")
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--adapters", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--separately",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run each adapter of the sweep by itself, too",
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    given = parser.parse_args()
    if given.model is None:
        given.model = ensure_demo_model(progress=lambda said: print(said, file=sys.stderr))
    parts: dict[str, Callable[[Bench], Iterator[str]]] = {"cold": cold, "sweep": sweep}
    with tempfile.TemporaryDirectory(prefix="cachedeval-cold-") as name:
        bench = Bench(Path(name), given)
        print(f"{given.model.name}, {given.questions} questions, {given.tokens} tokens")
        for part in given.only:
            print(f"\n{part}")
            for line in parts[part](bench):
                print(f"  {line}", flush=True)


if __name__ == "__main__":
    main()
