import ctypes
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachedeval.evals.mlx import cpu
from cachedeval.evals.mlx.cpu import Cores, Used, blas_in_use, threads_beside, used_so_far
from cachedeval.evals.mlx.runtime import mx

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
def test_a_system_that_does_not_tell(
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
    for name in cpu._TOLD:
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
@pytest.mark.parametrize("rows", [1, 5, 64, 127])
def test_no_bit_depends_on_the_threads(rows: int) -> None:
    left = mx.random.normal((rows, 576), key=mx.random.key(1))
    right = mx.random.normal((1536, 576), key=mx.random.key(2))

    def product(threads: int) -> Any:
        LIBRARY.openblas_set_num_threads(threads)
        found: Any = mx.matmul(left, right.T, stream=mx.cpu)
        mx.eval(found)
        return found

    one, two = product(1), product(2)
    assert mx.array_equal(one, two).item()
