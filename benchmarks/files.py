"""Measures the digest of a model-sized folder: `python -m benchmarks.files`.

Interleaved, so that a busy machine slows all of it alike; medians of seven rounds.

- `memory`: xxh3_128 over the same bytes, held in memory, with as many threads.
- `folder`: `digest_files` over the files, which are in the page cache.
- `unchanged`: the manifest of ten files that are remembered.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import xxhash

from cachedeval.engine import reading, statmemo
from cachedeval.engine.files import digest_files, manifest

ROUNDS = 7
FILES = 4
GOAL_RATIO = 0.45
GOAL_S = 0.001


def write(folder: Path, size: int) -> list[Path]:
    """Write `FILES` files of random bytes, `size` bytes in all, into the page cache."""
    paths = [folder / f"model-{index:05}.safetensors" for index in range(FILES)]
    for path in paths:
        with path.open("wb") as file:
            for _ in range(size // FILES >> 20):
                file.write(os.urandom(1 << 20))
    return paths


def hash_memory(blocks: list[bytes], threads: int) -> None:
    """Hash the blocks in chunks, by as many threads as the files are read with."""
    chunks = [
        memoryview(block)[start : start + reading.CHUNK]
        for block in blocks
        for start in range(0, len(block), reading.CHUNK)
    ]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(xxhash.xxh3_128_digest, chunks))


def measure(work: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median of the seconds that each piece of work takes, run in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS):
        for name, run in work.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def speed(folder: Path, size: int) -> None:
    """Print the digest's speed beside that of the bytes in memory, for one thread and for all."""
    paths = write(folder, size)
    blocks = [path.read_bytes() for path in paths]
    for threads in sorted({1, reading.threads()}):
        with patch.object(reading, "threads", return_value=threads):
            median = measure(
                {
                    "memory": lambda: hash_memory(blocks, reading.threads()),
                    "folder": lambda: digest_files(paths),
                }
            )
        ratio = median["memory"] / median["folder"]
        rates = ", ".join(f"{name} {size / 1e9 / s:.1f} GB/s" for name, s in median.items())
        print(f"{threads} threads: {rates}, ratio {ratio:.2f} (goal {GOAL_RATIO})")
    for path in paths:
        path.unlink()


def unchanged(folder: Path) -> None:
    """Print how long it takes to see that ten files are as they were."""
    names = [f"file-{index}" for index in range(10)]
    for name in names:
        (folder / name).write_bytes(os.urandom(1 << 20))
    time.sleep(statmemo.GRAIN_NS / 1e9)  # younger ones would be read
    memo = statmemo.ProcessMemo()
    manifest(folder, names, memo=memo)
    median = measure({"unchanged": lambda: manifest(folder, names, memo=memo)})
    print(f"unchanged: 10 files in {median['unchanged'] * 1e3:.3f} ms (goal {GOAL_S * 1e3:.0f})")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=1024)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print(f"{options.megabytes} MB in {FILES} files, {reading.threads()} threads at most")
        speed(Path(name), options.megabytes << 20)
        unchanged(Path(name))


if __name__ == "__main__":
    main()
