"""How cost grows: the pipeline from 100 to 100,000 questions, and processes that share a cache."""

import json
import math
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import REPOSITORY, Rounds, command, environment, summary

__all__ = ["measure_scale", "measure_sharing"]

_PIPELINE = (sys.executable, "-m", "benchmarks.pipeline")


def measure_scale(root: Path, sizes: Sequence[int], say: Callable[[str], None]) -> dict[str, Any]:
    """Measure each size cold once, warm, and with one question changed.

    Args:
        root: an empty folder.
        sizes: questions, ascending.
        say: called with what begins.

    Returns:
        By size: seconds, peak memory and bytes on disk a question; `start`: the seconds of a warm
        run of one question; `slope`: the growth of the warm seconds between the two largest sizes,
        less the start, as an exponent of the number of questions.
    """
    results: dict[str, Any] = {}
    one: list[str | Path] = [*_PIPELINE, root / "one", "1"]
    command(one)
    start = statistics.median(command(one).seconds for _ in range(5))
    for size in sizes:
        say(f"{size} questions, cold")
        folder = root / str(size)
        cold = command([*_PIPELINE, folder, str(size)])
        kept = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        changed = iter(range(size))

        def change(folder: Path = folder, size: int = size, turn: Any = changed) -> dict[str, Any]:
            ran = command([*_PIPELINE, folder, str(size), str(next(turn))])
            return {"seconds": ran.seconds, "peak": ran.peak_mb, **json.loads(ran.out)["computed"]}

        taken = Rounds(5, 25, say).take(
            {
                "warm": partial(command, [*_PIPELINE, folder, str(size)]),
                "changed": change,
            }
        )
        results[str(size)] = {
            "cold": cold.seconds,
            "warm": summary([ran.seconds for ran in taken["warm"]]),
            "changed": summary([one["seconds"] for one in taken["changed"]]),
            "cold_peak_mb": cold.peak_mb,
            "peak_mb": max(ran.peak_mb for ran in taken["warm"]),
            "bytes_a_question": kept / size,
            "generated": max(one["generation"] for one in taken["changed"]),
            "judged": max(one["judge"] for one in taken["changed"]),
        }
        shutil.rmtree(folder)
    last, largest = (results[str(size)]["warm"]["median"] for size in sizes[-2:])
    slope = math.log((largest - start) / (last - start)) / math.log(sizes[-1] / sizes[-2])
    return {"sizes": results, "start": start, "slope": slope}


def measure_sharing(
    root: Path, size: int, processes: Sequence[int], say: Callable[[str], None]
) -> dict[str, Any]:
    """Let several processes run the same pipeline on one new cache at the same time.

    Each step is computed by one of them, and the others wait for it or find it.

    Args:
        root: an empty folder.
        size: questions.
        processes: how many at a time.
        say: called with what begins.
    """
    results = {}
    for count in processes:
        say(f"{count} processes on one cache")
        folder = root / f"shared-{count}"
        seconds, computed = {}, {}
        for state in ("cold", "warm"):
            begun = time.perf_counter()
            running = [
                subprocess.Popen(
                    [*_PIPELINE, str(folder), str(size)],
                    stdout=subprocess.PIPE,
                    cwd=REPOSITORY,
                    env=environment(),
                )
                for _ in range(count)
            ]
            printed = [json.loads(process.communicate()[0]) for process in running]
            seconds[state] = time.perf_counter() - begun
            computed[state] = sum(one["computed"]["generation"] for one in printed)
        results[str(count)] = {"seconds": seconds, "generated": computed, "questions": size}
    return results
