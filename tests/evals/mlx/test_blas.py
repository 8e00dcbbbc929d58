"""Which BLAS mlx uses, in processes of their own: an opened library stays open."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="macOS has Accelerate")


def run_python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, **env},
    )


@linux_only
def test_an_openblas_is_found_and_shared() -> None:
    # The dependency's marker promises one on x86-64; elsewhere the system may have none.
    result = run_python(
        "from cachedeval.evals.mlx.cpu import blas_in_use, open_blas\n"
        "opened = open_blas()\n"
        "assert open_blas() == opened\n"
        "print(opened, blas_in_use(), sep='\\n')"
    )
    opened, in_use = result.stdout.splitlines()
    if opened == "None":
        pytest.skip("no OpenBLAS on this machine")
    assert "openblas" in opened
    assert Path(in_use).is_file()
    assert "openblas" in in_use
    assert result.stderr == ""


@linux_only
def test_the_linker_binds_mlx_to_the_openblas(tmp_path: Path) -> None:
    code = (
        "from cachedeval.evals.mlx.cpu import open_blas\n"
        "print(open_blas())\n"
        "import mlx.core as mx\n"
        "product = mx.matmul(mx.ones((64, 64)), mx.ones((64, 64)), stream=mx.cpu)\n"
        "assert product.sum().item() == 64**3"
    )
    result = run_python(code, LD_DEBUG="bindings", LD_DEBUG_OUTPUT=str(tmp_path / "linker"))
    if result.stdout == "None\n":
        pytest.skip("no OpenBLAS on this machine")
    lines = [
        line
        for log in tmp_path.iterdir()
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
        if "libmlx.so" in line.partition(" to ")[0] and "`cblas_sgemm'" in line
    ]
    assert lines
    assert all("openblas" in line.partition(" to ")[2] for line in lines), lines


@linux_only
def test_too_late_is_said() -> None:
    result = run_python(
        "import mlx.core\nfrom cachedeval.evals.mlx.cpu import open_blas\nprint(open_blas())"
    )
    assert result.stdout == "None\n"
    assert "mlx was imported before" in result.stderr


@linux_only
def test_nothing_found_is_said() -> None:
    result = run_python(
        "from cachedeval.evals.mlx import cpu\n"
        "cpu._PACKAGE = 'no_such_package'\n"
        "cpu._SYSTEM_LIBRARY = 'libnosuch.so.0'\n"
        "print(cpu.open_blas(), cpu.blas_in_use())"
    )
    assert result.stdout == "None None\n"
    assert "no OpenBLAS could be opened" in result.stderr


def test_a_product_is_measured() -> None:
    result = run_python(
        "import sys\n"
        "from cachedeval.evals.mlx.cpu import measure_blas\n"
        "assert 'mlx' not in sys.modules\n"
        "print(measure_blas(size=64, repeats=1) > 0)"
    )
    assert result.stdout == "True\n"


@linux_only
def test_a_process_ends_while_products_are_under_way() -> None:
    result = run_python(
        "from cachedeval.evals.mlx.runtime import mx\n"
        "product = mx.random.normal((1500, 1500))\n"
        "mx.eval(product)\n"
        "for _ in range(10): product = product @ product\n"
        "mx.async_eval(product)\n"
    )
    assert result.stderr == ""
