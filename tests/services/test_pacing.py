"""The pacer against a service that enforces its limits exactly, in simulated time."""

import heapq
import random
from dataclasses import dataclass, field

import pytest
from support.judge_chaos import Quota
from support.judge_http import Answer, Received

from cachedeval.services.client import PromptEstimate
from cachedeval.services.errors import QuotaExhaustedError
from cachedeval.services.limits import Limits, RateHeaders
from cachedeval.services.pacing import Pacer, Sent

pytestmark = pytest.mark.slow

NOTHING = RateHeaders()
MESSAGES = ({"role": "user", "content": "A question, and the answer to be judged. " * 30},)
USED = 100


@dataclass
class Simulation:
    """Sends as fast as the pace allows, with some requests under way at once."""

    limits: Limits
    quota: Quota
    latency: float = 0.8
    concurrency: int = 32
    max_completion_tokens: int = 300
    now: float = 0.0
    sent: int = 0
    pacer: Pacer = field(init=False)
    estimate: PromptEstimate = field(default_factory=PromptEstimate)
    under_way: list[tuple[float, int, Sent, object]] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        self.pacer = Pacer(self.limits)
        noise = random.Random(7)
        while self.now < seconds:
            tokens = self.estimate.tokens(MESSAGES) + self.max_completion_tokens
            delay = self.pacer.delay(self.now, tokens)
            if delay <= 0 and len(self.under_way) < self.concurrency:
                self._send(tokens, noise)
                continue
            wake = [self.under_way[0][0]] if self.under_way else []
            if len(self.under_way) < self.concurrency:
                wake.append(self.now + delay)
            self.now = max(min(wake), self.now) + 1e-6
            while self.under_way and self.under_way[0][0] <= self.now:
                self._receive(*heapq.heappop(self.under_way))

    def _send(self, tokens: float, noise: random.Random) -> None:
        sent = self.pacer.take(self.now, tokens)
        body = {"messages": MESSAGES, "max_completion_tokens": self.max_completion_tokens}
        arrival = self.now + 0.02
        came = Received(self.sent, arrival, body, {})
        entries = self.quota.admit(arrival, came)
        took = 0.02 if isinstance(entries, Answer) else self.latency * noise.uniform(0.5, 1.5)
        heapq.heappush(self.under_way, (arrival + took, self.sent, sent, entries))
        self.sent += 1

    def _receive(self, _at: float, _number: int, sent: Sent, entries: object) -> None:
        if isinstance(entries, Answer):
            told = RateHeaders.read(entries.headers)
            asked = float(entries.headers["retry-after"])
            self.pacer.reject(self.now, sent, asked, told)
            return
        prompt = len(MESSAGES[0]["content"]) // 4
        headers = self.quota.settle(self.now, entries, prompt + USED)  # type: ignore[arg-type] # a pair
        self.estimate.learn(MESSAGES, prompt)
        self.pacer.settle(self.now, sent, prompt + USED, RateHeaders.read(headers))


@pytest.mark.parametrize("requests", [5, 30, 300])
def test_bound_by_requests(requests: int) -> None:
    seen = Simulation(Limits(requests_per_minute=requests), Quota(requests=requests))
    seen.run(600)
    assert seen.quota.rejected_after(1) == 0
    assert seen.quota.share() >= 0.95


@pytest.mark.parametrize("tokens", [30_000, 500_000])
def test_bound_by_tokens(tokens: int) -> None:
    seen = Simulation(Limits(tokens_per_minute=tokens), Quota(tokens=tokens))
    seen.run(600)
    assert seen.quota.rejected_after(1) == 0
    assert seen.quota.share() >= 0.95


def test_bound_by_requests_while_another_takes_half() -> None:
    quota = Quota(requests=300, other_share=0.5)
    seen = Simulation(Limits(requests_per_minute=300), quota)
    seen.run(600)
    assert seen.quota.rejected_after(1) == 0
    assert 0.95 / 2 <= seen.quota.share() <= 0.53


def test_bound_by_tokens_while_another_takes_half() -> None:
    quota = Quota(tokens=500_000, other_share=0.5)
    seen = Simulation(Limits(tokens_per_minute=500_000), quota)
    seen.run(600)
    assert seen.quota.rejected_after(1) == 0
    assert 0.95 / 2 <= seen.quota.share() <= 0.53


def test_a_wrongly_assumed_tier_is_left_for_the_accounts_own() -> None:
    quota = Quota(requests=1000, tokens=1_000_000)
    assumed = Limits(requests_per_minute=5, tokens_per_minute=30_000, assumed=True)
    seen = Simulation(assumed, quota)
    seen.run(300)
    assert seen.quota.share() >= 0.95
    assert seen.quota.rejected_after(1) == 0


def test_a_429_makes_all_wait_for_as_long_as_it_says() -> None:
    pacer = Pacer(Limits())
    tickets = [pacer.take(0, 10) for _ in range(20)]
    assert [pacer.reject(1.0, ticket, 2.0, NOTHING) for ticket in tickets] == (
        [True] + [False] * 19
    )
    now = 1.0
    sent: list[float] = []
    while len(sent) < 20:
        if (delay := pacer.delay(now, 10)) > 0:
            now += delay
        else:
            pacer.take(now, 10)
            sent.append(now)
    assert sent[0] >= 3.0
    assert sent[-1] <= 3.5


def test_a_429_that_says_nothing_makes_all_wait_longer_each_time() -> None:
    pacer = Pacer(Limits())
    waits = []
    now = 0.0
    for _ in range(4):
        ticket = pacer.take(now, 10)
        pacer.reject(now, ticket, None, NOTHING)
        waits.append(pacer.delay(now, 10))
        now += waits[-1] + 1
    for wait, plain in zip(waits, (1, 2, 4, 8), strict=True):
        assert 0.75 * plain <= wait <= 1.25 * plain


def test_tokens_that_are_used_up_are_waited_for_as_the_headers_say() -> None:
    pacer = Pacer(Limits(tokens_per_minute=1000))
    told = RateHeaders(tokens_limit=1000, tokens_remaining=0, tokens_reset=7)
    pacer.reject(0, pacer.take(0, 500), None, told)
    assert 7 <= pacer.delay(0, 1) <= 61


def test_a_wait_of_hours_is_not_waited_for() -> None:
    pacer = Pacer(Limits())
    pacer.reject(0, pacer.take(0, 10), 7200, NOTHING)
    with pytest.raises(QuotaExhaustedError, match="7200 s"):
        pacer.delay(0, 10)
    assert pacer.delay(7201, 10) == 0


def test_the_days_requests_are_counted_and_heard_of() -> None:
    pacer = Pacer(Limits(requests_per_day=2))
    for _ in range(2):
        pacer.take(0, 10)
    with pytest.raises(QuotaExhaustedError, match="requests_per_day"):
        pacer.delay(0, 10)
    pacer = Pacer(Limits())
    pacer.settle(0, pacer.take(0, 10), 10, RateHeaders(day_remaining=0, day_reset=3600))
    with pytest.raises(QuotaExhaustedError, match="3600 s"):
        pacer.delay(0, 10)


def test_the_days_requests_given_anew_end_the_wait() -> None:
    pacer = Pacer(Limits())
    for second in range(20):
        left = 3 - second if second < 3 else 14_400 - second
        pacer.settle(second, pacer.take(second, 10), 10, RateHeaders(day_remaining=left))
        assert pacer.delay(second, 10) == 0


def test_the_estimate_of_a_prompt_follows_the_replies() -> None:
    estimate = PromptEstimate()
    for _ in range(50):
        estimate.learn(MESSAGES, 900)
    assert estimate.tokens(MESSAGES) == pytest.approx(900, rel=0.02)
