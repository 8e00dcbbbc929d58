"""`cachedeval compare`: two adapters, or two reports that a run saved."""

import json
from pathlib import Path

import pytest
from support.evaluation import JUDGE, QUESTIONS, Evaluation
from support.judge_server import JudgeServer
from support.workplace import Finished, Workplace

pytestmark = pytest.mark.slow


def compare(evaluation: Evaluation, a: str | Path, b: str | Path, *more: str) -> Finished:
    options = evaluation.options(adapter=None, judge=JUDGE)
    return evaluation.place.run("compare", a, b, *options, *more, env=evaluation.env)


@pytest.fixture(scope="module")
def saved_once(place: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """An evaluation of two adapters by a judge, with its reports."""
    evaluation = Evaluation(place, tmp_path_factory.mktemp("compared"))
    with JudgeServer() as server:
        evaluation.judged_by(server)
        more = ("--adapter", "other", "--out", evaluation.folder / "reports")
        assert evaluation("run", *more, judge=JUDGE).status == 0
    return evaluation


@pytest.fixture
def saved(saved_once: Evaluation) -> Path:
    return saved_once.folder / "reports"


@pytest.fixture
def evaluation(saved_once: Evaluation, tmp_path: Path) -> Evaluation:
    """A copy of it, whose judge is gone."""
    return saved_once.copied(tmp_path)


def test_two_saved_reports_are_compared_pair_by_pair(evaluation: Evaluation, saved: Path) -> None:
    a, b = saved / "changing.json", saved / "other.json"
    done = evaluation.place.run("compare", a, b, "--json")
    assert (done.status, done.err) == (0, "")
    found = done.json
    scores = [
        {item["id"]: item["score"] for item in json.loads(path.read_text())["items"]}
        for path in (a, b)
    ]
    assert found["n"] == len(found["items"]) == QUESTIONS
    assert {each["id"]: (each["a"], each["b"]) for each in found["items"]} == {
        name: (score, scores[1][name]) for name, score in scores[0].items()
    }
    assert found["difference"] == pytest.approx(found["mean_b"] - found["mean_a"])
    assert found["low"] <= found["difference"] <= found["high"]
    assert found["better"] + found["worse"] + found["same"] == QUESTIONS
    sizes = [abs(each["b"] - each["a"]) for each in found["items"]]
    assert sizes == sorted(sizes, reverse=True)
    shown = evaluation.place.run("compare", a, b, "--top", "2").out
    assert f"{QUESTIONS} pairs" in shown
    assert len(shown.partition("changed most:\n")[2].splitlines()) == 2


def test_the_output_of_json_serves_as_a_report(evaluation: Evaluation, saved: Path) -> None:
    printed = evaluation.folder / "printed.json"
    printed.write_text(evaluation("run", "--json", judge=JUDGE).out)
    done = evaluation.place.run("compare", printed, saved / "changing.json", "--json")
    assert done.status == 0
    assert done.json["same"] == QUESTIONS
    assert done.json["p_value"] == 1
    shown = evaluation.place.run("compare", printed, saved / "changing.json").out
    assert "B is the same" in shown
    assert "changed most" not in shown


def test_too_few_pairs_say_so_and_no_more(evaluation: Evaluation, saved: Path) -> None:
    few = []
    for name in ("changing", "other"):
        report = json.loads((saved / f"{name}.json").read_text())
        path = evaluation.folder / f"few-{name}.json"
        path.write_text(json.dumps({**report, "items": report["items"][:1]}))
        few.append(path)
    shown = evaluation.place.run("compare", *few).out
    assert "too few to tell: " in shown
    assert "on 1 pair; whether B is better can be said from 6 pairs on" in shown
    assert "p =" not in shown
    assert "95%" not in shown
    assert evaluation.place.run("compare", *few, "--json").json["verdict"] == "too few to tell"


def test_two_adapters_are_evaluated_and_compared(evaluation: Evaluation, saved: Path) -> None:
    before = evaluation.place.run("compare", *sorted(saved.glob("*.json")), "--json").json
    found = compare(evaluation, "changing", "other", "--json").json
    assert {**found, "a": "", "b": ""} == {**before, "a": "", "b": ""}
    shown = compare(evaluation, "changing", "other").out
    hits = f"{2 * QUESTIONS} calls, {2 * QUESTIONS} from the cache, 0 computed, 0 failed"
    assert "0 model loads" in shown
    assert f"generation: {hits}" in shown
    assert f"judge: {hits}" in shown
    saved_ones = evaluation.place.run("compare", *sorted(saved.glob("*.json"))).out
    assert "model load" not in saved_ones, "comparing saved reports runs nothing"


def test_the_base_model_is_compared_as_base(evaluation: Evaluation, server: JudgeServer) -> None:
    evaluation.judged_by(server)
    found = compare(evaluation, "base", "same", "--json").json
    assert found["same"] == QUESTIONS, "this adapter changes nothing"
    assert server.calls == QUESTIONS, "the same answers are judged once"


def test_a_comparison_takes_how_the_cache_is_used(evaluation: Evaluation, tmp_path: Path) -> None:
    before = compare(evaluation, "changing", "other", "--offline", "--json").json
    empty = ("--offline", "--cache", f"disk:{tmp_path}/empty")
    done = compare(evaluation, "changing", "other", *empty)
    assert (done.status, (tmp_path / "empty").exists()) == (2, False)
    assert "there is no such folder" in done.err
    (tmp_path / "empty").mkdir()
    done = compare(evaluation, "changing", "other", *empty)
    assert done.status == 2
    assert f"the cache lacks {2 * QUESTIONS} of generation" in done.err
    with JudgeServer() as server:
        evaluation.judged_by(server)
        for mode in ("--no-cache", "--refresh"):
            asked = server.calls
            assert compare(evaluation, "changing", "other", mode, "--json").json == before
            assert server.calls > asked


def test_failed_questions_are_left_out_and_counted(evaluation: Evaluation, tmp_path: Path) -> None:
    with JudgeServer(fail={"What is 3 plus 3?": 400}) as server:
        evaluation.judged_by(server)
        done = compare(evaluation, "changing", "other", "--cache", f"disk:{tmp_path}/new")
    assert done.status == 3
    assert f"{QUESTIONS - 1} pairs" in done.out
    assert "left out: 1 without a score in both" in done.out


def test_other_judges_and_other_questions_are_refused(evaluation: Evaluation, saved: Path) -> None:
    by_f1 = evaluation.folder / "f1"
    assert evaluation("run", "--out", by_f1).status == 0
    done = evaluation.place.run("compare", saved / "changing.json", by_f1 / "changing.json")
    assert done.status == 2
    assert "judge of the first report is cerebras:gpt-oss-120b, of the second f1" in done.err
    evaluation.data = evaluation.place.questions(evaluation.folder, 3, start=50)
    elsewhere = evaluation.folder / "elsewhere"
    assert evaluation("run", "--out", elsewhere).status == 0
    done = evaluation.place.run("compare", by_f1 / "changing.json", elsewhere / "changing.json")
    assert done.status == 2
    assert "no question in common" in done.err
    assert done.err.count("\n") == 1


def test_what_cannot_be_compared_is_an_error(evaluation: Evaluation, saved: Path) -> None:
    report = saved / "changing.json"
    for a, b, said in (
        (report, "changing", f"{report} is a saved report and changing is not"),
        ("changing", report, f"{report} is a saved report and changing is not"),
        (report, saved / "none.json", "there is no such file"),
        (report, evaluation.data, "is not JSON"),
        ("changing", "nobody", "adapter nobody: no such folder"),
    ):
        done = compare(evaluation, a, b)
        assert done.status == 2
        assert said in done.err
        assert done.err.count("\n") == 1
    done = evaluation.place.run("compare", "changing", "other")
    assert done.status == 2
    assert "give --data" in done.err
