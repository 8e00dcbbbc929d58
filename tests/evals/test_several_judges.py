"""Several judges in one run, and scorers of one's own, with a real model and a judge over HTTP."""

from pathlib import Path
from typing import Any

import pytest
from support.judge_server import JudgeServer
from support.workplace import Workplace

from cachedeval import AdapterEvaluator, InputError, Report, compare


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("work"))


def evaluate(place: Workplace, folder: Path, judge: Any, **options: Any) -> Report:
    data = place.questions(folder, 7)
    cache = f"disk:{folder / 'cache'}"
    with AdapterEvaluator(place.model, judge, cache, max_tokens=8, **options) as evaluator:
        return evaluator.evaluate_adapter(place.changing, data, 7)


def counts(report: Report) -> tuple[int, int, int]:
    nodes = report.run["nodes"]
    return nodes["generation"]["computed"], nodes["judge"]["computed"], nodes["judge"]["calls"]


def test_one_generation_serves_all_judges(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with JudgeServer(fail={"What is 2 plus 2": 400}) as server:
        monkeypatch.setenv("CEREBRAS_BASE_URL", server.url)
        monkeypatch.setenv("CEREBRAS_API_KEY", "a-key-0123456789")
        judges = ["f1", "exact", "cerebras:m"]
        report = evaluate(place, tmp_path, judges)
        assert report.run["nodes"]["generation"]["calls"] == 7
        assert counts(report) == (7, 20, 21)
        assert report.judges == judges
        assert (report.judge, report.score) == ("f1", report.by_judge["f1"].score)
        assert [found.failed for found in report.by_judge.values()] == [0, 0, 1]
        assert report.by_judge["cerebras:m"].failures == {"bad_request": 1}
        assert report.by_judge["cerebras:m"].rubric == "default"
        (failed,) = [item for item in report.items if item.scores["cerebras:m"] is None]
        assert failed.error is None
        assert failed.others["cerebras:m"].error is not None
        assert all(list(item.scores) == judges for item in report.items)
        asked = server.calls
        server.fail.clear()
        again = evaluate(place, tmp_path, judges, primary="cerebras:m")
        assert counts(again) == (0, 1, 21), "the failed question is judged again, and nothing else"
        assert server.calls == asked + 1
        assert again.judges == ["cerebras:m", "f1", "exact"]
        assert again.score == again.by_judge["cerebras:m"].score
        alone = evaluate(place, tmp_path, "cerebras:m")
        assert counts(alone)[:2] == (0, 0)
        assert alone.by_judge["cerebras:m"] == again.by_judge["cerebras:m"]
        assert alone.items[0].rationale == again.items[0].rationale
    by_model = compare(again, again, "f1")
    assert by_model.verdict == "the same"


def test_an_edited_scorer_computes_scores_alone(place: Workplace, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def score(response):\n    return 0.25\n")
    judge = ["f1", f"{path}:score"]
    first = evaluate(place, tmp_path, judge)
    assert counts(first) == (7, 14, 14)
    assert first.by_judge["mine.py:score"].score == 25
    assert counts(evaluate(place, tmp_path, judge)) == (0, 0, 14)
    path.write_text("def score(response):\n    # better\n    return {'a': 0.5, 'b': 0.75}\n")
    edited = evaluate(place, tmp_path, judge)
    assert counts(edited) == (0, 7, 14)
    assert edited.by_judge["mine.py:score"].score == 62.5
    assert edited.by_judge["mine.py:score"].criteria == {"a": 0.5, "b": 0.75}
    assert edited.by_judge["f1"] == first.by_judge["f1"]


def test_a_scorer_that_raises_fails_its_items_by_name(place: Workplace, tmp_path: Path) -> None:
    def picky(question: str, response: str) -> float:
        if "3 plus 3" in question:
            raise LookupError("no three")
        return 0.5 if response else 0.0

    report = evaluate(place, tmp_path, picky)
    assert (report.judge, report.scored, report.failed) == ("picky", 6, 1)
    assert report.failures == {"scorer_failed": 1}
    (failed,) = [item for item in report.items if item.error]
    assert "raised LookupError: no three" in (failed.error or "")


def test_a_question_without_a_reference_is_refused_before_any_answer(
    place: Workplace, tmp_path: Path
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"question": "Why?", "answer": "So."}\n{"question": "Who?"}\n')
    with AdapterEvaluator(place.model, ["exact", "f1"], "memory:") as evaluator:
        with pytest.raises(InputError, match=r"judge exact: cannot score 1 of 2 .* 'Who\?'"):
            evaluator.evaluate_adapter(None, data)
        assert evaluator.engine.stats == {}


def test_the_report_is_the_same_whatever_is_computed(place: Workplace, tmp_path: Path) -> None:
    judges = ["f1", "contains", "exact", r"regex:(\d+)"]
    once, again = evaluate(place, tmp_path, judges), evaluate(place, tmp_path, judges)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    assert once.to_json() == again.to_json() == evaluate(place, fresh, judges).to_json()
