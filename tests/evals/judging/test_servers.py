"""Whole evaluations by judges over HTTP: the real SDK and client, and servers on loopback."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.judge_http import Answer, Received, completion
from support.judge_server import JudgeServer
from support.judge_verdicts import verdict
from support.workplace import Workplace

from cachedeval import AdapterEvaluator, InputError, Report
from cachedeval.services.errors import UnsupportedParameterError

QUESTIONS = 8
JUDGES = ("openai:m", "cerebras:m")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def data(place: Workplace) -> Path:
    return place.questions(place.root, QUESTIONS)


@pytest.fixture(scope="module")
def answered(place: Workplace, data: Path) -> Path:
    """Return a cache that holds the answers, which all tests start from."""
    folder = place.root / "answered"
    with AdapterEvaluator(place.model, "f1", f"disk:{folder}", max_tokens=4) as evaluator:
        evaluator.evaluate_adapter(None, data, QUESTIONS)
    return folder


Evaluate = Callable[..., Report]


@pytest.fixture
def evaluate(
    place: Workplace,
    data: Path,
    answered: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Evaluate:
    """Return what evaluates the base model with a judge at a URL, and one cache for all."""
    shutil.copytree(answered, tmp_path / "cache")

    def run(url: str, judge: str = "openai:m", **options: Any) -> Report:
        name = judge.partition(":")[0].upper()
        monkeypatch.setenv(f"{name}_BASE_URL", f"{url}/v1" if name == "OPENAI" else url)
        monkeypatch.setenv(f"{name}_API_KEY", "a-long-test-key")
        options = {"cache": f"disk:{tmp_path / 'cache'}", "max_tokens": 4, **options}
        with AdapterEvaluator(place.model, judge, **options) as evaluator:
            return evaluator.evaluate_adapter(None, data, QUESTIONS)

    return run


def scoring(score: float) -> Callable[[Received], Answer]:
    """Return a judge that gives every criterion the same score, and copies no id."""

    def script(got: Received) -> Answer:
        found = verdict(got.body)
        scores = dict.fromkeys(found["scores"], score)
        return Answer(200, completion(got, json.dumps({"scores": scores, "item_id": "an id"})))

    return script


def refusing(name: str, message: str = "") -> Answer:
    """Return a refusal of a parameter in OpenAI's words."""
    error = {
        "message": message or f"Unsupported value: '{name}' is not supported with this model.",
        "type": "invalid_request_error",
        "param": name,
        "code": "unsupported_value",
    }
    return Answer(400, {"error": error})


def reasoning(got: Received) -> Answer | None:
    """Keep to the rule of OpenAI's reasoning models."""
    if got.body.get("temperature", 1) != 1:
        return refusing("temperature")
    if "max_tokens" in got.body or "max_completion_tokens" not in got.body:
        return refusing("max_tokens")
    return None


@pytest.fixture
def service() -> Iterator[JudgeServer]:
    with JudgeServer() as server:
        yield server


@pytest.mark.parametrize("judge", JUDGES)
def test_two_servers_with_one_model_name_are_two_judges(evaluate: Evaluate, judge: str) -> None:
    with JudgeServer(script=scoring(2)) as one, JudgeServer(script=scoring(9)) as other:
        assert evaluate(one.url, judge).score == 20.0
        assert evaluate(other.url, judge).score == 90.0
        again = evaluate(one.url, judge)
        assert (again.score, again.run["nodes"]["judge"]["hits"]) == (20.0, QUESTIONS)
        assert (one.calls, other.calls) == (QUESTIONS, QUESTIONS)


def test_a_slash_at_the_end_makes_no_other_judge(evaluate: Evaluate, service: JudgeServer) -> None:
    first = evaluate(service.url, "cerebras:m")
    assert evaluate(f"{service.url}/", "cerebras:m") == first
    assert service.calls == QUESTIONS


def test_a_judge_id_makes_two_servers_one_judge(evaluate: Evaluate) -> None:
    with JudgeServer(script=scoring(2)) as one, JudgeServer(script=scoring(9)) as other:
        assert evaluate(one.url, judge_id="ours").score == 20.0
        assert evaluate(other.url, judge_id="ours").score == 20.0
        assert other.calls == 0


def test_explain_names_the_url_of_another_server(
    evaluate: Evaluate, place: Workplace, data: Path, tmp_path: Path, service: JudgeServer
) -> None:
    evaluate(service.url)
    with JudgeServer() as other, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", f"{other.url}/v1")
        cache = f"disk:{tmp_path / 'cache'}"
        with AdapterEvaluator(place.model, "openai:m", cache, max_tokens=4) as evaluator:
            found = evaluator.explain([None], data, QUESTIONS)
    whys = "\n".join(map(str, found))
    assert f'base_url: "{service.url}/v1"' in whys.replace("'", '"')
    assert f"{other.url}/v1" in whys


@pytest.mark.parametrize("judge", JUDGES)
def test_a_reasoning_model_needs_no_option_and_refuses_once(
    evaluate: Evaluate, service: JudgeServer, judge: str
) -> None:
    service.script = reasoning
    cold = evaluate(service.url, judge)
    assert (cold.scored, cold.failed) == (QUESTIONS, 0)
    assert [got.status for got in service.requests].count(400) == 1
    assert service.calls == QUESTIONS + 1
    assert cold.judge_refused == {judge: ["temperature"]}
    assert cold.judge_parameters == {judge: {"max_completion_tokens": 2048}}

    warm = evaluate(service.url, judge)
    assert warm.to_json() == cold.to_json()
    assert service.calls == QUESTIONS + 1

    # The key holds what was sent: nothing, as if nobody had wanted a temperature.
    same = evaluate(service.url, judge, judge_temperature="default")
    assert (same.score, same.run["nodes"]["judge"]["hits"]) == (cold.score, QUESTIONS)
    assert service.calls == QUESTIONS + 1


@pytest.mark.parametrize("mode", ["off", "refresh"])
def test_a_refusal_is_learnt_in_any_mode(
    evaluate: Evaluate, service: JudgeServer, mode: str
) -> None:
    service.script = reasoning
    assert evaluate(service.url, mode=mode).scored == QUESTIONS
    assert evaluate(service.url).scored == QUESTIONS
    refused = [got.status for got in service.requests].count(400)
    computed = service.calls - refused
    assert (refused, computed) == ((2, 16) if mode == "off" else (1, 8))


def test_a_later_question_asks_without_what_was_refused(
    evaluate: Evaluate, service: JudgeServer
) -> None:
    service.script = reasoning
    evaluate(service.url)
    evaluate(service.url, max_tokens=3)  # other answers
    assert [got.status for got in service.requests].count(400) == 1
    assert all("temperature" not in got.body for got in service.requests[1:])


def test_a_temperature_that_the_user_set_ends_the_run_where_it_is_refused(
    evaluate: Evaluate, service: JudgeServer
) -> None:
    service.script = reasoning
    with pytest.raises(UnsupportedParameterError, match=r"'temperature' is not.*you set temperat"):
        evaluate(service.url, judge_temperature=0)
    assert service.calls == 1


def test_several_parameters_may_be_refused_one_after_the_other(
    evaluate: Evaluate, service: JudgeServer
) -> None:
    unknown = ("seed", "response_format", "temperature")
    service.script = lambda got: next((refusing(n) for n in unknown if n in got.body), None)
    report = evaluate(service.url)
    assert report.scored == QUESTIONS
    assert service.calls == QUESTIONS + 3
    assert report.judge_refused == {"openai:m": sorted(unknown)}
    assert evaluate(service.url) == report
    assert service.calls == QUESTIONS + 3


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "seed: this field is not known", "type": "x"}},
        {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]},
        {"message": "property 'seed' is unsupported", "param": "seed"},
    ],
)
def test_a_refusal_is_read_in_the_words_of_several_servers(
    evaluate: Evaluate, service: JudgeServer, body: dict[str, Any]
) -> None:
    service.script = lambda got: Answer(422, body) if "seed" in got.body else None
    assert evaluate(service.url).judge_refused == {"openai:m": ["seed"]}
    assert service.calls == QUESTIONS + 1


def test_a_refusal_for_another_reason_teaches_nothing(
    evaluate: Evaluate, service: JudgeServer
) -> None:
    said = {"error": {"message": "your prompt about temperature is not welcome"}}
    service.script = lambda _: Answer(400, said)
    report = evaluate(service.url)
    assert report.failures == {"bad_request": QUESTIONS}
    assert report.judge_refused == {}


def test_options_reach_the_service_and_its_report(evaluate: Evaluate, service: JudgeServer) -> None:
    report = evaluate(
        service.url,
        judge_temperature=0.5,
        judge_max_tokens=99,
        judge_reasoning_effort="low",
        judge_extra={"top_k": 3},
    )
    sent = {
        "temperature": 0.5,
        "max_completion_tokens": 99,
        "reasoning_effort": "low",
        "top_k": 3,
    }
    assert report.judge_parameters == {"openai:m": sent}
    for got in service.requests:
        assert got.body.items() >= sent.items()


def test_the_settings_file_has_the_same_options(
    evaluate: Evaluate, service: JudgeServer, tmp_path: Path
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(
        '[judge]\ntemperature = "default"\nmax_completion_tokens = 50\nreasoning_effort = "low"\n'
        'extra = {top_k = 3}\njudge_id = "ours"\n'
    )
    evaluate(service.url, limits=str(path), judge_max_tokens=60)
    for got in service.requests:
        assert "temperature" not in got.body
        assert got.body["max_completion_tokens"] == 60  # the argument counts first
        assert (got.body["reasoning_effort"], got.body["top_k"]) == ("low", 3)
    with JudgeServer() as other:
        evaluate(other.url, limits=str(path), judge_max_tokens=60)
        assert other.calls == 0


def test_a_cut_reply_names_the_option(evaluate: Evaluate, service: JudgeServer) -> None:
    def cut(got: Received) -> Answer:
        body = completion(got, '{"scores": {"accur')
        body["choices"][0]["finish_reason"] = "length"
        return Answer(200, body)

    service.script = cut
    report = evaluate(service.url, judge_max_tokens=77)
    assert report.failures == {"bad_verdict": QUESTIONS}
    assert "cut off at 77 tokens: raise --judge-max-tokens" in str(report.items[0].error)


def test_the_second_try_says_what_was_wrong_with_the_first_reply(
    evaluate: Evaluate, service: JudgeServer
) -> None:
    service.script = lambda got: Answer(200, completion(got, '{"scores": {"accuracy": 77}}'))
    report = evaluate(service.url)
    assert report.failures == {"bad_verdict": QUESTIONS}
    bodies = [json.dumps(got.body["messages"]) for got in service.requests]
    assert len(set(bodies)) == len(bodies) == 4 * QUESTIONS  # no request is sent twice
    again = [body for body in bodies if "(Try 2)" in body]
    assert len(again) == QUESTIONS
    assert all("accuracy is scored 77, not 0 to 10" in body for body in again)


def test_every_reply_that_was_paid_for_counts(evaluate: Evaluate, service: JudgeServer) -> None:
    """Of eight answers, four need four more tries than the others, and fail."""
    bad = {f"Question {number}" for number in range(4)}
    asked: list[str] = []

    def script(got: Received) -> Answer | None:
        text = got.text.partition("\n\n(Try")[0]
        if text not in asked:
            asked.append(text)
        worthless = asked.index(text) < len(bad)
        return Answer(200, completion(got, "I like it.")) if worthless else None

    service.script = script
    run = evaluate(service.url).run
    assert run["judge_rejected"]["replies"] == 16
    spent, rejected = run["judge_spent"], run["judge_rejected"]
    worthless = len("I like it.") // 4 + 1
    assert rejected["completion_tokens"] == 16 * worthless
    everything = sum(len(got.text) // 4 for got in service.requests)
    assert spent["prompt_tokens"] == everything
    assert 0 < rejected["prompt_tokens"] < everything


def test_a_refusal_of_the_model_is_paid_for_too(evaluate: Evaluate, service: JudgeServer) -> None:
    def refusal(got: Received) -> Answer:
        body = completion(got, "")
        body["choices"][0]["message"]["refusal"] = "I will not."
        return Answer(200, body)

    service.script = refusal
    run = evaluate(service.url).run
    assert run["judge_rejected"]["replies"] == QUESTIONS
    assert run["judge_spent"]["prompt_tokens"] == run["judge_rejected"]["prompt_tokens"] > 0


@pytest.mark.parametrize(
    "usage",
    [
        None,
        7,
        "many",
        [],
        {"prompt_tokens": "12"},
        {"prompt_tokens": -5},
        {"prompt_tokens": 10**400},
    ],
)
def test_usage_of_another_type_costs_no_verdict(
    evaluate: Evaluate, service: JudgeServer, usage: object
) -> None:
    def script(got: Received) -> Answer:
        return Answer(200, completion(got, json.dumps(verdict(got.body))) | {"usage": usage})

    service.script = script
    report = evaluate(service.url)
    assert report.scored == QUESTIONS
    assert report.run["judge_spent"]["prompt_tokens"] == 0


def test_a_judge_that_copies_no_id_scores_all(evaluate: Evaluate) -> None:
    with JudgeServer(script=scoring(5)) as server:
        report = evaluate(server.url)
        assert (report.scored, report.score, server.calls) == (QUESTIONS, 50.0, QUESTIONS)


def test_a_service_in_trouble_is_retried_within_the_settings_and_not_in_silence(
    evaluate: Evaluate, service: JudgeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("[retry]\nattempts = 2\nwait_initial = 0.01\n")
    service.script = lambda _: 500
    with caplog.at_level(logging.WARNING, "cachedeval"):
        report = evaluate(service.url, limits=str(path))
    assert report.failures == {"server_error": QUESTIONS}
    assert service.calls == 2 * QUESTIONS
    (said,) = [record.getMessage() for record in caplog.records if "trying" in record.message]
    assert said.startswith("the service at 127.0.0.1 answered 500: made to fail with 500; trying")
    assert said.endswith("trying again, up to 2 times and 300 s for each call")


def test_offline_without_a_key_says_what_the_cache_lacks(
    place: Workplace, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://example.invalid/v1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with (
        AdapterEvaluator(place.model, "openai:m", "memory:", mode="offline") as evaluator,
        pytest.raises(InputError, match="offline: the cache lacks 8 of generation"),
    ):
        evaluator.evaluate_adapter(None, data, QUESTIONS)
