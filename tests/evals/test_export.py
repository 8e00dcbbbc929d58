import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from cachedeval.engine.errors import InputError
from cachedeval.evals.export import export
from cachedeval.evals.report import ItemResult, Report, build_report

TEXT = '=1+1, "quoted"\nline & <b>\x1b[31m'


def reports() -> list[Report]:
    items = [
        ItemResult(
            id="1", question=TEXT, response=TEXT, score=50.5, scores={"f1": 50.5, "exact": 0.0},
            criteria={"clarity": 5.0}, truncated=True,
        ),
        ItemResult(
            id="2", question="-5?", response=None, score=None, scores={"f1": None, "exact": None},
            criteria={}, error="timed_out: no reply",
        ),
    ]  # fmt: skip
    return [
        build_report(items, failures_count_zero=False, judge="f1", adapter=adapter, model="tiny")
        for adapter in (None, "tuned")
    ]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_json_lines_have_a_row_for_each_subject_question_and_judge(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    export(reports(), path)
    found = rows(path)
    assert found == [row for report in reports() for row in report.to_dicts()]
    assert [(row["adapter"], row["id"], row["judge"], row["score"]) for row in found][:4] == [
        (None, "1", "f1", 50.5),
        (None, "1", "exact", 0.0),
        (None, "2", "f1", None),
        (None, "2", "exact", None),
    ]


def test_csv_has_the_same_rows_and_no_formula(tmp_path: Path) -> None:
    path, lines = tmp_path / "out.csv", tmp_path / "out.jsonl"
    export(reports(), path)
    export(reports(), lines)
    with path.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == 8
    for row, line in zip(found, rows(lines), strict=True):
        assert row["score"] == ("" if line["score"] is None else str(line["score"]))
        assert row["id"] == line["id"]
        assert json.loads(row["criteria"]) == line["criteria"]
    assert found[0]["question"] == '\'=1+1, "quoted"\nline & <b>\ufffd[31m'
    assert found[2]["question"] == "'-5?"


def test_csv_and_parquet_are_read_by_pandas_with_equal_contents(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    for name in ("out.csv", "out.parquet"):
        export(reports(), tmp_path / name)
    comma = pandas.read_csv(tmp_path / "out.csv")
    columns = pandas.read_parquet(tmp_path / "out.parquet")
    assert list(comma.columns) == list(columns.columns)
    for name in ("score", "judge", "adapter", "truncated", "error"):
        assert comma[name].equals(columns[name]) or (
            comma[name].fillna("").tolist() == columns[name].fillna("").tolist()
        )


def test_a_report_becomes_a_data_frame() -> None:
    pytest.importorskip("pandas")
    frame = reports()[1].to_pandas()
    assert list(frame["judge"]) == ["f1", "exact", "f1", "exact"]
    assert list(frame["score"].fillna(-1)) == [50.5, 0.0, -1.0, -1.0]


def test_junit_is_read_by_a_parser(tmp_path: Path) -> None:
    path = tmp_path / "out.xml"
    export(reports(), path)
    root = ET.parse(path).getroot()  # noqa: S314  our own
    assert (root.get("tests"), root.get("errors")) == ("8", "4")
    suites = root.findall("testsuite")
    assert [suite.get("name") for suite in suites] == [
        "base, f1", "base, exact", "tuned, f1", "tuned, exact",
    ]  # fmt: skip
    first, second = suites[0].findall("testcase")
    assert first.get("name") == '=1+1, "quoted"\nline & <b>\ufffd[31m'
    score = first.find("properties/property[@name='score']")
    assert score is not None
    assert score.get("value") == "50.5"
    error = second.find("error")
    assert error is not None
    assert (error.get("type"), error.get("message")) == ("timed_out", "timed_out: no reply")


@pytest.mark.parametrize("name", ["out", "out.pdf", ".csv"])
def test_an_unknown_extension_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"none of \.csv, \.jsonl, \.parquet, \.xml"):
        export(reports(), tmp_path / name)


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        export(reports(), tmp_path / "no" / "out.csv")


@pytest.mark.parametrize("extension", ["csv", "jsonl", "xml", "parquet"])
def test_no_rows_are_a_valid_file(tmp_path: Path, extension: str) -> None:
    if extension == "parquet":
        pytest.importorskip("pyarrow")
    empty = build_report([], failures_count_zero=False, judge="f1")
    export([empty], tmp_path / f"out.{extension}")
    assert (tmp_path / f"out.{extension}").exists()
