import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks import docs, pictures, tables
from benchmarks.measure import REPOSITORY, summary


def timed(*samples: float) -> dict[str, Any]:
    return summary(samples)


@pytest.fixture
def results() -> dict[str, Any]:
    scenario = {
        "title": "warm, new process",
        "questions": 20,
        "seconds": timed(0.1, 0.11, 0.12, 0.13, 0.14),
        "original": 180.0,
        "ideal": 0.02,
        "speedup": 1500.0,
        "of_ideal": 6.0,
        "split": {"loads": 1.5, "batching": 4.0, "concurrency": 1.7, "cache": 147.0},
        "peak_mb": 40.0,
        "loads": 0,
        "generated": 0,
        "judged": 0,
        "asked": 0,
    }
    size = {"cold": 1.0, "warm": timed(0.2), "changed": timed(0.3), "peak_mb": 50.0}
    return {
        "mode": "default",
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
                "scenarios": {
                    "warm": scenario,
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
        "rivals": {
            "points": {"ours, disk": {"hit": timed(2e-5), "store": timed(3e-4)}},
            "pipelines": {
                "floor": {"1000": {"seconds": timed(0.1)}, "10000": {"seconds": timed(0.3)}},
                "ours, disk": {"1000": {"seconds": timed(0.2)}, "10000": {"seconds": timed(0.6)}},
                "redun": {
                    "1000": {"seconds": timed(40.0)},
                    "10000": {"seconds": timed(400.0), "scaled_from": 1000},
                },
            },
            "missing": {"marimo": "it cannot be installed"},
            "pins": ["redun==0.44.1"],
        },
    }


def test_the_page_has_every_figure(results: dict[str, Any]) -> None:
    text = docs.page(results)
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
    assert "mlx 0.32.4" in text
    assert "Measured on 2026-11-23" in text
    assert "load average was 3.5" in text


def test_what_is_written(tmp_path: Path, results: dict[str, Any]) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# A\n\n{docs.BEGIN}\nstale figures\n{docs.END}\n\nrest\n", encoding="utf-8")
    docs.write(results, tmp_path)
    text = readme.read_text("utf-8")
    assert text.startswith("# A\n")
    assert text.endswith("\n\nrest\n")
    assert "stale figures" not in text
    assert "| warm, new process | 180 s | 120 ms | 1,500\N{MULTIPLICATION SIGN} |" in text
    assert "2026-11-23" in text
    assert "`python -m benchmarks`" in text
    assert json.loads((tmp_path / "docs/benchmarks/default.json").read_text("utf-8")) == results
    before = text
    docs.write(results, tmp_path)
    assert readme.read_text("utf-8") == before
    shutil.rmtree(tmp_path / "docs")


@pytest.mark.parametrize("text", ["", docs.BEGIN, docs.END + docs.BEGIN, 2 * docs.BEGIN + docs.END])
def test_a_readme_without_its_markers_is_not_written(text: str) -> None:
    with pytest.raises(ValueError, match="must have one"):
        docs.replace_between(text, "new")


def test_the_projects_readme_has_its_markers() -> None:
    text = (REPOSITORY / "README.md").read_text("utf-8")
    assert "new" in docs.replace_between(text, "new")


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
    warm, cold = (float(bar.get("width", "0")) for bar in bars)
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
