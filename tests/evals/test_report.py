import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachedeval import InputError, Report, compare
from cachedeval.evals.report import ItemResult, Judgement, build_report, read_report

ABOUT: dict[str, Any] = {"model": "m", "adapter": None, "judge": "f1", "rubric": None, "seed": 42}


def item(number: int, score: float | None, **more: Any) -> ItemResult:
    given: dict[str, Any] = {
        "id": f"{number:016x}",
        "question": "Why?",
        "reference": None,
        "response": "So.",
        "score": score,
        "criteria": {},
        "rationale": "",
        "error": None if score is not None else "bad_verdict: none",
    }
    return ItemResult(**{**given, **more})


def built(items: list[ItemResult], *, zero: bool = False) -> Report:
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
    assert repr(report) == "<Report base: no score, 0 scored, 2 failed>"


def test_one_score_has_no_standard_error() -> None:
    assert built([item(1, 70)])["stderr"] is None


def test_scores_that_are_all_the_same_are_not_certain() -> None:
    zero = built([item(n, 0.0) for n in range(3)])
    assert (zero.score, zero.stderr) == (0, 0)
    assert zero.interval == [0, pytest.approx(71, abs=0.5)]
    assert built([item(1, 70), item(2, None)]).interval is None
    counted = built([item(1, 70), item(2, None)], zero=True)
    assert counted.interval is not None


def test_failures_are_counted_by_kind() -> None:
    kinds = ["timed_out", "bad_verdict", "timed_out"]
    items = [item(n, None, error=f"{kind}: why: so") for n, kind in enumerate(kinds)] + [
        item(9, 50)
    ]
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
    report = json.loads(built([item(1, 50)]).to_json())
    assert list(report) == [
        *("score", "stderr", "interval", "questions", "scored", "failed", "failures", "truncated"),
        *("model", "adapter", "judge", "judges", "by_judge", "judge_parameters", "judge_refused"),
        *("rubric", "seed", "criteria", "notes", "items"),
    ]
    assert list(report["items"][0]) == [
        *("id", "question", "reference", "response", "reasoning", "truncated", "score", "scores"),
        *("criteria", "rationale", "spread", "error", "others"),
    ]
    assert list(report["by_judge"]) == report["judges"]
    assert list(report["by_judge"]["f1"]) == [
        *("score", "stderr", "interval", "scored", "failed", "failures", "rubric", "criteria"),
    ]
    assert report["judges"] == ["f1"]


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
def test_it_is_strict_json_that_says_the_same(items: list[ItemResult], zero: bool) -> None:  # noqa: FBT001  hypothesis gives it
    report = built(items, zero=zero)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = report.to_json()
    assert text.isascii()
    assert json.loads(text, parse_constant=refuse) == report.to_dict()
    assert msgspec.convert(json.loads(text), Report) == report
    assert report.scored + report.failed == report["questions"] == len(items)
    assert sum(report["failures"].values()) == report.failed
    assert report.score is None or 0 <= report.score <= 100


def test_nan_is_no_report() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        built([item(1, float("nan"))]).to_json()


def test_the_bytes_do_not_depend_on_the_process() -> None:
    program = (
        "from cachedeval.evals.report import ItemResult, build_report\n"
        "names = {'b', 'a', 'c', 'd'}\n"
        "items = [ItemResult(id=str(n), question='é', reference=None, response='', score=None,"
        " criteria={name: n for name in sorted(names)}, rationale='', error=kind + ': x')"
        " for n, kind in enumerate(sorted(names))]\n"
        "print(build_report(items, failures_count_zero=True, judge='f1').to_json())\n"
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


def test_a_report_has_attributes_and_the_access_of_a_mapping() -> None:
    items = [item(1, 80, truncated=True, scores={"f1": 80}), item(2, 60)]
    report = build_report(items, failures_count_zero=False, run={"seconds": 1.5}, **ABOUT)
    assert report.score == report["score"] == 70
    assert (report.truncated, report["truncated"]) == (1, 1)
    assert report.items == items
    assert report["items"][0]["scores"] == {"f1": 80}  # plain data
    assert dict(report) == report.to_dict() == {**report}
    assert len(report) == len(list(report)) == len(report.keys())
    assert report.run == {"seconds": 1.5}
    assert "seconds" not in report
    assert "run" not in report
    assert (report.get("seed"), report.get("none", 7)) == (42, 7)
    for unknown in ("none", "run", "keys"):
        with pytest.raises(KeyError):
            report[unknown]


def test_reports_are_equal_by_their_results() -> None:
    one, other = built([item(1, 80)]), built([item(1, 80)])
    rerun = build_report([item(1, 80)], failures_count_zero=False, run={"loads": 1}, **ABOUT)
    assert one == other == rerun == one.to_dict()
    assert one != built([item(1, 81)])
    assert one != "a report"


def test_reports_are_readable_in_a_list() -> None:
    tuned = build_report(
        [item(1, 80), item(2, 60)], failures_count_zero=False, **{**ABOUT, "adapter": "tuned"}
    )
    assert repr([built([item(1, 70)]), tuned]) == (
        "[<Report base: 70.0, 1 scored, 0 failed>, "
        "<Report tuned: 70.0 (10.8 to 95.6), 2 scored, 0 failed>]"
    )


def test_rows_for_a_table_have_one_row_a_question_and_judge() -> None:
    report = built([item(1, 80, scores={"f1": 80.0, "exact": None}), item(2, None)])
    rows = report.to_dicts()
    found = [(row["id"][-1], row["judge"], row["score"]) for row in rows]
    assert found == [("1", "f1", 80.0), ("1", "exact", None), ("2", "f1", None)]
    assert all(row["model"] == "m" and row["adapter"] is None for row in rows)
    assert {type(value) for row in rows for value in row.values()} <= {
        *(str, bool, float, int, dict, type(None)),
    }


def two_judges(*scores: tuple[float | None, float | None]) -> Report:
    items = [
        item(
            number,
            first,
            scores={"f1": first, "cerebras:m": second},
            others={
                "cerebras:m": Judgement(error="timed_out: no reply")
                if second is None
                else Judgement(criteria={"tone": second / 10}, rationale=f"It is {second}.")
            },
        )
        for number, (first, second) in enumerate(scores)
    ]
    rubrics = {"f1": None, "cerebras:m": "default"}
    return build_report(items, failures_count_zero=False, rubrics=rubrics, **ABOUT)


def test_each_judge_has_its_own_score_interval_and_failures() -> None:
    report = two_judges((100.0, 40.0), (0.0, None), (50.0, 60.0), (None, 20.0))
    assert (report.judge, report.judges) == ("f1", ["f1", "cerebras:m"])
    assert (report.score, report.scored, report.failed) == (50, 3, 1)
    first, second = report.by_judge["f1"], report.by_judge["cerebras:m"]
    assert (first.score, first.interval, first.failures) == (
        report.score,
        report.interval,
        report.failures,
    )
    assert (second.score, second.scored, second.failed) == (40, 3, 1)
    assert second.failures == {"timed_out": 1}
    assert second.criteria == {"tone": 4}
    assert second.rubric == "default"
    assert second.interval is not None
    assert second.interval != first.interval
    rows = [row for row in report.to_dicts() if row["judge"] == "cerebras:m"]
    assert [row["score"] for row in rows] == [40, None, 60, 20]
    assert [row["error"] for row in rows] == [None, "timed_out: no reply", None, None]
    assert rows[0]["rationale"] == "It is 40.0."


def test_reports_are_compared_by_any_of_their_judges(tmp_path: Path) -> None:
    one, other = two_judges((100.0, 40.0), (0.0, 30.0)), two_judges((90.0, 70.0), (10.0, None))
    assert compare(one, other).paired.difference == 0
    by_model = compare(one, other, "cerebras:m")
    assert (by_model.paired.difference, by_model.paired.n, by_model.failed) == (30, 1, 1)
    path = tmp_path / "report.json"
    path.write_text(one.to_json())
    assert read_report(path) == one
    assert compare(read_report(path), other, "cerebras:m") == by_model
    with pytest.raises(InputError, match="judge exact is not among the judges of a report: f1"):
        compare(one, other, "exact")


def plain(scores: dict[str, float | None], **about: Any) -> dict[str, Any]:
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
    found = compare(
        plain({"a": 10.0, "b": 20.0, "c": 30.0}), plain({"c": 70.0, "a": 10.0, "b": 10.0})
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
    found = compare(
        plain({"a": 10.0, "b": None, "c": 30.0, "only": 100.0}),
        plain({"a": 20.0, "b": 50.0, "c": None, "x": 0.0, "y": 0.0}),
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
        compare(plain({"a": 1.0}), plain({"a": 1.0}, **about))


def test_other_criteria_cannot_be_compared() -> None:
    other = plain({"a": 1.0})
    other["items"][0]["criteria"] = {"truth": 1.0}
    with pytest.raises(InputError, match=r"question a .*: clarity and truth"):
        compare(plain({"a": 1.0}), other)


def test_questions_must_overlap() -> None:
    with pytest.raises(InputError, match="no question in common"):
        compare(plain({"a": 1.0}), plain({"b": 1.0}))
    with pytest.raises(InputError, match="of the 1 questions in common, none has a score"):
        compare(plain({"a": 1.0}), plain({"a": None}))


def test_a_report_of_another_form_is_named() -> None:
    with pytest.raises(InputError, match="the second report does not have the form of a report"):
        compare(plain({"a": 1.0}), {"items": [{"id": 3}], "judge": "f1"})


def test_reports_are_read_as_run_writes_them(tmp_path: Path) -> None:
    saved, printed = tmp_path / "saved.json", tmp_path / "printed.json"
    saved.write_text(json.dumps(plain({"a": 1.0})))
    printed.write_text(json.dumps({"report": plain({"a": 1.0}), "run": {"loads": 1}}))
    assert read_report(saved) == read_report(printed)
    assert read_report(saved).items[0].score == 1.0


def test_a_report_that_is_read_is_the_one_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    report = built([item(1, 80.5, criteria={"tone": 5.0}, question="half \ud800 a pair")])
    path.write_text(report.to_json())
    assert read_report(path) == report
    assert read_report(path).to_json() == report.to_json()


def test_a_report_of_an_earlier_version_is_compared_with_one_of_this(tmp_path: Path) -> None:
    """It lacks `truncated`, `judges`, `reasoning` and the scores by judge."""
    path = tmp_path / "report.json"
    old = plain({"a": 10.0, "b": 20.0}, score=15.0, failures={}, criteria={"clarity": 1.5})
    path.write_text(json.dumps(old))
    new = msgspec.convert(plain({"a": 20.0, "b": 40.0}), Report)
    assert compare(read_report(path), new).paired.difference == 15.0


def test_a_verdict_needs_an_interval_beside_zero_and_a_small_p_value() -> None:
    names = [f"{n}" for n in range(20)]
    low = plain(dict.fromkeys(names, 10.0))
    high = plain({name: 50.0 + n for n, name in enumerate(names)})
    few = plain({**dict.fromkeys(names, 10.0), "0": 11.0})
    assert compare(low, high).verdict == "better"
    assert compare(high, low).verdict == "worse"
    assert compare(low, low).verdict == "the same"
    assert compare(low, few).verdict == "not clearly different"
    assert compare(low, low).paired.high > 10, "twenty questions prove no equality"


def test_five_pairs_are_too_few_whatever_they_say() -> None:
    def both(count: int, score: float) -> dict[str, Any]:
        return plain({f"{n}": score for n in range(count)})

    assert compare(both(6, 0.0), both(6, 100.0)).verdict == "better"
    for count in range(1, 6):
        assert compare(both(count, 0.0), both(count, 100.0)).verdict == "too few to tell"
        assert compare(both(count, 0.0), both(count, 0.0)).verdict == "too few to tell"


def test_a_score_out_of_range_is_named() -> None:
    with pytest.raises(InputError, match=r"question a has a score of 101\.0, not 0"):
        compare(plain({"a": 101.0}), plain({"a": 1.0}))


ONE = b'{"judge": "f1", "items": []}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b'{"items": NaN}', "is not JSON: NaN is no JSON"),
        (b'{"judge": "f1", "items": 3}', "does not have the form of a report: .*items"),
        (b"[]", "holds no report"),
        (b"{}", "holds no report"),
        (b'{"report": 3}', "holds no report"),
        (b'{"reports": [%b, %b]}' % (ONE, ONE), "holds 2 reports; write each to a separate file"),
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
