"""Comparing reports question by question, and refusing what cannot be compared."""

import json
from pathlib import Path
from typing import Any

import pytest

from cachedeval import InputError
from cachedeval.evals.report import compare_reports, read_report


def report(scores: dict[str, float | None], **about: Any) -> dict[str, Any]:
    items = [
        {
            "id": name,
            "question": f"question {name}",
            "reference": None,
            "response": "…",
            "score": score,
            "criteria": {} if score is None else {"clarity": score / 10},
            "rationale": "",
            "error": None if score is not None else "timed_out: no reply",
        }
        for name, score in scores.items()
    ]
    return {"judge": "cerebras:m", "rubric": "default", "items": items, **about}


def test_pairs_are_made_by_question_whatever_their_order() -> None:
    found = compare_reports(
        report({"a": 10.0, "b": 20.0, "c": 30.0}), report({"c": 70.0, "a": 10.0, "b": 10.0})
    )
    assert (found.mean_a, found.mean_b) == (20.0, 30.0)
    assert found.paired.difference == 10.0
    assert (found.paired.better, found.paired.worse, found.paired.same) == (1, 1, 1)
    assert [(each.id, each.b - each.a) for each in found.changes] == [
        ("c", 40.0),
        ("b", -10.0),
        ("a", 0.0),
    ]


def test_what_is_in_one_alone_or_failed_is_left_out_and_counted() -> None:
    found = compare_reports(
        report({"a": 10.0, "b": None, "c": 30.0, "only": 100.0}),
        report({"a": 20.0, "b": 50.0, "c": None, "x": 0.0, "y": 0.0}),
    )
    assert found.paired.n == 1
    assert (found.only_a, found.only_b, found.failed) == (1, 2, 2)
    assert (found.mean_a, found.mean_b) == (10.0, 20.0)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"judge": "cerebras:other"}, "judge of the first report is cerebras:m, of the second"),
        ({"judge": "f1"}, "scores by different judges"),
        ({"rubric": "mine"}, "rubric of the first report is default, of the second mine"),
    ],
)
def test_another_judge_or_rubric_cannot_be_compared(about: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare_reports(report({"a": 1.0}), report({"a": 1.0}, **about))


def test_other_criteria_cannot_be_compared() -> None:
    other = report({"a": 1.0})
    other["items"][0]["criteria"] = {"truth": 1.0}
    with pytest.raises(InputError, match=r"question a .*: clarity and truth"):
        compare_reports(report({"a": 1.0}), other)


def test_questions_must_overlap() -> None:
    with pytest.raises(InputError, match="no question in common"):
        compare_reports(report({"a": 1.0}), report({"b": 1.0}))
    with pytest.raises(InputError, match="of the 1 questions in common, none has a score"):
        compare_reports(report({"a": 1.0}), report({"a": None}))


def test_a_report_of_another_form_is_named() -> None:
    with pytest.raises(InputError, match="the second is no report of this version"):
        compare_reports(report({"a": 1.0}), {"items": [{"id": 3}], "judge": "f1"})


def test_reports_are_read_as_run_writes_them(tmp_path: Path) -> None:
    saved, printed = tmp_path / "saved.json", tmp_path / "printed.json"
    saved.write_text(json.dumps(report({"a": 1.0})))
    printed.write_text(json.dumps({"report": report({"a": 1.0}), "run": {"loads": 1}}))
    assert read_report(saved) == read_report(printed) == report({"a": 1.0})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "holds no report"),
        (b"{}", "holds no report"),
        (b'{"report": 3}', "holds no report"),
        (b'{"reports": [{}, {}], "run": {}}', "holds 2 reports; write each to a file"),
    ],
)
def test_what_is_no_report_is_named_by_its_file(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_report(path)
    assert str(path) in str(caught.value)


def test_a_missing_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.json: cannot be read"):
        read_report(tmp_path / "no.json")
