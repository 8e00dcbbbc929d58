from pathlib import Path
from typing import Any

import pytest
from support.bound import answer_to, asked, bench_of, judge_of, recipe

from cachedeval.engine.errors import InputError
from cachedeval.engine.node import Call
from cachedeval.engine.result import Outcome
from cachedeval.evals.data import Question
from cachedeval.evals.judging.errors import InvalidVerdictError
from cachedeval.evals.judging.judge import Judge
from cachedeval.evals.judging.nodes import (
    judge_call,
    judge_parse,
    local_judge,
)
from cachedeval.evals.judging.rubric import load_rubric
from cachedeval.evals.judging.verdict import Verdict
from cachedeval.services.errors import APITimeoutError

WHY = asked("Why?", "So.")
FORM = {"criteria": "Kind?"} | {f"score{n}_description": f"level {n}" for n in range(1, 6)}
KEY = "csk-secret"


@pytest.fixture(autouse=True)
def _server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CEREBRAS_BASE_URL", "http://127.0.0.1:9/somewhere")
    monkeypatch.setenv("CEREBRAS_API_KEY", KEY)


def calls_of(
    judge: Judge, question: Question = WHY, answer: Call[Any] | None = None
) -> list[Call[Any]]:
    """Return the calls that ask the judge."""
    verdicts = bench_of(judge)(question, answer_to(question) if answer is None else answer)
    return [reply for verdict in verdicts for reply in verdict.upstream if reply.node is judge_call]


def keys(judge: Judge, question: Question = WHY, text: str = "the answer") -> list[bytes]:
    return [recipe(call, text) for call in calls_of(judge, question)]


def rubric_file(folder: Path, **described: str) -> str:
    path = folder / "mine.toml"
    path.write_text(
        "\n".join(f'[[criteria]]\nname = "{n}"\ndescription = "{d}"' for n, d in described.items())
    )
    return str(path)


def test_the_key_does_not_hold_model_adapter_or_server(monkeypatch: pytest.MonkeyPatch) -> None:
    (base,) = calls_of(judge_of(), answer=answer_to(WHY, "the-base-model"))
    monkeypatch.setenv("CEREBRAS_BASE_URL", "http://127.0.0.1:10/elsewhere")
    (other,) = calls_of(judge_of(), answer=answer_to(WHY, "another-model", "an-adapter"))
    assert recipe(base) == recipe(other)
    for word in (b"the-base-model", b"127.0.0.1", b"somewhere", KEY.encode()):
        assert word not in recipe(base)


def test_the_key_holds_all_that_the_judge_is_asked(tmp_path: Path) -> None:
    one = rubric_file(tmp_path, tone="Kind?")
    found = [
        keys(judge_of()),
        keys(judge_of("cerebras:n")),
        keys(judge_of("openai:m")),
        keys(judge_of(criteria="correctness")),
        keys(judge_of(criteria=one)),
        keys(judge_of(), asked("Who?", "So.")),
        keys(judge_of(), asked("Why?", "No.")),
        keys(judge_of(), asked("Why?")),
        keys(judge_of(), text="another answer"),
    ]
    assert len({key for (key,) in found}) == len(found)


def test_what_a_retried_or_slower_judge_is_told_is_no_part_of_the_key(tmp_path: Path) -> None:
    limits = tmp_path / "limits.toml"
    limits.write_text('[prices]\n"cerebras:m" = {input = 1, output = 2}\n')
    judge = judge_of(limits=str(limits))
    assert keys(judge) == keys(judge_of())
    assert judge.prices["cerebras:m"].output == 2


def test_editing_one_criterion_asks_for_one(tmp_path: Path) -> None:
    def found(tone: str, *, apart: bool) -> list[bytes]:
        criteria = rubric_file(tmp_path, tone=tone, truth="True?", length="Short?")
        return keys(judge_of(criteria=criteria, per_criterion=apart))

    before, after = found("Kind?", apart=True), found("Polite?", apart=True)
    assert len(before) == len(set(before)) == 3
    assert len(set(after) - set(before)) == 1
    together = found("Kind?", apart=False), found("Polite?", apart=False)
    assert len(together[0]) == 1
    assert together[0] != together[1]


def test_a_new_criterion_asks_for_itself_alone(tmp_path: Path) -> None:
    before = keys(judge_of(criteria=rubric_file(tmp_path, tone="Kind?"), per_criterion=True))
    more = rubric_file(tmp_path, truth="True?", tone="Kind?")
    after = keys(judge_of(criteria=more, per_criterion=True))
    assert len(set(after) - set(before)) == 1


def test_repeats_are_calls_of_their_own_and_more_of_them_keep_the_first() -> None:
    one, three = keys(judge_of()), keys(judge_of(repeats=3))
    assert three[:1] == one
    assert len(set(three)) == 3
    assert len(keys(judge_of(repeats=3, per_criterion=True))) == 12


def test_the_parser_reads_the_reply_of_its_own_call() -> None:
    for verdict in bench_of(judge_of(repeats=2, per_criterion=True))(WHY, answer_to(WHY)):
        reply = verdict.inputs["reply"]
        assert verdict.node is judge_parse
        assert reply.node is judge_call
        shared = ("rubric", "question", "reference", "response")
        assert [verdict.inputs[name] for name in shared] == [reply.inputs[name] for name in shared]


def test_a_chat_is_judged_as_a_whole() -> None:
    messages = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Why?"},
    )
    chat = WHY._replace(messages=messages)
    told = "system: Be brief.\n\nuser: Hi\n\nassistant: Hello\n\nuser: Why?"
    for name in ("cerebras:m", "mlx:."):
        for call in bench_of(judge_of(name))(chat, answer_to(chat)):
            assert call.inputs["question"] == told
    assert keys(judge_of(), chat) != keys(judge_of())


@pytest.mark.parametrize("given", [FORM, {"rubric": FORM}, {"score_rubric": FORM}])
@pytest.mark.parametrize("name", ["cerebras:m", "mlx:."])
def test_a_question_may_bring_its_own_rubric(given: dict[str, Any], name: str) -> None:
    question = asked("Why?", **given)
    judge = judge_of(name)
    (call,) = bench_of(judge)(question, answer_to(question))
    rubric = call.inputs["rubric"].identity
    assert [criterion["name"] for criterion in rubric["criteria"]] == ["score"]
    assert rubric["criteria"][0]["levels"][4] == "level 5"
    scored = judge.read([Verdict({"score": 4.0}, "fine")], question)
    assert scored == (75, {"score": 4}, "fine", None)
    (usual,) = bench_of(judge)(WHY, answer_to(WHY))
    assert len(usual.inputs["rubric"].identity["criteria"]) == 4


def test_a_field_of_that_name_that_is_no_rubric_is_none() -> None:
    question = asked("Why?", rubric="Be kind.", criteria="tone")
    (call,) = bench_of(judge_of())(question, answer_to(question))
    assert len(call.inputs["rubric"].identity["criteria"]) == 4


def test_a_rubric_that_lacks_a_level_is_an_error_that_names_the_question() -> None:
    question = asked("Why?", **{n: t for n, t in FORM.items() if n != "score3_description"})
    with pytest.raises(InputError, match=r"question Why\?: score3_description is missing"):
        bench_of(judge_of())(question, answer_to(question))


def names() -> list[str]:
    return [criterion.name for criterion in load_rubric("default").criteria]


def test_single_criteria_and_repeats_are_put_together_again() -> None:
    judge = judge_of(repeats=2, per_criterion=True)
    first = [Verdict({name: 10.0}, "good") for name in names()]
    second = [Verdict({name: 5.0}, "so so") for name in names()]
    scored = judge.read([*first, *second], WHY)
    assert scored.score == 75
    assert scored.criteria == dict.fromkeys(names(), 7.5)
    assert scored.rationale == "good\nso so"
    assert scored.spread == pytest.approx(35.355339)
    whole = [Verdict(dict.fromkeys(names(), score)) for score in (10.0, 5.0)]
    assert judge_of(repeats=2).read(whole, WHY) == scored._replace(rationale="")


def test_one_verdict_has_no_spread() -> None:
    scored = judge_of().read([Verdict(dict.fromkeys(names(), 10 / 3))], WHY)
    assert scored.spread is None
    assert scored.score == 33.333333


def test_a_repeat_of_one_criterion_is_another_round(tmp_path: Path) -> None:
    judge = judge_of(criteria=rubric_file(tmp_path, tone="Kind?"), repeats=3)
    scored = judge.read([Verdict({"tone": score}) for score in (0.0, 5.0, 10.0)], WHY)
    assert (scored.score, scored.spread) == (50, 50)


def test_only_replies_that_no_parser_reads_are_unreadable() -> None:
    judge = judge_of()
    (bad,) = bench_of(judge)(WHY, answer_to(WHY))
    (late,) = bench_of(judge)(WHY, answer_to(WHY))
    outcomes = [
        Outcome(bad, "failed", error=InvalidVerdictError("no")),
        Outcome(late, "failed", error=APITimeoutError("late")),
        Outcome(late.inputs["reply"], "failed", error=InvalidVerdictError("no")),
    ]
    assert judge.unreadable(outcomes) == [bad.inputs["reply"]]
    for name in ("f1", "mlx:."):
        assert judge_of(name).unreadable(outcomes) == []


def test_the_key_is_missed_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    judge_of().check_access()
    monkeypatch.delenv("CEREBRAS_API_KEY")
    with pytest.raises(InputError, match="set CEREBRAS_API_KEY"):
        judge_of().check_access()
    for name in ("exact", "f1", "mlx:."):
        judge_of(name).check_access()


def test_a_local_judge_is_known_by_its_folder_and_judged_by_its_content(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    judge = judge_of(f"mlx:{folder}")
    (call,) = bench_of(judge)(WHY, answer_to(WHY))
    assert judge.name == "mlx:tiny"
    assert call.node is judge.node is local_judge
    assert str(tmp_path).encode() not in recipe(call)
    with pytest.raises(InputError, match="no such folder"):
        bench_of(judge_of(f"mlx:{tmp_path / 'gone'}"))


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("gpt", {}, "no such judge"),
        ("cerebras:", {}, "which model"),
        ("f1", {"criteria": "correctness"}, "has no criteria; leave them out"),
        ("cerebras:m", {"criteria": "none"}, "neither a built-in one"),
        ("f1", {"repeats": 3}, "repeats 3: judge f1 gives the same verdict every time"),
        ("mlx:.", {"repeats": 3}, "repeats 3: judge mlx:. gives the same verdict every time"),
        ("cerebras:m", {"limits": "none.toml"}, "none.toml"),
    ],
)
def test_what_cannot_be_is_said_at_once(name: str, options: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError) as raised:
        judge_of(name, **options)
    assert why in str(raised.value)


def test_prices_are_known_of_judges_that_are_paid() -> None:
    assert "cerebras:gpt-oss-120b" in judge_of().prices
    assert judge_of("f1").prices == judge_of("mlx:.").prices == {}
    assert (judge_of().name, judge_of().rubric_name) == ("cerebras:m", "default")
