"""The one place where the evaluations import mlx, set up before it."""

import os

from cachedeval.evals.mlx.cpu import open_blas

# A fast BLAS on Linux; and float32 that is float32: where a GPU has TF32, mlx multiplies float32
# matrices with 11 bits, but only if they are large, so that a batch would differ from one prompt.
open_blas()
os.environ.setdefault("MLX_ENABLE_TF32", "0")

import mlx.core as mx  # noqa: E402 - the BLAS must be open before

__all__ = ["mx"]
