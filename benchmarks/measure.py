"""Timing whole commands as a user runs them; samples, rounds, and results as JSON."""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "CLI",
    "REPOSITORY",
    "Ran",
    "Results",
    "Rounds",
    "Stopped",
    "command",
    "environment",
    "new_results",
    "read_results",
    "summary",
    "write_results",
]

REPOSITORY = Path(__file__).parents[1]
CLI = str(Path(sys.executable).with_name("cachedeval"))
"""The command that the package installs, beside the interpreter that runs this."""

_TO_MB = 2**20 if sys.platform == "darwin" else 2**10
"""`ru_maxrss` counts bytes on macOS and KiB elsewhere (getrusage(2))."""


class Ran(NamedTuple):
    """A command that has ended."""

    seconds: float
    """Wall time, the interpreter's start included."""
    peak_mb: float
    """The highest resident memory, in MiB; no less than this process's own at the fork."""
    out: str


class Stopped(Exception):  # noqa: N818  a result, not a fault
    """A command ran into its time limit, and was stopped."""


def command(
    arguments: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    limit_s: float = 900,
) -> Ran:
    """Run a command to its end.

    Args:
        arguments: the program and its arguments.
        env: further environment variables.
        cwd: where it runs; the repository's root if not given.
        limit_s: seconds after which it is killed.

    Raises:
        Stopped: it took longer.
        RuntimeError: it failed; the message ends with what it said.
    """
    words = [str(word) for word in arguments]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begun = time.perf_counter()
        process = subprocess.Popen(
            words, stdout=out, stderr=err, cwd=cwd or REPOSITORY, env=environment(env)
        )
        seconds, usage = _wait(process, begun, limit_s)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            said = (err.read()[-2000:] or out.read()[-2000:]).decode(errors="replace")
            raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}:\n{said}")
        return Ran(seconds, usage.ru_maxrss / _TO_MB, out.read().decode(errors="replace"))


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a measured command, with more variables in it.

    Byte code is kept, as it is for a user, wherever these benchmarks run.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **(more or {})}


def _wait(process: "subprocess.Popen[bytes]", begun: float, limit_s: float) -> tuple[float, Any]:
    import threading  # noqa: PLC0415

    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        process.kill()

    timer = threading.Timer(limit_s, stop)
    timer.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
    finally:
        timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    if stopped.is_set():
        raise Stopped(f"stopped after {limit_s:.0f} s")
    return seconds, usage


def summary(samples: Sequence[float]) -> dict[str, Any]:
    """Return samples with their median and their noise.

    The noise is the distance between the quartiles as a part of the median; None below 4 samples.
    """
    median = statistics.median(samples)
    noise = None
    if len(samples) >= 4:  # noqa: PLR2004  quartiles of fewer say nothing
        low, _, high = statistics.quantiles(samples, n=4)
        noise = (high - low) / median if median else 0.0
    return {"median": median, "noise": noise, "n": len(samples), "samples": list(samples)}


class Rounds:
    """Takes samples of several things in turns, so that a busy machine slows all of them alike.

    Args:
        wanted: samples of each thing.
        budget_s: seconds that one thing may take in all; a long one gets fewer samples, at least
            one.
        say: called before each sample with what begins.
        budgets: other budgets, by name.
    """

    def __init__(
        self,
        wanted: int,
        budget_s: float,
        say: Callable[[str], None],
        budgets: Mapping[str, float] | None = None,
    ) -> None:
        self._wanted = wanted
        self._budget_s = budget_s
        self._say = say
        self._budgets = budgets or {}

    def take(self, things: Mapping[str, Callable[[], Any]]) -> dict[str, list[Any]]:
        """Return what each thing returned, sample by sample."""
        taken: dict[str, list[Any]] = {name: [] for name in things}
        spent = dict.fromkeys(things, 0.0)
        for number in range(self._wanted):
            for name, thing in things.items():
                budget = self._budgets.get(name, self._budget_s)
                if number and spent[name] * (number + 1) / number > budget:
                    continue
                if len(taken[name]) < number:
                    continue
                self._say(f"{name}, sample {number + 1}")
                begun = time.perf_counter()
                taken[name].append(thing())
                spent[name] += time.perf_counter() - begun
        return taken


Results = dict[str, Any]

_VERSIONS = ("cachedeval", "mlx", "mlx-lm", "msgspec", "xxhash", "diskcache")


def _machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in _VERSIONS},
        "load": round(os.getloadavg()[0], 2),
    }


def new_results(mode: str) -> Results:
    """Return results without measurements.

    Args:
        mode: `quick` or `default`.
    """
    return {
        "mode": mode,
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "machine": _machine(),
        "profiles": {},
    }


def write_results(path: Path, results: Results) -> None:
    """Write results to a file."""
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def read_results(path: Path) -> Results:
    """Read results from a file."""
    found: Results = json.loads(path.read_text(encoding="utf-8"))
    return found


def _commit() -> str:
    """Return the commit that is measured, marked where files differ from it; "" outside git."""
    words = ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
