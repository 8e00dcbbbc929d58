"""A short run of the attacks; with `--thorough` at length."""

import random
from pathlib import Path

import pytest
from faults.attacks import BROKEN, crowd, damages, kills, main

pytestmark = pytest.mark.slow


def check(found: dict[str, float]) -> None:
    assert {what: count for what, count in found.items() if what.startswith(BROKEN) and count} == {}
    assert any(what.startswith(BROKEN) for what in found)


def test_a_reported_result_survives_a_kill(tmp_path: Path) -> None:
    found = kills(tmp_path / "kills", 5, random.Random(1))
    check(found)
    assert found["runs killed"] == 5


@pytest.mark.parametrize(("kind", "count"), [("byte", 60), ("cut", 15)])
def test_corrupt_files_serve_no_wrong_value(tmp_path: Path, kind: str, count: int) -> None:
    found = damages(tmp_path / kind, kind, count, 3)
    check(found)
    assert found["damages"] == count
    assert found["results computed again"] > 0


def test_four_processes_compute_each_step_once(tmp_path: Path) -> None:
    found = crowd(tmp_path / "crowd", 1, random.Random(1), kill=False)
    check(found)
    assert found["steps computed"] == 80


def test_another_process_takes_over_from_a_killed_one(tmp_path: Path) -> None:
    found = crowd(tmp_path / "crowd", 1, random.Random(2), kill=True)
    check(found)
    assert found["takeovers"] == 1


@pytest.mark.thorough
def test_at_length() -> None:
    assert main(["--kills", "200", "--damages", "2000", "--truncations", "200"]) == 0
