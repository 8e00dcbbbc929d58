import sys
import time

import pytest

from benchmarks.measure import Rounds, Stopped, command, summary


def test_a_command_is_timed_with_its_memory_and_output() -> None:
    code = "import time; time.sleep(0.2); print(len(bytearray(100 << 20)))"
    ran = command([sys.executable, "-c", code])
    assert 0.2 <= ran.seconds < 20
    assert ran.peak_mb > 100
    assert ran.out.strip() == str(100 << 20)


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="no luck"):
        command([sys.executable, "-c", "raise SystemExit('no luck')"])


def test_a_command_that_takes_too_long_is_stopped() -> None:
    begun = time.perf_counter()
    with pytest.raises(Stopped):
        command([sys.executable, "-c", "import time; time.sleep(60)"], limit_s=0.3)
    assert time.perf_counter() - begun < 20


def test_summary() -> None:
    assert summary([3.0, 1.0, 2.0]) == {
        "median": 2.0,
        "noise": None,
        "n": 3,
        "samples": [3.0, 1.0, 2.0],
    }
    assert summary([1.0, 2.0, 3.0, 4.0, 5.0])["noise"] == pytest.approx(1.0)


def test_rounds_take_turns_and_keep_the_budget() -> None:
    order: list[str] = []

    def slow() -> str:
        time.sleep(0.06)
        order.append("slow")
        return "s"

    def fast() -> str:
        order.append("fast")
        return "f"

    taken = Rounds(4, 0.1, lambda _: None).take({"fast": fast, "slow": slow})
    assert taken == {"fast": ["f"] * 4, "slow": ["s"]}
    assert order == ["fast", "slow", "fast", "fast", "fast"]
