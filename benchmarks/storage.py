"""`python -m benchmarks storage`: what the backends cost, and the digests of a model's files.

Backends: µs for a value of 1 KB, in turns, so that a busy machine slows all of it alike; medians of
nine rounds. A batch is 500 keys in one call (for those that have no such call, 500 calls in one
transaction, or simply 500).

Files: medians of seven rounds.

- `memory`: xxh3_128 over the same bytes, held in memory, with as many threads.
- `folder`: `digest_files` over the files, which are in the page cache.
- `unchanged`: the manifest of ten files that are remembered.

`benchmarks/large_values.py` measures large values and several writers.
"""

import argparse
import importlib
import importlib.util
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import diskcache
import xxhash

from benchmarks.large_values import large_values, writers
from cachedeval.engine import digest_cache, hashing
from cachedeval.engine.backend import Backend
from cachedeval.engine.files import digest_files, manifest
from cachedeval_disk import DiskBackend
from cachedeval_memory import MemoryBackend

__all__ = ["main"]

_BATCH = 500
_HELD = 5_000
"""Values that are held before anything is measured."""

Work = Callable[[Sequence[bytes]], object]
"""Gets, or puts, these keys."""

_noise = random.Random(0)
_VALUE = _noise.randbytes(1000)


def _keys(number: int) -> list[bytes]:
    return [_noise.randbytes(16) for _ in range(number)]


@contextmanager
def _ours(backend: Backend, held: Sequence[bytes]) -> Iterator[dict[str, Work]]:
    backend.put_many(dict.fromkeys(held, _VALUE))

    def get(keys: Sequence[bytes]) -> None:
        for key in keys:
            backend.get_many([key])

    def put(keys: Sequence[bytes]) -> None:
        for key in keys:
            backend.put_many({key: _VALUE})

    yield {
        "get": get,
        "get, batch": backend.get_many,
        "put": put,
        "put, batch": lambda keys: backend.put_many(dict.fromkeys(keys, _VALUE)),
    }
    backend.close()


@contextmanager
def _plain_diskcache(folder: Path, held: Sequence[bytes]) -> Iterator[dict[str, Work]]:

    with diskcache.Cache(str(folder)) as cache:

        def get(keys: Sequence[bytes]) -> None:
            for key in keys:
                cache.get(key)

        def put(keys: Sequence[bytes]) -> None:
            for key in keys:
                cache.set(key, _VALUE)

        def in_one(work: Work) -> Work:
            def together(keys: Sequence[bytes]) -> None:
                with cache.transact():
                    work(keys)

            return together

        in_one(put)(held)
        yield {"get": get, "get, batch": in_one(get), "put": put, "put, batch": in_one(put)}


@contextmanager
def _joblib(folder: Path, held: Sequence[bytes]) -> Iterator[dict[str, Work]]:
    joblib: Any = importlib.import_module("joblib")  # it may not be installed, and has no types
    work = joblib.Memory(folder, verbose=0).cache(_work)

    def call(keys: Sequence[bytes]) -> None:
        for key in keys:
            work(key)

    call(held[:_BATCH])
    yield {"get": lambda keys: call(held[: len(keys)]), "put": call}


def _work(key: bytes) -> bytes:  # noqa: ARG001  the result is stored under it
    return _VALUE


def backends(rounds: int) -> None:
    """Print the table of the backends beside what others use."""
    held = _keys(_HELD)
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        candidates: dict[str, Any] = {
            "memory": _ours(MemoryBackend(), held),
            "disk": _ours(DiskBackend(Path(place, "disk")), held),
            "diskcache": _plain_diskcache(Path(place, "diskcache"), held),
        }
        if importlib.util.find_spec("joblib") is not None:
            candidates["joblib"] = _joblib(Path(place, "joblib"), held)
        works = {name: stack.enter_context(one) for name, one in candidates.items()}
        taken = _measure(works, held, rounds)
    print(f"{'µs':12}" + "".join(f"{name:>12}" for name in works))
    for action in ("get", "get, batch", "put", "put, batch"):
        row = [taken.get((name, action)) for name in works]
        cells = (f"{statistics.median(one):12.1f}" if one else f"{'-':>12}" for one in row)
        print(f"{action:12}" + "".join(cells))


def _measure(
    works: dict[str, dict[str, Work]], held: Sequence[bytes], rounds: int
) -> dict[tuple[str, str], list[float]]:
    taken: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for action in ("get", "get, batch", "put", "put, batch"):
            for name, actions in works.items():
                if action not in actions:
                    continue
                number = _BATCH if "batch" in action else 100
                keys = _keys(number) if "put" in action else _noise.sample(list(held), number)
                os.sync()  # what the one before wrote must not burden this one
                start = time.perf_counter()
                actions[action](keys)
                seconds = time.perf_counter() - start
                taken.setdefault((name, action), []).append(seconds / number * 1e6)
    return taken


_ROUNDS = 7
_FILES = 4
_GOAL_RATIO = 0.45
_GOAL_S = 0.001


def write(folder: Path, size: int) -> list[Path]:
    """Write `_FILES` files of random bytes, `size` bytes in all, into the page cache."""
    paths = [folder / f"model-{index:05}.safetensors" for index in range(_FILES)]
    for path in paths:
        with path.open("wb") as file:
            for _ in range(size // _FILES >> 20):
                file.write(os.urandom(1 << 20))
    return paths


def hash_memory(blocks: list[bytes], threads: int) -> None:
    """Hash the blocks in chunks, by as many threads as the files are read with."""
    chunks = [
        memoryview(block)[start : start + hashing.CHUNK]
        for block in blocks
        for start in range(0, len(block), hashing.CHUNK)
    ]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(xxhash.xxh3_128_digest, chunks))


def _medians(work: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median of the seconds that each piece of work takes, run in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(_ROUNDS):
        for name, run in work.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def speed(folder: Path, size: int) -> None:
    """Print the digest's speed beside that of the bytes in memory, for one thread and for all."""
    paths = write(folder, size)
    blocks = [path.read_bytes() for path in paths]
    for threads in sorted({1, hashing.threads()}):
        with patch.object(hashing, "threads", return_value=threads):
            median = _medians(
                {
                    "memory": lambda: hash_memory(blocks, hashing.threads()),
                    "folder": lambda: digest_files(paths),
                }
            )
        ratio = median["memory"] / median["folder"]
        rates = ", ".join(f"{name} {size / 1e9 / s:.1f} GB/s" for name, s in median.items())
        print(f"{threads} threads: {rates}, ratio {ratio:.2f} (goal {_GOAL_RATIO})")
    for path in paths:
        path.unlink()


def unchanged(folder: Path) -> None:
    """Print how long it takes to see that ten files are as they were."""
    names = [f"file-{index}" for index in range(10)]
    for name in names:
        (folder / name).write_bytes(os.urandom(1 << 20))
    time.sleep(digest_cache.GRAIN_NS / 1e9)  # younger ones would be read
    known_digests = digest_cache.ProcessDigestCache()
    manifest(folder, names, known_digests=known_digests)
    median = _medians({"unchanged": lambda: manifest(folder, names, known_digests=known_digests)})
    print(f"unchanged: 10 files in {median['unchanged'] * 1e3:.3f} ms (goal {_GOAL_S * 1e3:.0f})")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks storage", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--megabytes", type=int, default=1024, help="of the files")
    given = parser.parse_args(arguments)
    backends(given.rounds)
    large_values(100, 3)
    writers(given.rounds)
    with tempfile.TemporaryDirectory() as name:
        print(f"\n{given.megabytes} MB in {_FILES} files, {hashing.threads()} threads at most")
        speed(Path(name), given.megabytes << 20)
        unchanged(Path(name))
    return 0
