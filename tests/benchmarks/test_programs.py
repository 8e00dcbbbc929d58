"""The benchmarks that have options of their own run, and measure what they say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.judge import JudgeProcess
from benchmarks.measure import REPOSITORY, command
from benchmarks.workplace import QUICK, Workplace

pytestmark = pytest.mark.slow


def test_the_engine_is_measured_beside_another_checkout(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "benchmarks", "engine", "--quick", "--rounds", "1"]
    ran = command([*words, "--only", "miss alone", "--against", REPOSITORY, "--out", tmp_path])
    steps = json.loads((tmp_path / "engine.json").read_text("utf-8"))["steps"]
    assert set(steps["miss alone, memory"]) == {"cachedeval", "before"}
    assert set(steps["miss alone, disk"]) >= {"cachedeval", "before", "diskcache.memoize"}
    assert all(one["seconds"]["n"] == 1 for row in steps.values() for one in row.values())
    assert "diskcache get, set" in ran.out


def test_a_checkout_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "engine", "--against", "no-such-commit"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no-such-commit: neither a checkout's folder nor a commit" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_peer_script_computes_only_what_is_new(tmp_path: Path) -> None:
    model = tmp_path / "model"
    command([sys.executable, "-m", "benchmarks.models", "tiny", model])
    work = Workplace(tmp_path / "work", QUICK, model)
    count = QUICK.questions

    def run(*further: str) -> tuple[int, int, float]:
        found = json.loads(command(work.script(tmp_path / "cache", *further), env=judge.env).out)
        return found["generated"], found["judged"], found["score"]

    with JudgeProcess(0.0) as judge:
        generated, judged, score = run()
        assert (generated, judged) == (count, count)
        assert 0 <= score <= 100
        assert run() == (0, 0, score)
        assert run("accuracy, brevity")[:2] == (0, count)
        assert judge.calls() == judge.answered() == 2 * count
        with work.retrained("adapter-1"):
            assert run()[0] == count


def test_judging_is_measured_beside_the_peer_script() -> None:
    words = [sys.executable, "-m", "benchmarks", "judge", "--questions", "10", "--rounds", "1"]
    lines = command(words).out.splitlines()
    assert lines[0] == "10 verdicts of 1 s, 100 at once: 1.00 s at least"
    assert [line.split("  ")[0] for line in lines[1:]] == ["ours", "peer script"]
