"""Large values and many writers: the last part of `python -m benchmarks storage`.

Large values: seconds to store and to read one value of bytes, and the most memory that the process
had meanwhile, as a multiple of the value. Each is measured in processes of its own, in turns.

- `plain`: a file, written and read at once, and the hashes that the engine needs: sha256 and xxh3 to
  store, xxh3 to read.
- `engine`: a step that returns the value, and the same call again in a new process.
- `diskcache`: `set` and `get`.

Writers: seconds until four processes have stored 300 values of 1 KB each, one at a time and in one
batch (for diskcache, a transaction).
"""

import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import diskcache
import xxhash

from cachedeval import Engine, node
from cachedeval_disk import DiskBackend

__all__ = ["large_values", "writers"]

_KINDS = ("plain", "engine", "diskcache")
_PROCESSES = 4
_VALUES = 300

_made: list[bytes] = []


@node(version="1", name="benchmarks.large")
def _large(size: int) -> bytes:
    del size
    return _made[0]


def _plain(folder: Path, size: int, action: str) -> bytes:
    del size
    path = folder / "plain"
    if action == "store":
        hashlib.sha256(_made[0])
        xxhash.xxh3_128_digest(_made[0])
        path.write_bytes(_made[0])
        return _made[0]
    value = path.read_bytes()
    xxhash.xxh3_128_digest(value)
    return value


def _engine(folder: Path, size: int, action: str) -> bytes:
    with Engine(f"disk:{folder / 'engine'}") as engine:
        value: bytes = engine.run(_large(size))
        if engine.stats[_large.name].computed != (action == "store"):
            sys.exit("the value did not come from where it should")
    return value


def _diskcache(folder: Path, size: int, action: str) -> bytes:
    del size
    with diskcache.Cache(str(folder / "diskcache")) as cache:
        if action == "store":
            cache.set("key", _made[0])
            return _made[0]
        value: bytes = cache.get("key")
    return value


_WORKS: dict[str, Callable[[Path, int, str], bytes]] = {
    "plain": _plain,
    "engine": _engine,
    "diskcache": _diskcache,
}


def _memory(field: str) -> int:
    """Return a field of this process's memory in bytes; Linux alone tells it."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def _work(kind: str, folder: Path, size: int, action: str) -> None:
    """Do one piece of work and print its seconds and its memory beyond that of the imports."""
    # What is measured is the value, not the first use of the packages.
    _made[:] = [bytes(1000)]
    for each in ("store", "read"):
        with tempfile.TemporaryDirectory() as scratch:
            _WORKS[kind](Path(scratch), 1000, "store")
            if each == "read":
                _WORKS[kind](Path(scratch), 1000, "read")
    before = _memory("VmRSS")
    if action == "store":
        _made[:] = [b"\x5a" * (size - 1) + b"\0"]
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # VmHWM begins anew
    start = time.perf_counter()
    value = _WORKS[kind](folder, size, action)
    seconds = time.perf_counter() - start
    print(json.dumps([seconds, (_memory("VmHWM") - before) / size]))
    if len(value) != size:
        sys.exit("another value came back")


def large_values(megabytes: int, rounds: int) -> None:
    """Print seconds and memory of storing and reading one large value."""
    size = megabytes * 1_000_000
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for action in ("store", "read"):
                for kind in _KINDS:
                    words = [kind, folder, str(size), action]
                    done = subprocess.run(
                        [sys.executable, "-m", "benchmarks.large_values", *words],
                        check=True,
                        capture_output=True,
                        text=True,
                    )
                    found.setdefault((action, kind), []).append(tuple(json.loads(done.stdout)))
    print(f"\n{megabytes} MB   " + "".join(f"{kind:>22}" for kind in _KINDS))
    for action in ("store", "read"):
        cells = []
        for kind in _KINDS:
            times, memories = zip(*found[action, kind], strict=True)
            cells.append(
                f"{statistics.median(times):9.3f} s {statistics.median(memories):4.1f} times"
            )
        print(f"{action:9}" + "".join(f"{cell:>22}" for cell in cells))


def _write(kind: str, folder: Path, number: int, way: str) -> None:
    """Wait for the others, then store values, and print the seconds."""
    items = {b"%4d%12d" % (number, n): b"%1000d" % n for n in range(_VALUES)}
    if kind == "diskcache":
        cache = diskcache.Cache(str(folder))
        cache.get(b"")
    else:
        backend = DiskBackend(folder)
        backend.get_many([bytes(16)])
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    if kind == "diskcache":
        if way == "one":
            for key, value in items.items():
                cache.set(key, value)
        else:
            with cache.transact():
                for key, value in items.items():
                    cache.set(key, value)
    elif way == "one":
        for key, value in items.items():
            backend.put_many({key: value})
    else:
        backend.put_many(items)
    print(time.perf_counter() - start, flush=True)


def _together(kind: str, folder: str, way: str) -> float:
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.large_values", kind, folder, str(n), way],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(_PROCESSES)
    ]
    for process in processes:
        if process.stdout is not None:  # for the type checker
            process.stdout.readline()
    for process in processes:
        if process.stdin is not None:
            process.stdin.write("go\n")
            process.stdin.flush()
    return max(float(process.communicate()[0]) for process in processes)


def writers(rounds: int) -> None:
    """Print how long several processes take to store small values into one cache."""
    kinds = ("disk", "diskcache")
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for way in ("one", "batch"):
            for kind in kinds:
                with tempfile.TemporaryDirectory() as folder:
                    # The database exists, as in all but the first run.
                    if kind == "disk":
                        backend = DiskBackend(folder)
                        backend.put_many({bytes(16): b""})
                        backend.close()
                    else:
                        diskcache.Cache(folder).close()
                    found.setdefault((way, kind), []).append(_together(kind, folder, way))
    print(f"\n{_PROCESSES} writers of {_VALUES}" + "".join(f"{kind:>12}" for kind in kinds))
    for way in ("one", "batch"):
        cells = (f"{statistics.median(found[way, kind]):10.3f} s" for kind in kinds)
        print(f"{way:16}" + "".join(cells))


if __name__ == "__main__":
    given_kind, given_folder, given_number, given_way = sys.argv[1:]
    run = _write if given_way in {"one", "batch"} else _work
    run(given_kind, Path(given_folder), int(given_number), given_way)
