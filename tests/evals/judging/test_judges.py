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
from cachedeval.evals.judging.options import JudgeOptions
from cachedeval.evals.judging.rubric import load_rubric
from cachedeval.evals.judging.verdict import Verdict
from cachedeval.services.errors import APITimeoutError

WHY = asked("Why?", "So.")
FORM = {"criteria": "Kind?"} | {f"score{n}_description": f"level {n}" for n in range(1, 6)}
KEY = "csk-secret"
WARM = JudgeOptions(temperature=0.7)


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


def test_the_key_does_not_hold_model_adapter_or_path() -> None:
    (base,) = calls_of(judge_of(), answer=answer_to(WHY, "the-base-model"))
    (other,) = calls_of(judge_of(), answer=answer_to(WHY, "another-model", "an-adapter"))
    assert recipe(base) == recipe(other)
    for word in (b"the-base-model", KEY.encode()):
        assert word not in recipe(base)


def at(monkeypatch: pytest.MonkeyPatch, url: str | None, name: str = "cerebras:m") -> bytes:
    """Return the key of a verdict by a judge at this address, and the identity of the judge."""
    variable = f"{name.partition(':')[0].upper()}_BASE_URL"
    if url is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, url)
    (key,) = keys(judge_of(name))
    return key


@pytest.mark.parametrize(
    "same",
    [
        "http://127.0.0.1:9/somewhere/",
        "HTTP://127.0.0.1:9/somewhere",
        "http://me:secret@127.0.0.1:9/somewhere",
    ],
)
def test_two_servers_are_two_judges_however_their_url_is_written(
    monkeypatch: pytest.MonkeyPatch, same: str
) -> None:
    here = at(monkeypatch, "http://127.0.0.1:9/somewhere")
    assert at(monkeypatch, same) == here
    others = ("http://127.0.0.1:10/somewhere", "http://127.0.0.1:9", "http://localhost:9/somewhere")
    assert len({here, *(at(monkeypatch, url) for url in others)}) == 4


@pytest.mark.parametrize(
    ("name", "url"),
    [("cerebras:m", "https://api.cerebras.ai/"), ("openai:m", "https://API.openai.com:443/v1/")],
)
def test_the_providers_own_url_is_one_whether_it_is_set_or_not(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str
) -> None:
    assert at(monkeypatch, url, name) == at(monkeypatch, None, name)


def test_the_identity_has_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CEREBRAS_BASE_URL", "http://me:secret-word@127.0.0.1:9/v1")
    (call,) = calls_of(judge_of())
    assert call.inputs["judge"].identity == {
        "provider": "cerebras",
        "model": "m",
        "base_url": "http://127.0.0.1:9/v1",
    }


def test_a_judge_id_declares_servers_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(judge_id: str | None) -> bytes:
        (found,) = keys(judge_of(options=JudgeOptions(judge_id=judge_id)))
        return found

    here = key("ours")
    monkeypatch.setenv("CEREBRAS_BASE_URL", "http://127.0.0.1:10/elsewhere")
    assert key("ours") == here
    assert len({here, key("theirs"), key(None)}) == 3


def test_every_parameter_that_is_sent_is_in_the_key() -> None:
    options = [
        JudgeOptions(),
        JudgeOptions(temperature=1),
        JudgeOptions(temperature="default"),
        JudgeOptions(max_completion_tokens=99),
        JudgeOptions(reasoning_effort="low"),
        JudgeOptions(extra={"top_k": 1}),
        JudgeOptions(extra={"top_k": {"a": 1, "b": 2}}),
    ]
    found = [key for each in options for key in keys(judge_of(options=each))]
    assert len(set(found)) == len(options)
    assert keys(judge_of(options=JudgeOptions(temperature=0))) == found[:1]
    assert keys(judge_of(options=JudgeOptions(extra={"top_k": {"b": 2, "a": 1}}))) == found[-1:]


def test_what_no_prompt_has_is_in_no_key(tmp_path: Path) -> None:
    def key(name: str, weight: float, description: str = "Kind?") -> list[bytes]:
        path = tmp_path / f"{name}.toml"
        path.write_text(
            f'[[criteria]]\nname = "tone"\ndescription = "{description}"\nweight = {weight}\n'
        )
        return keys(judge_of(criteria=str(path)))

    assert key("one", 1) == key("one", 2) == key("another", 1)
    assert key("one", 1, "Polite?") != key("one", 1)


def test_repeats_need_a_temperature() -> None:
    for options in (JudgeOptions(), JudgeOptions(temperature=0)):
        with pytest.raises(InputError, match=r"repeats 3: at temperature 0 .* are one and the"):
            judge_of(repeats=3, options=options)
    for temperature in (0.7, "default"):
        judge_of(repeats=3, options=JudgeOptions(temperature=temperature))


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


def test_retry_settings_are_not_in_the_key(tmp_path: Path) -> None:
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
    one, three = keys(judge_of(options=WARM)), keys(judge_of(repeats=3, options=WARM))
    assert three[:1] == one
    assert len(set(three)) == 3
    assert len(keys(judge_of(repeats=3, options=WARM, per_criterion=True))) == 12


def test_the_parser_reads_the_reply_of_its_own_call() -> None:
    for verdict in bench_of(judge_of(repeats=2, options=WARM, per_criterion=True))(
        WHY, answer_to(WHY)
    ):
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
    judge = judge_of(repeats=2, options=WARM, per_criterion=True)
    first = [Verdict({name: 10.0}, "good") for name in names()]
    second = [Verdict({name: 5.0}, "so so") for name in names()]
    scored = judge.read([*first, *second], WHY)
    assert scored.score == 75
    assert scored.criteria == dict.fromkeys(names(), 7.5)
    assert scored.rationale == "good\nso so"
    assert scored.spread == pytest.approx(35.355339)
    whole = [Verdict(dict.fromkeys(names(), score)) for score in (10.0, 5.0)]
    assert judge_of(repeats=2, options=WARM).read(whole, WHY) == scored._replace(rationale="")


def test_one_verdict_has_no_spread() -> None:
    scored = judge_of().read([Verdict(dict.fromkeys(names(), 10 / 3))], WHY)
    assert scored.spread is None
    assert scored.score == 33.333333


def test_a_repeat_of_one_criterion_is_another_round(tmp_path: Path) -> None:
    judge = judge_of(criteria=rubric_file(tmp_path, tone="Kind?"), repeats=3, options=WARM)
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
        ("f1", {"options": WARM}, "judge f1: takes no temperature"),
    ],
)
def test_an_impossible_value_is_refused_at_once(
    name: str, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(InputError) as raised:
        judge_of(name, **options)
    assert why in str(raised.value)


def test_prices_are_known_of_judges_that_are_paid() -> None:
    assert "cerebras:gpt-oss-120b" in judge_of().prices
    assert judge_of("f1").prices == judge_of("mlx:.").prices == {}
    assert (judge_of().name, judge_of().rubric_name) == ("cerebras:m", "default")
