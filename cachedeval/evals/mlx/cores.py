"""Multiplying with as many threads as there are cores that nobody else uses.

OpenBLAS cuts each product into one part a core and waits, spinning, until the last is done. Where
another program uses a core, one part waits for its turn while the others spin: measured on two
cores, decoding beside one busy program took 2.6 times as long with two threads as it did alone, and
two evaluations at once took 11 times as long as with one thread each. So the number of threads
follows what others use. The results are the same, to the last bit, with every number of threads.
"""

import ctypes
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Cores", "Used", "threads_beside", "used_so_far"]

_PERIOD = 0.5
"""Seconds that are looked back on: enough ticks of the clock, and soon enough."""

_TOLD = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")
"""Where one of these is set, the user has chosen."""

_STAT = Path("/proc/stat")


class Used(NamedTuple):
    """What was computed on this machine up to a moment, all in seconds."""

    at: float
    """Of a clock that is never set."""
    machine: float
    """Of processors' time, by all programs."""
    own: float
    """Of it, by this program."""


class Cores:
    """Sets how many threads OpenBLAS uses; does nothing where another BLAS, or none, is in use.

    Args:
        settle: waits until no product is under way; called before the number changes.
    """

    def __init__(self, settle: Callable[[], object]) -> None:
        self._settle = settle
        self._library: Any = None if any(os.environ.get(name) for name in _TOLD) else _openblas()
        self._most = _most_threads() if self._library else 1
        self._before = used_so_far() if self._most > 1 else None

    def share(self) -> None:
        """Look at what others use, now and then, and leave it to them."""
        if self._before is None or time.monotonic() - self._before.at < _PERIOD:
            return
        now = used_so_far()
        if now is not None:
            wanted = min(self._most, threads_beside(self._before, now, os.cpu_count() or 1))
            if wanted != self._library.openblas_get_num_threads():
                self._settle()
                self._library.openblas_set_num_threads(wanted)
        self._before = now


def threads_beside(before: Used, now: Used, cores: int) -> int:
    """Return how many cores others leave free, at least 1.

    Args:
        before: at the beginning of a period.
        now: at its end.
        cores: how many the machine has.
    """
    others = (now.machine - before.machine) - (now.own - before.own)
    # With a core that is free half of the time, a thread more helps as often as it harms.
    free = round(cores - others / (now.at - before.at))
    return max(1, min(cores, free))


def used_so_far() -> Used | None:
    """Return what was computed so far; ``None`` where the system does not tell (only Linux does)."""
    try:
        name, *ticks = _STAT.read_text(encoding="ascii").split("\n", 1)[0].split()
        # user, nice, system, idle, iowait, irq, softirq, steal; guests' are in the first two.
        user, nice, system, _idle, _iowait, *rest = map(int, ticks[:8])
    except (OSError, ValueError):
        return None
    if name != "cpu":
        return None
    machine = (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")
    return Used(time.monotonic(), machine, time.process_time())


@functools.cache
def _most_threads() -> int:
    """Return how many threads OpenBLAS had before any were taken from it."""
    return int(_openblas().openblas_get_num_threads())


def _openblas() -> Any:
    """Return what has OpenBLAS's own functions, where it was opened for mlx; else None."""
    here = ctypes.CDLL(None)
    names = ("openblas_get_num_threads", "openblas_set_num_threads")
    return here if all(hasattr(here, name) for name in names) else None
