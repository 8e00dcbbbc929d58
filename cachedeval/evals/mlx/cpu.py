"""Fast matrix products on the CPU for mlx on Linux: an OpenBLAS, with a thread a free core.

The Linux wheel of mlx brings the reference BLAS, which multiplies float32 matrices at a few
GFLOP/s. A library that was opened with `RTLD_GLOBAL` earlier wins when the dynamic linker looks
up mlx's `cblas_sgemm`, so an OpenBLAS opened first takes its place: no preload, no root.

OpenBLAS cuts each product into one part a core and waits, spinning, until the last is done. Where
another program uses a core, one part waits for its turn while the others spin: measured on two
cores, decoding beside one busy program took 2.6 times as long with two threads as it did alone, and
two evaluations at once took 11 times as long as with one thread each. So the number of threads
follows what others use. The results must be the same, to the last bit, with every number of
threads. OpenBLAS's kernels for processors with AVX2 and without AVX-512 are not: they sum in another
order where a product is cut. There the next older kernels are used (a fifth to a third slower).

As a program, it measures in a separate process and prints one line of JSON:

    python -m cachedeval.evals.mlx.cpu [--own-blas]

A library that does not fit the processor kills the process that opens it. With `--own-blas`, mlx
uses the BLAS that it brings.
"""

import atexit
import ctypes
import functools
import importlib.util
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "OWN_BLAS",
    "Cores",
    "Used",
    "blas_in_use",
    "measure_blas",
    "open_blas",
    "probe",
    "threads_beside",
    "used_so_far",
]

_log = logging.getLogger(__name__)

# This package's library has plain symbol names; those in numpy and scipy have prefixed ones.
_PACKAGE = "ngsolve_openblas"
_SYSTEM_LIBRARY = "libopenblas.so.0"
_FORTRAN = "libgfortran.so.5"
_SYMBOL = "cblas_sgemm"
_PATIENCE = 60.0
"""Seconds to wait for running products when the process ends."""

_GLANCE = 0.01
"""Seconds in which other threads compute, or do not."""

_PERIOD = 0.5
"""Seconds that are looked back on: enough ticks of the clock, and soon enough."""

_CHOSEN = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")
"""Where one of these is set, the user has chosen."""

_STAT = Path("/proc/stat")
_CPUINFO = Path("/proc/cpuinfo")

_CORETYPE = "OPENBLAS_CORETYPE"
"""The variable from which OpenBLAS, when it is opened, takes the kernels to use."""

OWN_BLAS = "--own-blas"


@functools.cache
def open_blas() -> str | None:
    """Open an OpenBLAS for mlx to use; to be called before `import mlx.core`.

    Tries the package `ngsolve-openblas`, then the system's `libopenblas.so.0`. Calls after the
    first do nothing. On macOS mlx uses Accelerate and Metal, and this does nothing.

    Returns:
        The path or name of the library that was opened; `None` where none was, either because
        none is installed or because mlx was imported already (a warning is logged).
    """
    if sys.platform != "linux":
        return None
    if "mlx.core" in sys.modules:
        if "openblas" not in (blas_in_use() or ""):
            _log.warning(
                "mlx was imported before an OpenBLAS could be opened for it, so its matrix "
                "products are slow: call cachedeval.evals.mlx.cpu.open_blas() first"
            )
        return None
    packaged = _packaged_library()
    if packaged is not None and (_open(str(packaged)) or _open_with_fortran(packaged)):
        return str(packaged)
    if _open(_SYSTEM_LIBRARY):
        return _SYSTEM_LIBRARY
    _log.warning(
        "no OpenBLAS could be opened, so mlx multiplies matrices with its own slow BLAS: "
        "install the package ngsolve-openblas (x86-64) or the system's libopenblas0"
    )
    return None


def blas_in_use() -> str | None:
    """Return the file that a look-up of `cblas_sgemm` among the global symbols leads to.

    Returns:
        The library's path; `None` where no library shares the symbol (then mlx uses its own), or
        where there is no `/proc` to ask (macOS).
    """
    try:
        address = ctypes.cast(getattr(ctypes.CDLL(None), _SYMBOL), ctypes.c_void_p).value or 0
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    except (AttributeError, OSError):
        return None
    for line in maps.splitlines():
        bounds, _, rest = line.partition(" ")
        start, end = (int(bound, 16) for bound in bounds.split("-"))
        if start <= address < end:
            # What follows: permissions, offset, device, inode and, of a file, its path.
            return "/" + rest.partition("/")[2]
    return None


def measure_blas(size: int = 512, repeats: int = 5) -> float:
    """Measure a float32 matrix product in mlx on the CPU.

    Args:
        size: The side of the two square matrices.
        repeats: How often to multiply; the fastest counts.

    Returns:
        GFLOP/s, at `2 * size**3` operations a product.
    """
    open_blas()
    import mlx.core as mx

    left = mx.random.normal((size, size), key=mx.random.key(1))
    right = mx.random.normal((size, size), key=mx.random.key(2))
    mx.eval(left, right)
    fastest = float("inf")
    for _ in range(repeats + 1):  # one more: the first starts the threads
        started = time.perf_counter()
        mx.eval(mx.matmul(left, right, stream=mx.cpu))
        fastest = min(fastest, time.perf_counter() - started)
    return 2 * size**3 / fastest / 1e9


def _packaged_library() -> Path | None:
    """Return the library in the package, found without importing it (its import prints)."""
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).glob("libopenblas*.so*")):
            return path
    return None


def _open(library: str) -> bool:
    kernels = None if os.environ.get(_CORETYPE) else _same_for_all_threads()
    try:
        if kernels is not None:
            os.environ[_CORETYPE] = kernels
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        _log.debug("cannot open %s: %s", library, error)
        return False
    finally:
        if kernels is not None:
            del os.environ[_CORETYPE]  # not for the processes that this one starts
    atexit.register(_wait_for_products)
    return True


def _same_for_all_threads() -> str | None:
    """Return the kernels to use if those for this processor depend on the number of threads."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    return "Sandybridge" if "avx2" in flags and "avx512vl" not in flags else None


def _wait_for_products() -> None:
    """Let the process end only when nothing is multiplied any more.

    mlx computes on its own threads, and a product may still be running: one that was started ahead,
    or of a step that was interrupted. When the process ends, OpenBLAS stops its threads and waits
    for them. A busy thread misses that, and the process would never end.
    """
    ends = time.monotonic() + _PATIENCE
    try:
        mlx = sys.modules.get("mlx.core")
        if mlx is not None:
            mlx.synchronize()  # on a busy machine, threads without CPU time may have work left
        while time.monotonic() < ends:
            before = time.process_time() - time.thread_time()
            time.sleep(_GLANCE)
            if time.process_time() - time.thread_time() - before < _GLANCE / 4:
                return
    except KeyboardInterrupt:
        os._exit(130)  # the status of an interrupt; there is no other way out


def _open_with_fortran(library: Path) -> bool:
    """Open the packaged OpenBLAS where the system has no Fortran runtime.

    The package needs `libgfortran.so.5` and does not bring it; mlx's wheel does, under another
    name. The linker looks in the folder that the library is opened from, so a folder of links
    brings the two together. Once both are open the links are no longer needed.
    """
    mlx = importlib.util.find_spec("mlx")
    for folder in (mlx.submodule_search_locations or []) if mlx else []:
        bundled = sorted(Path(folder).parent.glob("mlx_cpu.libs/lib*.so*"))
        fortran = [path for path in bundled if path.name.startswith("libgfortran")]
        if not fortran:
            continue
        with tempfile.TemporaryDirectory(prefix="cachedeval-") as name:
            links = Path(name)
            for path in [library, *bundled]:
                (links / path.name).symlink_to(path)
            (links / _FORTRAN).symlink_to(fortran[0])
            if _open(str(links / library.name)):
                return True
    return False


class Used(NamedTuple):
    """What was computed on this machine up to a moment, all in seconds."""

    at: float
    """Of a clock that is never set."""
    machine: float
    """Of processors' time, by all programs."""
    own: float
    """Of it, by this program."""


class Cores:
    """Sets the number of OpenBLAS threads; does nothing where another BLAS, or none, is in use.

    Args:
        settle: waits until no product is under way; called before the number changes.
    """

    def __init__(self, settle: Callable[[], object]) -> None:
        self._settle = settle
        self._library: Any = None if any(os.environ.get(name) for name in _CHOSEN) else _openblas()
        self._most = _most_threads() if self._library else 1
        self._before = used_so_far() if self._most > 1 else None

    def share(self) -> None:
        """Follow what other programs use, now and then."""
        if self._before is None or time.monotonic() - self._before.at < _PERIOD:
            return
        now = used_so_far()
        if now is not None:
            threads = min(self._most, threads_beside(self._before, now, os.cpu_count() or 1))
            if threads != self._library.openblas_get_num_threads():
                self._settle()
                self._library.openblas_set_num_threads(threads)
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
    """Return the time used so far; `None` where the system does not report it (only Linux does)."""
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


def probe(*, own_blas: bool) -> dict[str, Any]:
    """Return mlx's device, the BLAS in use (None: mlx's own) and its GFLOP/s.

    The speed is None on a GPU. To be called in a process in which mlx is not imported yet.
    """
    if not own_blas:
        open_blas()
    import mlx.core as mx

    logging.getLogger("cachedeval").setLevel(logging.ERROR)  # mlx is imported first on purpose
    on_cpu = mx.default_device() == mx.cpu
    return {
        "device": "cpu" if on_cpu else "gpu",
        "name": str(mx.device_info().get("device_name", "")),
        "blas": blas_in_use(),
        "gflops": measure_blas() if on_cpu else None,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe(own_blas=OWN_BLAS in sys.argv[1:])) + "\n")
