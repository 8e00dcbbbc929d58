import json
import os
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


def test_answers_are_shown_whole_alone_or_worst_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [
        ItemResult(
            id="aa", question="one?", response="line\n\x1b[2Jline", score=90.0,
            scores={"f1": 90.0, "exact": 0.0}, criteria={"tone": 9.0}, rationale="fine",
            reference="yes", truncated=True, reasoning="hm",
        ),
        ItemResult(id="bb", question="two?", score=None, criteria={}, error="timed_out: no reply"),
    ]  # fmt: skip
    path = tmp_path / "report.json"
    report = build_report(items, failures_count_zero=False, judge="f1")
    path.write_text(report.to_json(), encoding="utf-8")
    assert execute(["show", str(path)]) == 0
    out = capsys.readouterr().out
    assert "base: 90.0, scored by f1" in out
    assert "── 1 of 2 · 90.0 · tone 9 · f1 90.0 · exact 0.0" in out
    assert "answer, truncated:\n  line\n  \ufffd[2Jline\n" in out
    assert "── 2 of 2 · failed: timed_out: no reply" in out
    assert execute(["show", str(path), "--worst"]) == 0
    out = capsys.readouterr().out
    assert out.index("two?") < out.index("one?")
    for item in ("2", "bb"):
        assert execute(["show", str(path), "--item", item]) == 0
        out = capsys.readouterr().out
        assert "two?" in out
        assert "one?" not in out
    assert execute(["show", str(path), "--item", "3"]) == 2
    assert "give a number from 1 to 2 or an id" in capsys.readouterr().err


def test_a_history_shows_scores_and_what_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = saved(tmp_path / "old.json", "tuned", 10.0, 20.0)
    (tmp_path / "later").mkdir()
    new = saved(tmp_path / "later" / "new.json", "tuned", 30.0, 40.0, 50.0)
    saved(tmp_path / "base.json", None, 5.0)
    (tmp_path / "notes.json").write_text("[1, 2]", encoding="utf-8")
    for at, path in enumerate((old, new, tmp_path / "base.json")):
        os.utime(path, (at * 60, at * 60))
    page = tmp_path / "page.html"
    assert execute(["history", str(tmp_path), "--html", str(page)]) == 0
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert rows[1].startswith("1970-01-01 00:00:00 tuned 15.0 ")
    assert rows[2].startswith("1970-01-01 00:01:00 tuned 40.0 ")
    assert rows[2].endswith("3 of 3 2 → 3 questions")
    assert rows[3].startswith("1970-01-01 00:02:00 base 5.0 ")
    assert "tuned, 1970-01-01 00:01:00" in page.read_text("utf-8")
    assert execute(["history", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["score"] for entry in found] == [15.0, 40.0, 5.0]
    (tmp_path / "empty").mkdir()
    for folder, message in (("empty", "holds no report"), ("none", "is not a folder")):
        assert execute(["history", str(tmp_path / folder)]) == 2
        assert message in capsys.readouterr().err
