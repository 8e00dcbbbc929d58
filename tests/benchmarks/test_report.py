import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks import pictures, report, tables
from benchmarks.measure import REPOSITORY, summary
from benchmarks.report import load_targets, shortfalls, value_at


def timed(*samples: float) -> dict[str, Any]:
    return summary(samples)


def pipeline(small: float, large: float, cold: float = 1.0) -> dict[str, Any]:
    rest = {"cold": cold, "cold_peak_mb": 30.0, "bytes_a_question": 900.0}
    return {
        "1000": {"seconds": timed(small), **rest},
        "10000": {"seconds": timed(large), **rest},
    }


@pytest.fixture
def results() -> dict[str, Any]:
    scenario = {
        "title": "warm, new process",
        "questions": 20,
        "seconds": timed(0.1, 0.11, 0.12, 0.13, 0.14),
        "original": 180.0,
        "lower_bound": 0.02,
        "original_with_answers": 22.0,
        "speedup": 1500.0,
        "of_bound": 6.0,
        "factors": {"loads": 1.5, "batching": 4.0, "concurrency": 1.7, "cache": 147.0},
        "peak_mb": 40.0,
        "loads": 0,
        "generated": 0,
        "judged": 0,
        "asked": 0,
    }
    size = {
        "cold": 1.0,
        "cold_peak_mb": 1148.0,
        "warm": timed(0.2),
        "changed": timed(0.3),
        "peak_mb": 50.0,
    }
    return {
        "mode": "default",
        "commit": "0123456789",
        "date": "2026-11-23",
        "command": "python -m benchmarks",
        "seconds": 600.0,
        "machine": {
            "processor": "A <fast> & new one",
            "cores": 2,
            "memory_gb": 8,
            "system": "Linux x86_64",
            "python": "3.11.7",
            "versions": {"mlx": "0.32.4"},
            "load": 3.5,
        },
        "profiles": {
            "small": {
                "about": "A model",
                "questions": 20,
                "max_tokens": 32,
                "latency": 1.0,
                "part": 4,
                "original": {"generating": timed(8.0, 8.1, 8.2, 9.0)},
                "script": {"cold": {"seconds": timed(11.0), "ours": timed(1.06)}},
                "scenarios": {
                    "warm": scenario,
                    "criterion": {**scenario, "title": "a criterion changed"},
                    "cold": {**scenario, "title": "cold & empty", "speedup": 9.0},
                },
            }
        },
        "scale": {
            "slope": 0.93,
            "sizes": {
                str(n): {**size, "generated": 1, "judged": 1, "bytes_a_question": 900.0}
                for n in (100, 1000)
            },
        },
        "peers": {
            "points": {"ours, disk": {"hit": timed(2e-5), "miss": timed(3e-4)}},
            "pipelines": {
                "lower bound": pipeline(0.1, 0.3),
                "ours, disk": pipeline(0.2, 0.6),
                "redun": {
                    "1000": pipeline(40.0, 40.0)["1000"],
                    "10000": {
                        "seconds": timed(400.0),
                        "scaled_from": 1000,
                        "cold": 900.0,
                        "bytes_a_question": 5000.0,
                    },
                },
                "diskcache.memoize": pipeline(0.1, 0.5, cold=0.5),
            },
            "writers": {
                "processes": 4,
                "questions": 1000,
                "caches": {
                    "ours, disk": {"seconds": 1.2, "computed": 1.0},
                    "redun": {"error": "2 of 4 processes failed"},
                },
            },
            "missing": {"marimo": "it cannot be installed"},
            "pins": ["redun==0.44.1"],
        },
    }


def test_the_page_has_every_figure(results: dict[str, Any]) -> None:
    text = report.page(results)
    for part in (
        "1,500\N{MULTIPLICATION SIGN}",
        "9\N{MULTIPLICATION SIGN}",
        "120 ms",
        "180 s",
        "n^0.93",
        "≈ 400 s",
        "it cannot be installed",
    ):
        assert part in text
    assert "redun==0.44.1" in text
    assert "2 of 4 processes failed" in text
    assert "mlx 0.32.4" in text
    assert "Measured on 2026-11-23 at commit 0123456789" in text
    assert "load average was 3.5" in text


def test_the_page_says_plainly_what_is_not_as_fast(results: dict[str, Any]) -> None:
    text = report.page(results)
    times = "\N{MULTIPLICATION SIGN}"
    assert (
        f"2 of 3 scenarios are at least 50 times as fast as the original. Cold: 9{times}." in text
    )
    assert "rests on 4 questions, \N{PLUS-MINUS SIGN}5%, and is scaled." in text
    assert f"saved its answers would take 180{times} our time, not 1,500{times}" in text
    assert "we take 1.06 times the peer script's time (n=1)" in text
    assert "1,000 questions take 1148 MB cold and 50 MB warm" in text
    assert f"Faster than ours at 1,000 questions cold: diskcache.memoize (0.5{times})" in text


def test_what_is_written(tmp_path: Path, results: dict[str, Any]) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(
        f"# A\n\n{report.BEGIN}\nstale figures\n{report.END}\n\nrest\n", encoding="utf-8"
    )
    report.write(results, tmp_path)
    text = readme.read_text("utf-8")
    assert text.startswith("# A\n")
    assert text.endswith("\n\nrest\n")
    assert "stale figures" not in text
    assert "| warm, new process | 180 s | 120 ms | 1,500\N{MULTIPLICATION SIGN} |" in text
    assert "2026-11-23" in text
    assert "`python -m benchmarks`" in text
    assert json.loads((tmp_path / "docs/benchmarks/default.json").read_text("utf-8")) == results
    before = text
    report.write(results, tmp_path)
    assert readme.read_text("utf-8") == before
    shutil.rmtree(tmp_path / "docs")


@pytest.mark.parametrize(
    "text", ["", report.BEGIN, report.END + report.BEGIN, 2 * report.BEGIN + report.END]
)
def test_a_readme_without_its_markers_is_not_written(text: str) -> None:
    with pytest.raises(ValueError, match="must have one"):
        report.replace_between(text, "new")


def test_the_projects_readme_has_its_markers() -> None:
    text = (REPOSITORY / "README.md").read_text("utf-8")
    assert "new" in report.replace_between(text, "new")


def test_pictures_are_xml(tmp_path: Path, results: dict[str, Any]) -> None:
    written = pictures.write(tmp_path, results)
    assert {path.name for path in written} == {"scenarios-small.svg", "scale.svg"}
    for path in written:
        root = ET.fromstring(path.read_text("utf-8"))  # noqa: S314  our own
        assert root.tag.endswith("svg")
    assert "cold &amp; empty" in pictures.scenarios_picture(results["profiles"]["small"])


def test_longer_bars_are_faster(results: dict[str, Any]) -> None:
    picture = pictures.scenarios_picture(results["profiles"]["small"])
    root = ET.fromstring(picture)  # noqa: S314  our own
    bars = [r for r in root.iter("{http://www.w3.org/2000/svg}rect") if r.get("fill") == "#0969da"]
    warm, _, cold = (float(bar.get("width", "0")) for bar in bars)
    assert warm > 3 * cold > 0


def test_the_terminals_tables(results: dict[str, Any]) -> None:
    shown = tables.show(results)
    assert "small: A model, 20 questions" in shown
    assert "scaled from 1,000" in shown


@pytest.mark.parametrize(
    ("value", "text"),
    [(2e-5, "20 µs"), (0.0123, "12.3 ms"), (1.5, "1.5 s"), (12345.0, "12,345 s")],
)
def test_seconds(value: float, text: str) -> None:
    assert tables.seconds(value) == text


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
    assert set(targets) == {"all", "quick", "default", "engine"}
    for target in (one for several in targets.values() for one in several):
        assert set(target) <= {"name", "figure", "per", "at_least", "at_most", "equals", "needed"}
        assert {"at_least", "at_most", "equals"} & set(target)


@pytest.mark.slow
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


def test_figures_are_rounded_to_two_digits() -> None:
    times = "\N{MULTIPLICATION SIGN}"
    assert [tables.factor(x) for x in (31741.0, 956.0, 8.71, 0.912)] == [
        f"32,000{times}",
        f"960{times}",
        f"8.7{times}",
        f"0.91{times}",
    ]
