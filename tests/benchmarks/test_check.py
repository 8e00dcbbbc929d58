import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.check import load_targets, shortfalls, value_at
from benchmarks.measure import REPOSITORY

RESULTS: dict[str, Any] = {
    "mode": "quick",
    "startup": {"help": {"seconds": {"median": 0.05}}, "pass": {"seconds": {"median": 0.02}}},
    "reproducibility": {"equal": True},
}
HELP = ["startup", "help", "seconds", "median"]
PASS = ["startup", "pass", "seconds", "median"]


def short(**target: Any) -> list[str]:
    return shortfalls(RESULTS, {"quick": [{"name": "help", **target}]})


def test_a_target_that_is_met() -> None:
    assert short(figure=HELP, per=PASS, at_most=2.5, at_least=2.5) == []


def test_a_target_that_is_missed_is_named_with_figure_and_bound() -> None:
    assert short(figure=HELP, per=PASS, at_most=2) == ["help: 2.5, wanted at most 2"]
    assert short(figure=HELP, at_least=1) == ["help: 0.05, wanted at least 1"]
    equal = short(figure=["reproducibility", "equal"], equals=False)
    assert equal == ["help: True, wanted False"]


def test_another_modes_targets_do_not_count() -> None:
    target = {"name": "x", "figure": HELP, "at_least": 1000}
    assert shortfalls(RESULTS, {"default": [target]}) == []
    assert len(shortfalls(RESULTS, {"all": [target]})) == 1


def test_what_was_not_measured_is_passed_over_unless_it_is_needed() -> None:
    assert short(figure=["scale", "slope"], at_most=1) == []
    assert short(figure=["scale"], at_most=1, needed=True) == ["help: not measured"]
    assert value_at(RESULTS, ["reproducibility", "equal", "deeper"]) is None


def test_the_projects_targets_can_be_read() -> None:
    targets = load_targets()
    assert set(targets) == {"all", "quick", "default"}
    for target in (one for several in targets.values() for one in several):
        assert set(target) <= {"name", "figure", "per", "at_least", "at_most", "equals", "needed"}
        assert {"at_least", "at_most", "equals"} & set(target)


@pytest.mark.parametrize(("at_most", "status"), [(1000.0, 0), (0.5, 1)])
def test_a_target_out_of_reach_fails_the_check(tmp_path: Path, at_most: float, status: int) -> None:
    targets = tmp_path / "targets.toml"
    targets.write_text(
        '[[quick]]\nname = "bare start"\nfigure = ["startup", "import argparse", "ratio", "median"]\n'
        f"at_most = {at_most}\nneeded = true\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "benchmarks", "--quick", "--check", "--only", "startup"]
    done = subprocess.run(
        [*command, "--targets", str(targets), "--out", str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert ("bare start: " in done.stdout) == bool(status)
    assert (tmp_path / "quick.json").is_file()
    assert "cachedeval --help" in done.stdout
