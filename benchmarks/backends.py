"""Measures the backends beside those that others use: `python -m benchmarks.backends`.

µs for a value of 1 KB, interleaved so that a busy machine slows all of it alike; medians of nine
rounds. A batch is 500 keys in one call (for those that have no such call, 500 calls in one
transaction, or simply 500).
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
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cachedeval.engine.backend import Backend
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
    import diskcache  # noqa: PLC0415  a rival, used as its manual says

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


def _work(key: bytes) -> bytes:  # noqa: ARG001  it is what the result is kept under
    return _VALUE


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args(arguments)
    held = _keys(_HELD)
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        contestants: dict[str, Any] = {
            "memory": _ours(MemoryBackend(), held),
            "disk": _ours(DiskBackend(Path(place, "disk")), held),
            "diskcache": _plain_diskcache(Path(place, "diskcache"), held),
        }
        if importlib.util.find_spec("joblib") is not None:
            contestants["joblib"] = _joblib(Path(place, "joblib"), held)
        works = {name: stack.enter_context(one) for name, one in contestants.items()}
        taken = _measure(works, held, options.rounds)
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


if __name__ == "__main__":
    main()
