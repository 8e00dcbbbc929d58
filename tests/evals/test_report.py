import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachedeval.evals.report import Item, Report, build_report

ABOUT = {"model": "m", "adapter": None, "judge": "f1", "rubric": None, "seed": 42}


def item(number: int, score: float | None, **more: Any) -> Item:
    given: dict[str, Any] = {
        "id": f"{number:016x}",
        "question": "Why?",
        "reference": None,
        "response": "So.",
        "score": score,
        "criteria": {},
        "rationale": "",
        "error": None if score is not None else "bad_verdict: none",
        "kind": None if score is not None else "bad_verdict",
    }
    return Item(**{**given, **more})


def built(items: list[Item], *, zero: bool = False) -> dict[str, Any]:
    return build_report(items, failures_count_zero=zero, **ABOUT)


def test_failures_are_left_out_or_count_zero() -> None:
    items = [item(1, 80), item(2, None), item(3, 40)]
    excluded, zero = built(items), built(items, zero=True)
    assert (excluded["score"], zero["score"]) == (60, 40)
    assert excluded["stderr"] == 20
    assert zero["stderr"] == pytest.approx(23.094011)
    for report in (excluded, zero):
        assert (report["questions"], report["scored"], report["failed"]) == (3, 2, 1)
        assert report["items"][1]["score"] is None


def test_without_a_score_there_is_no_mean() -> None:
    report = built([item(1, None), item(2, None)])
    assert (report["score"], report["stderr"], report["scored"]) == (None, None, 0)
    assert built([item(1, None)], zero=True)["score"] == 0
    assert built([])["score"] is None
    assert built([], zero=True)["score"] is None
    assert repr(Report(report, {})) == "<Report no score, 0 scored, 2 failed>"


def test_one_score_has_no_standard_error() -> None:
    assert built([item(1, 70)])["stderr"] is None


def test_failures_are_counted_by_kind() -> None:
    kinds = ["timed_out", "bad_verdict", "timed_out"]
    items = [item(n, None, kind=kind) for n, kind in enumerate(kinds)] + [item(9, 50)]
    failures = built(items)["failures"]
    assert failures == {"bad_verdict": 1, "timed_out": 2}
    assert list(failures) == ["bad_verdict", "timed_out"]
    assert built(items[::-1])["failures"] == failures


def test_criteria_are_averaged_over_those_that_have_them() -> None:
    items = [
        item(1, 50, criteria={"tone": 5.0, "truth": 6.0}),
        item(2, None),
        item(3, 50, criteria={"truth": 9.0, "score": 4.0}),
    ]
    means = built(items)["criteria"]
    assert means == {"tone": 5, "truth": 7.5, "score": 4}
    assert list(means) == ["tone", "truth", "score"]


def test_the_fields_that_other_tools_rely_on() -> None:
    report = json.loads(Report(built([item(1, 50)]), {}).to_json())
    promised = ["score", "questions", "scored", "failed", "model", "adapter", "judge", "seed"]
    assert set(promised) <= set(report)
    assert list(report["items"][0]) == [
        *("id", "question", "reference", "response", "score", "criteria", "rationale", "spread"),
        "error",
    ]


ITEMS = st.lists(
    st.builds(
        item,
        st.integers(0, 99),
        st.one_of(st.none(), st.floats(0, 100)),
        question=st.text(st.characters(exclude_categories=())),
        criteria=st.dictionaries(st.sampled_from("abc"), st.floats(0, 10)),
    ),
    max_size=8,
)


@given(ITEMS, st.booleans())
def test_it_is_strict_json_that_says_the_same(items: list[Item], zero: bool) -> None:  # noqa: FBT001  hypothesis gives it
    report = Report(built(items, zero=zero), {})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = report.to_json()
    assert text.isascii()
    assert json.loads(text, parse_constant=refuse) == report.to_dict()
    assert report.scored + report.failed == report["questions"] == len(items)
    assert sum(report["failures"].values()) == report.failed
    assert report.score is None or 0 <= report.score <= 100


def test_nan_is_no_report() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Report(built([item(1, float("nan"))]), {}).to_json()


def test_the_bytes_do_not_depend_on_the_process() -> None:
    program = (
        "from cachedeval.evals.report import Item, Report, build_report\n"
        "names = {'b', 'a', 'c', 'd'}\n"
        "items = [Item(id=str(n), question='é', reference=None, response='', score=None,"
        " criteria={name: n for name in sorted(names)}, rationale='', error='x', kind=kind)"
        " for n, kind in enumerate(sorted(names))]\n"
        "print(Report(build_report(items, failures_count_zero=True), {}).to_json())\n"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(printed) == 1


def test_a_report_is_a_mapping_and_what_varies_stands_beside_it() -> None:
    report = Report(built([item(1, 80), item(2, 60)]), {"seconds": 1.5})
    assert report.score == report["score"] == 70
    assert dict(report) == report.to_dict()
    assert len(report) == len(list(report))
    assert report.run == {"seconds": 1.5}
    assert "seconds" not in report
    assert repr(report) == "<Report 70.0, 2 scored, 0 failed>"
    with pytest.raises(KeyError):
        report["none"]
