import json
from pathlib import Path

import pytest

from cachedeval.cli.main import execute
from cachedeval.evals.report import ItemResult, build_report


def saved(path: Path, adapter: str | None, *scores: float) -> Path:
    items = [
        ItemResult(id=str(n), question=f"{n}?", response="so", score=score, criteria={})
        for n, score in enumerate(scores)
    ]
    report = build_report(items, failures_count_zero=False, judge="f1", adapter=adapter)
    path.write_text(report.to_json(), encoding="utf-8")
    return path


def test_saved_reports_become_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = saved(tmp_path / "one.json", None, 1.0, 2.0)
    two = json.loads(saved(tmp_path / "two.json", "tuned", 3.0, 4.0).read_text("utf-8"))
    both = tmp_path / "both.json"
    both.write_text(json.dumps({"reports": [two, two], "run": {}}), encoding="utf-8")
    page = tmp_path / "page.html"
    assert execute(["report", str(one), str(both), "-o", str(page)]) == 0
    assert capsys.readouterr().out == f"3 reports → {page}\n"
    text = page.read_text("utf-8")
    for name in ("base", "tuned", "tuned (2)"):
        assert name in text
    assert execute(["compare", str(one), str(tmp_path / "two.json"), "--html", str(page)]) == 0
    assert "Compared with" in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds no report"),
        ('{"reports": []}', "holds no report"),
        ('{"reports": [3]}', "holds no report"),
        ('{"items": [{}]}', "form of a report"),
        ("", "is not JSON"),
        (None, "cannot be read"),
    ],
)
def test_a_file_without_a_report_is_an_error_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str
) -> None:
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert execute(["report", str(path), "-o", str(tmp_path / "page.html")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(path) in error
    assert error.count("\n") == 1


def test_a_page_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = str(saved(tmp_path / "one.json", None, 1.0))
    assert execute(["compare", one, one, "--html", str(tmp_path / "no" / "page.html")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert execute(["compare", one, one, "--html", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert execute(["report", one, "-o", str(tmp_path / "no" / "page.html")]) == 2
    assert "there is no folder" in capsys.readouterr().err
