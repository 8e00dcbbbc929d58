"""Whether the score is the same every time: ours by the bytes of its report, the original's spread."""

import json
import random
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import xxhash

from benchmarks.judge import JudgeProcess
from benchmarks.measure import command
from benchmarks.workplace import Workplace

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["measure_reproducibility"]

_DRAWS = 1000


def measure_reproducibility(workplace: Workplace, say: Callable[[str], None]) -> dict[str, Any]:
    """Evaluate the same anew in many ways, and compare the reports byte by byte.

    The original's spread is that of its score over unseeded samples of the same verdicts: all
    questions are judged once, and the original's way of drawing is repeated on them.

    Args:
        workplace: what to evaluate.
        say: called with what begins.
    """
    root, profile = workplace.root / "reproducibility", workplace.profile
    few = str(max(2, profile.questions // 4))
    ways: dict[str, tuple[str, tuple[str, ...], Path]] = {
        "first": ("disk:{new}", (), workplace.all),
        "repeated, computed anew": ("disk:{new}", (), workplace.all),
        "another process, from the cache": ("disk:{first}", (), workplace.all),
        "backend in memory": ("memory:", (), workplace.all),
        "no cache": ("memory:", ("--no-cache",), workplace.all),
        "batches of one": ("disk:{new}", ("--batch-size", "1"), workplace.all),
        f"batches of {few}": ("disk:{new}", ("--batch-size", few), workplace.all),
        "questions in another order": ("disk:{new}", (), workplace.shuffled),
    }
    digests, scores = {}, {}
    with JudgeProcess(0.0) as judge:
        for number, (way, (url, further, data)) in enumerate(ways.items()):
            say(way)
            cache = url.format(new=root / str(number), first=root / "0")
            ran = command(workplace.run(cache, *further, data=data), env=judge.env)
            report = json.loads(ran.out)["report"]
            digests[way] = xxhash.xxh3_128_hexdigest(json.dumps(report).encode())
            scores[way] = report["score"]
        say("all questions")
        whole = workplace.run(f"disk:{root / '0'}", count=profile.more)
        items = json.loads(command(whole, env=judge.env).out)["report"]["items"]
    verdicts = [item["score"] for item in items]
    draw = random.Random(time.time_ns())
    means = [statistics.mean(draw.sample(verdicts, profile.questions)) for _ in range(_DRAWS)]
    return {
        "digests": digests,
        "scores": scores,
        "equal": len(set(digests.values())) == 1,
        "original": {
            "draws": _DRAWS,
            "of": profile.more,
            "questions": profile.questions,
            "low": min(means),
            "high": max(means),
            "stdev": statistics.stdev(means),
        },
    }
