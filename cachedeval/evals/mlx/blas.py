"""A fast BLAS for mlx on Linux, opened before mlx is imported.

The Linux wheel of mlx brings the reference BLAS, which multiplies float32 matrices at a few
GFLOP/s. A library that was opened with ``RTLD_GLOBAL`` earlier wins when the dynamic linker looks
up mlx's ``cblas_sgemm``, so an OpenBLAS opened first takes its place: no preload, no root.
"""

import atexit
import ctypes
import functools
import importlib.util
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["blas_in_use", "measure_blas", "open_blas"]

_log = logging.getLogger(__name__)

# This package's library has plain symbol names; those in numpy and scipy have prefixed ones.
_PACKAGE = "ngsolve_openblas"
_SYSTEM_LIBRARY = "libopenblas.so.0"
_FORTRAN = "libgfortran.so.5"
_SYMBOL = "cblas_sgemm"

_PATIENCE = 60.0
"""Seconds that products which are under way are given when the process ends."""
_GLANCE = 0.01
"""Seconds in which other threads compute, or do not."""


@functools.cache
def open_blas() -> str | None:
    """Open an OpenBLAS for mlx to use; to be called before ``import mlx.core``.

    Tries the package ``ngsolve-openblas``, then the system's ``libopenblas.so.0``. Calls after the
    first do nothing. On macOS mlx uses Accelerate and Metal, and this does nothing.

    Returns:
        The path or name of the library that was opened; ``None`` where none was, either because
        none is to be had or because mlx was imported already (a warning is logged).
    """
    if sys.platform != "linux":
        return None
    if "mlx.core" in sys.modules:
        if "openblas" not in (blas_in_use() or ""):
            _log.warning(
                "mlx was imported before an OpenBLAS could be opened for it, so its matrix "
                "products are slow: call cachedeval.evals.mlx.blas.open_blas() first"
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
    """Return the file that a look-up of ``cblas_sgemm`` among the global symbols leads to.

    Returns:
        The library's path; ``None`` where no library shares the symbol (then mlx uses its own), or
        where there is no ``/proc`` to ask (macOS).
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
        GFLOP/s, at ``2 * size**3`` operations a product.
    """
    open_blas()
    import mlx.core as mx  # noqa: PLC0415 - importing this module must not import mlx

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
    try:
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        _log.debug("cannot open %s: %s", library, error)
        return False
    atexit.register(_wait_for_products)
    return True


def _wait_for_products() -> None:
    """Let the process end only when nothing is multiplied any more.

    mlx computes on threads of its own, and something may still be under way: what was begun ahead,
    or a step that was interrupted. When the process ends, OpenBLAS tells its threads to stop and
    waits for them. One that is busy then misses that, and the process would never end.
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
        os._exit(130)  # as a shell tells an interrupt; there is no other way out


def _open_with_fortran(library: Path) -> bool:
    """Open the packaged OpenBLAS where the system has no Fortran runtime.

    The package needs ``libgfortran.so.5`` and does not bring it; mlx's wheel does, under another
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
