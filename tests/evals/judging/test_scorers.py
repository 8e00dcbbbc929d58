from pathlib import Path
from typing import Any

import pytest
from support.bound import answer_to, asked, bench_of, judge_of, recipe

from cachedeval import Engine, node
from cachedeval.engine.errors import InputError
from cachedeval.engine.result import Outcome
from cachedeval.evals.data import Question
from cachedeval.evals.generation import Generation
from cachedeval.evals.judging.judges import open_judges
from cachedeval.evals.judging.scorers import ScorerError


@node(version="1", name="answered")
def answered(text: str) -> Generation:
    return Generation(text)


def scored(name: str, response: str, reference: str | None = None) -> Outcome:
    """Return the outcome of a judge's step."""
    judge = judge_of(name)
    (call,) = bench_of(judge)(asked("Why?", reference), answered(response))
    assert call.node is judge.node
    with Engine() as engine:
        (outcome,) = engine.settle([call])
    return outcome


@pytest.mark.parametrize(
    ("name", "response", "reference", "score"),
    [
        ("choice", "The answer is B.", "(b)", 100),
        ("contains", "It is Paris.", "Paris", 100),
        ("exact", "Paris.", "paris", 100),
        ("f1", "Paris, France, in", "in Paris", 80),
        ("json", '{"a": 1}', '{"a": 1.0}', 100),
        ("numeric", "It is 1,000.", "1000", 100),
        ("numeric:1%", "It is 1,009.", "1000", 100),
        ("numeric:0.5", "It is 1,009.", "1000", 0),
        (r"regex:is (\d+)", "It is 5", "5", 100),
        (r"regex:^\d+$", "5", None, 100),
        ("tool_call", '{"name": "f"}', '{"name": "f", "arguments": {}}', 100),
        ("f1", "", "A", 0),
    ],
)
def test_each_scorer_is_a_judge(
    name: str, response: str, reference: str | None, score: float
) -> None:
    judge = judge_of(name)
    question = asked("Why?", reference)
    judge.check_questions([question])
    assert (judge.name, judge.rubric_name, judge.prices) == (name, None, {})
    found = judge.read([scored(name, response, reference).value], question)
    assert found.score == score
    assert judge.unreadable([]) == []
    judge.check_access()


def test_a_schema_counts_by_its_content(tmp_path: Path) -> None:
    pytest.importorskip("jsonschema")
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    one.write_text('{"type": "object", "required": ["a"]}')
    other.write_text('{"required":["a"],  "type":"object"}')
    question = asked("Why?", "prose")

    def key(path: Path) -> bytes:
        (call,) = bench_of(judge_of(f"json:{path}"))(question, answer_to(question))
        return recipe(call)

    assert key(one) == key(other)
    assert judge_of(f"json:{one}").name == "json:one.json"
    assert scored(f"json:{one}", '{"a": 1}', "prose").value.scores == {"json": 1}
    assert scored(f"json:{one}", "{}", "prose").value.scores == {"json": 0}
    other.write_text("{}")
    assert key(one) != key(other)


def test_the_key_holds_answer_reference_and_setting_and_not_the_question() -> None:
    def key(name: str, question: Question, text: str = "the answer") -> bytes:
        (call,) = bench_of(judge_of(name))(question, answer_to(question))
        return recipe(call, text)

    why, who = asked("Why?", "5"), asked("Who?", "5")
    assert key("numeric", why) == key("numeric", who)
    different = [
        key("numeric", why),
        key("numeric:1", why),
        key("contains", why),
        key("numeric", asked("Why?", "6")),
        key("numeric", why, "another answer"),
    ]
    assert len(set(different)) == len(different)
    assert key("regex:a", why) == key("regex:a", asked("Why?")), "it is compared with nothing"


@pytest.mark.parametrize(
    ("name", "references", "why"),
    [
        ("f1", [None, "", " \n", "A"], "cannot score 3 of 4 questions; the first is 'Why 0?'"),
        ("exact", [None], "no reference answer, and exact compares with one"),
        ("numeric", ["5", "five"], "its reference answer is 'five': there is no number in it"),
        ("choice", ["B", "Paris"], "its reference answer is 'Paris': it is not the letter"),
        ("json", ["{}", "{"], "it is not JSON"),
        ("tool_call", ['{"name": "f"}', "f()"], "its reference answer is 'f()'"),
        (r"regex:(\d)", [None], "regex compares with one"),
    ],
)
def test_questions_without_a_usable_reference_are_refused(
    name: str, references: list[str | None], why: str
) -> None:
    questions = [asked(f"Why {n}?", reference) for n, reference in enumerate(references)]
    with pytest.raises(InputError) as raised:
        judge_of(name).check_questions(questions)
    assert why in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_needs_no_reference_takes_any_question() -> None:
    for name in ("json", "regex:a"):
        judge_of(name).check_questions([asked("Why?")])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("f1:x", "judge f1:x: takes nothing after its name"),
        ("regex", "which pattern"),
        ("regex:(", "is invalid"),
        ("numeric:close", "is not a number such as 0.01"),
        ("json:none.json", "the schema none.json cannot be read: No such file"),
        ("oracle", "no such judge; give cerebras:MODEL, openai:MODEL, mlx:PATH, choice, contains"),
    ],
)
def test_a_bad_name_is_refused_at_once(name: str, why: str) -> None:
    with pytest.raises(InputError) as raised:
        judge_of(name)
    assert why in str(raised.value)


def test_a_missing_package_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rapidfuzz", None)
    with pytest.raises(InputError, match=r"judge rouge_l: .* pip install 'cachedeval\[rouge\]'"):
        judge_of("rouge_l")


def test_a_search_without_end_fails_its_item_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachedeval.evals.scorers.patterns._SECONDS", 0.05)
    outcome = scored("regex:(a+)+$", "a" * 50_000 + "b", "a")
    assert isinstance(outcome.error, ScorerError)
    assert outcome.error.kind == "scorer_failed"
    assert str(outcome.error).startswith("regex: the pattern '(a+)+$' takes more than")


def several(*names: Any, **options: Any) -> list[str]:
    judges = open_judges(names, local_model=lambda *_: pytest.fail("no model"), **options)
    return [judge.name for judge in judges]


def test_several_judges_are_in_the_order_given_but_for_the_primary_one() -> None:
    assert several("f1", "exact", "cerebras:m") == ["f1", "exact", "cerebras:m"]
    assert several("f1", "exact", primary="exact") == ["exact", "f1"]
    with pytest.raises(InputError, match=r"primary f2: is none of the judges \(f1, exact\)"):
        several("f1", "exact", primary="f2")
    with pytest.raises(InputError, match="judge f1: is given twice"):
        several("f1", " f1")


def test_rubric_and_repeats_count_for_those_that_have_them() -> None:
    assert several("f1", "cerebras:m", criteria="correctness", repeats=1) == ["f1", "cerebras:m"]
    for options in ({"criteria": "correctness"}, {"repeats": 2}):
        with pytest.raises(InputError, match="judge f1"):
            several("f1", "exact", **options)
