import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachedeval.evals.mlx import cpu
from cachedeval.evals.mlx.cpu import Cores, Used, blas_in_use, threads_beside, used_so_far
from cachedeval.evals.mlx.runtime import mx

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
def test_a_late_call_is_reported() -> None:
    result = run_python(
        "import mlx.core\nfrom cachedeval.evals.mlx.cpu import open_blas\nprint(open_blas())"
    )
    assert result.stdout == "None\n"
    assert "mlx was imported before" in result.stderr


@linux_only
def test_an_empty_result_is_reported() -> None:
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


LIBRARY: Any = ctypes.CDLL(None)
OPENBLAS = "openblas" in (blas_in_use() or "")


@pytest.mark.parametrize(
    ("others", "threads"), [(0, 4), (0.3, 4), (0.8, 3), (2, 2), (3, 1), (3.9, 1), (9, 1), (-0.1, 4)]
)
def test_what_others_use_is_left_to_them(others: float, threads: int) -> None:
    for own in (0, 0.5, 4):
        before, now = Used(10, 100, 7), Used(12, 100 + 2 * (others + own), 7 + 2 * own)
        assert threads_beside(before, now, 4) == threads


def test_a_busy_program_is_seen() -> None:
    before = used_so_far()
    if before is None:
        pytest.skip("this system does not tell what was computed")
    subprocess.run([sys.executable, "-c", "sum(range(20_000_000))"], check=True)
    now = used_so_far()
    assert now is not None
    assert now.machine - before.machine - (now.own - before.own) > 0.05


@pytest.mark.parametrize("told", ["", "nothing", "intr 1 2 3\n", "cpu\n", "cpu a b c d e\n"])
def test_a_system_without_proc_stat(
    told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = tmp_path / "stat"
    if told:
        stat.write_text(told)
    monkeypatch.setattr(cpu, "_STAT", stat)
    assert used_so_far() is None
    Cores(lambda: None).share()


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if not OPENBLAS:
        pytest.skip("mlx does not multiply with OpenBLAS here")
    for name in cpu._CHOSEN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cpu, "_PERIOD", 0.0)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    before = LIBRARY.openblas_get_num_threads()
    LIBRARY.openblas_set_num_threads(2)
    cpu._most_threads.cache_clear()
    yield
    cpu._most_threads.cache_clear()
    LIBRARY.openblas_set_num_threads(before)


def tell(monkeypatch: pytest.MonkeyPatch, *busy: float) -> None:
    """Let a period of a second pass at each look, in which others use so many cores."""
    machine = [0.0]
    for each in busy:
        machine.append(machine[-1] + each)
    told = iter([Used(float(at), used, 0.0) for at, used in enumerate(machine)])
    monkeypatch.setattr(cpu, "used_so_far", lambda: next(told))


@pytest.mark.usefixtures("two_threads")
def test_threads_follow_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[int] = []
    tell(monkeypatch, 0.1, 1, 1.9, 0)
    shared = Cores(lambda: settled.append(LIBRARY.openblas_get_num_threads()))
    found = []
    for _ in range(4):
        shared.share()
        found.append(LIBRARY.openblas_get_num_threads())
    assert found == [2, 1, 1, 2]
    assert settled == [2, 1], "what runs is waited for, and only where something changes"


@pytest.mark.usefixtures("two_threads")
def test_the_next_model_gets_back_what_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, 1, 1, 0)
    Cores(lambda: None).share()
    assert LIBRARY.openblas_get_num_threads() == 1
    Cores(lambda: None).share()
    assert LIBRARY.openblas_get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_what_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, 2)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    Cores(lambda: None).share()
    assert LIBRARY.openblas_get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("rows", [1, 4, 5, 16, 64, 127])
@pytest.mark.parametrize(("inner", "columns"), [(576, 1536), (1536, 576)])
def test_no_bit_depends_on_the_threads(rows: int, inner: int, columns: int) -> None:
    left = mx.random.normal((rows, inner), key=mx.random.key(1))
    right = mx.random.normal((columns, inner), key=mx.random.key(2))

    def product(threads: int) -> Any:
        LIBRARY.openblas_set_num_threads(threads)
        found: Any = mx.matmul(left, right.T, stream=mx.cpu)
        mx.eval(found)
        return found

    one, two = product(1), product(2)
    assert mx.array_equal(one, two).item()


@pytest.mark.parametrize(
    ("flags", "kernels"),
    [
        ("fpu sse2 avx avx2 fma", "Sandybridge"),
        ("fpu sse2 avx avx2 fma avx512f avx512vl", None),
        ("fpu sse2 avx", None),
        ("", None),
    ],
)
def test_kernels_do_not_depend_on_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, kernels: str | None
) -> None:
    found = tmp_path / "cpuinfo"
    found.write_text(f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\n", encoding="utf-8")
    monkeypatch.setattr(cpu, "_CPUINFO", found)
    assert cpu._same_for_all_threads() == kernels
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "none")
    assert cpu._same_for_all_threads() is None
