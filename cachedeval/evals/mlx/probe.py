"""What mlx has to compute with, as a program of its own that prints one line of JSON.

    python -m cachedeval.evals.mlx.probe [--own-blas]

A library that does not fit the processor kills whoever opens it; here that is this program, and
whoever started it can say so. With ``--own-blas``, mlx is left with the BLAS that it brings.
"""

import json
import logging
import sys
from typing import Any

from cachedeval.evals.mlx.blas import blas_in_use, measure_blas, open_blas

__all__ = ["OWN_BLAS", "probe"]

OWN_BLAS = "--own-blas"


def probe(*, own_blas: bool) -> dict[str, Any]:
    """Return mlx's device, the BLAS in use (None: mlx's own) and its GFLOP/s.

    The speed is None on a GPU. To be called in a process in which mlx is not imported yet.
    """
    if not own_blas:
        open_blas()
    import mlx.core as mx  # noqa: PLC0415  the BLAS must be open before

    logging.getLogger("cachedeval").setLevel(logging.ERROR)  # that mlx came first is as wanted
    on_cpu = mx.default_device() == mx.cpu
    return {
        "device": "cpu" if on_cpu else "gpu",
        "name": str(mx.device_info().get("device_name", "")),
        "blas": blas_in_use(),
        "gflops": measure_blas() if on_cpu else None,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe(own_blas=OWN_BLAS in sys.argv[1:])) + "\n")
