"""Judgements through the real clients, over real HTTP, against all that can go wrong."""

import asyncio
import itertools
import time

import pytest
from support.judge_chaos import Chaos, Quota, too_many
from support.judge_http import Answer, Received
from support.judge_load import Load, judge_all
from support.judge_server import JudgeServer, Script
from support.judge_verdicts import judged_text

from cachedeval.engine.errors import InputError
from cachedeval.services.limits import Limits
from cachedeval.services.retry import RetryPolicy

pytestmark = pytest.mark.slow

FAST = RetryPolicy(timeout=0.6, wait_initial=0.02, wait_max=0.2)
MANY = Limits(max_concurrency=50, minute=3)


def load(
    server: JudgeServer, questions: int, policy: RetryPolicy = FAST, **options: object
) -> Load:
    options = {"limits": MANY, **options}
    with server:
        return asyncio.run(judge_all(server.url, questions, policy=policy, **options))  # type: ignore[arg-type] # passed on


def first_times(fault: int | str | Answer, times: int = 1) -> Script:
    """Fails each question so many times."""
    seen: dict[str, int] = {}

    def script(got: Received) -> int | str | Answer | None:
        text = judged_text(got.body)
        seen[text] = seen.get(text, 0) + 1
        return fault if seen[text] <= times else None

    return script


@pytest.mark.parametrize("judge", ["cerebras:some-model", "openai:some-model"])
def test_chaos_loses_nothing_and_mixes_nothing_up(judge: str) -> None:
    chaos = Chaos(3, retry_after=0.1)
    done = load(JudgeServer(latency=0.01, script=chaos), 150, judge_name=judge)
    assert (len(done.verdicts), done.failures, done.misjudged) == (150, {}, 0)
    assert set(chaos.happened) == set(chaos.faults)
    assert done.service is not None
    assert set(done.service.usage.failures) == {
        "rate_limited",
        "server_error",
        "timed_out",
        "bad_verdict",
        "connection_failed",
    }


@pytest.mark.parametrize("judge", ["cerebras:some-model", "openai:some-model"])
@pytest.mark.parametrize("fault", [408, 409, 429, 500, 503, "cut", "empty", "malformed"])
def test_what_passes_is_tried_again(fault: int | str, judge: str) -> None:
    server = JudgeServer(script=first_times(fault))
    done = load(server, 2, judge_name=judge)
    assert (len(done.verdicts), done.misjudged, server.calls) == (2, 0, 4)


@pytest.mark.parametrize("judge", ["cerebras:some-model", "openai:some-model"])
def test_a_judge_that_never_copies_the_id_is_asked_once(judge: str) -> None:
    server = JudgeServer(script=lambda _: "wrong-id")
    done = load(server, 8, judge_name=judge)
    assert (len(done.verdicts), done.misjudged, server.calls) == (8, 0, 8)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (404, "not_found"),
        (413, "prompt_too_long"),
        (Answer(400, {"code": "context_length_exceeded", "message": ""}), "prompt_too_long"),
        (Answer(200, {"choices": [{"message": {"refusal": "I will not."}}]}), "refused"),
        (
            Answer(200, {"choices": [{"message": {}, "finish_reason": "content_filter"}]}),
            "refused",
        ),
    ],
)
def test_what_does_not_pass_is_not(fault: int | Answer, kind: str) -> None:
    server = JudgeServer(fail={"Question 0": fault})
    done = load(server, 3)
    assert done.kinds == {kind: 1}
    assert len(done.verdicts) == 2
    assert server.calls == 3


@pytest.mark.parametrize(
    ("fault", "kind", "attempts", "deadline"),
    [
        ("malformed", "bad_verdict", 4, 10),
        ("hang", "timed_out", 3, 0.3),
        ("cut", "connection_failed", 6, 10),
        (500, "server_error", 7, 10),
    ],
)
def test_attempts_are_bounded(fault: int | str, kind: str, attempts: int, deadline: float) -> None:
    server = JudgeServer(fail={"Question 0": fault})
    done = load(server, 2, RetryPolicy(attempts=7, timeout=deadline, wait_initial=0.01))
    assert done.kinds == {kind: 1}
    assert done.failures[0].attempts == attempts
    assert sum("Question 0" in got.text for got in server.requests) == attempts
    assert len(done.verdicts) == 1


def test_a_reply_without_a_verdict_is_stored() -> None:
    done = load(JudgeServer(fail={"Question 0": "malformed"}), 1)
    assert done.failures[0].reply == "I would say it is {rather good"


def test_a_service_that_never_answers_ends_at_its_timeouts() -> None:
    server = JudgeServer(script=lambda _: "hang")
    done = load(server, 20)
    assert done.kinds == {"timed_out": 20}
    assert server.calls == 3 * 20
    assert "no reply in 0.6 s" in str(done.failures[0])


@pytest.mark.parametrize("judge", ["cerebras:some-model", "openai:some-model"])
def test_a_dead_service_stops_further_requests(judge: str) -> None:
    with JudgeServer() as server:
        url = server.url  # nobody is there any more below
    done = asyncio.run(
        judge_all(url, 1000, limits=Limits(max_concurrency=10), policy=FAST, judge_name=judge)
    )
    assert done.kinds == {"connection_failed": 1000}
    assert done.service is not None
    assert done.service.usage.requests <= 6 * (20 + 10)


def test_one_that_answered_before_is_tried_for_every_question() -> None:
    server = JudgeServer(script=lambda got: None if got.number == 0 else "cut")
    done = load(server, 40, RetryPolicy(attempts=1), limits=Limits(max_concurrency=10))
    assert (len(done.verdicts), server.calls) == (1, 40)


def test_an_overloaded_service_gets_fewer_at_once() -> None:
    server = JudgeServer(latency=0.05, script=lambda got: 503 if got.number < 20 else None)
    done = load(server, 60, limits=Limits(max_concurrency=40))
    assert len(done.verdicts) == 60
    assert done.service is not None
    assert done.service.limiter.slots.limit == 40  # and more again once it copes


def test_the_time_of_a_call_is_bounded() -> None:
    done = load(
        JudgeServer(script=lambda _: 500),
        3,
        RetryPolicy(total_timeout=0.5, wait_initial=0.1, attempts=99),
    )
    assert done.kinds == {"server_error": 3}
    # The waits alone would be 0.1, 0.2, 0.4 s: the third is beyond the total.
    assert all(failure.attempts <= 3 for failure in done.failures.values())


@pytest.mark.parametrize("judge", ["cerebras:some-model", "openai:some-model"])
def test_a_wrong_key_costs_a_handful_and_says_one_thing(judge: str) -> None:
    calls = []
    for _ in range(4):  # on a busy machine the first refusal may come late
        server = JudgeServer(api_key="another")
        done = load(server, 300, judge_name=judge)
        assert done.kinds == {"unauthorised": 300}
        calls.append(server.calls)
        if calls[-1] <= 5:
            break
    assert min(calls) <= 5
    assert len({str(failure) for failure in done.failures.values()}) == 1
    assert all(isinstance(failure, InputError) for failure in done.failures.values())


def test_an_unknown_model_ends_the_run_too() -> None:
    unknown = Answer(404, {"code": "model_not_found", "message": "Model x does not exist"})
    server = JudgeServer(script=lambda _: unknown)
    done = load(server, 100)
    assert done.kinds == {"no_such_model": 100}
    assert server.calls <= 5


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_waited_for_exactly_by_every_worker(status: int) -> None:
    told = Answer(status, {"message": "later"}, {"retry-after": "2"})
    began = time.monotonic()
    server = JudgeServer(script=lambda _: told if time.monotonic() < began + 1 else None)
    done = load(server, 20, limits=Limits(max_concurrency=20))
    assert len(done.verdicts) == 20
    firsts = {got.text: got.answered for got in server.requests if got.status == status}
    again = {got.text: got.at for got in server.requests if got.status == 200}
    waits = [again[text] - firsts[text] for text in firsts]
    assert waits
    assert min(waits) >= 2.0


def test_a_service_without_structured_replies_is_asked_without() -> None:
    server = JudgeServer(schema=False)
    done = load(server, 30, limits=Limits(max_concurrency=1))
    assert (len(done.verdicts), done.misjudged) == (30, 0)
    assert server.calls == 31  # one learnt it for all
    assert sum("response_format" in got.body for got in server.requests) == 1


def test_a_bad_request_for_another_reason_does_not_unlearn_the_schema() -> None:
    server = JudgeServer(fail={"Question 1:": 400})
    done = load(server, 5, limits=Limits(max_concurrency=1))
    assert done.kinds == {"bad_request": 1}
    assert server.calls == 5
    assert all("response_format" in got.body for got in server.requests)


def test_an_asked_for_schema_reaches_the_service_through_the_sdk() -> None:
    server = JudgeServer()
    load(server, 1)
    declared = server.requests[0].body["response_format"]
    assert declared["type"] == "json_schema"
    assert declared["json_schema"]["strict"] is True
    assert set(declared["json_schema"]["schema"]["properties"]["scores"]["properties"]) == {
        "accuracy",
        "relevance",
        "completeness",
        "clarity",
    }
    assert server.requests[0].body["max_completion_tokens"] == 256
    assert server.requests[0].headers["x-stainless-retry-count"] == "0"


def most_at_once(server: JudgeServer) -> int:
    """How many requests the server had at the same time, at the most."""
    changes = [(got.at, 1) for got in server.requests]
    changes += [(got.answered, -1) for got in server.requests]
    return max(itertools.accumulate(change for _, change in sorted(changes)))


@pytest.mark.parametrize(("questions", "at_once"), [(20, 20), (200, 50)])
def test_all_places_are_busy_and_no_more(questions: int, at_once: int) -> None:
    server = JudgeServer(latency=2)
    limits = Limits(max_concurrency=at_once)
    done = load(server, questions, RetryPolicy(timeout=30), limits=limits)
    assert len(done.verdicts) == questions
    assert most_at_once(server) == at_once


@pytest.mark.parametrize(
    ("limits", "quota", "questions"),
    [
        (Limits(requests_per_minute=60, minute=3), Quota(requests=60, minute=3), 120),
        (Limits(tokens_per_minute=60_000, minute=3), Quota(tokens=60_000, minute=3), 250),
    ],
    ids=["requests", "tokens"],
)
def test_our_own_pace_is_not_turned_down(limits: Limits, quota: Quota, questions: int) -> None:
    server = JudgeServer(latency=0.02, quota=quota)
    done = load(server, questions, RetryPolicy(), limits=limits)
    assert len(done.verdicts) == questions
    first_second = server.requests[0].at + 1
    # A busy machine delays a request now and then; the benchmark has longer minutes, and none.
    assert quota.rejected_after(first_second) <= 2
    assert quota.share() >= 0.85


def test_a_429_without_advice_ends_well() -> None:
    done = load(JudgeServer(script=first_times(too_many(), 2)), 3)
    assert len(done.verdicts) == 3


def test_the_days_budget_ends_quietly_with_what_is_done() -> None:
    server = JudgeServer()
    done = load(server, 10, limits=Limits(requests_per_day=6))
    assert len(done.verdicts) == 6
    assert done.kinds == {"budget_exhausted": 4}
    assert server.calls == 6


def test_cancelling_gives_every_place_back() -> None:
    async def interrupted(url: str) -> None:
        task = asyncio.create_task(judge_all(url, 50, limits=MANY, policy=RetryPolicy()))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with JudgeServer(latency=300) as server:  # longer than a test may take
        asyncio.run(interrupted(server.url))


def test_a_nonsensical_policy_is_refused() -> None:
    with pytest.raises(InputError, match="timeout"):
        RetryPolicy(timeout=0)
