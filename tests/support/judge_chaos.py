"""What can befall a judge's service: seeded faults, and limits in sliding windows."""

import hashlib
import itertools
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from support.judge_http import Answer, Received, error_body, prompt_tokens

Fault = int | str | Answer
"""A status, a fault by its name (see `JudgeServer`), or the answer itself."""

FAULTS: Mapping[str, float] = {
    "429 retry-after": 0.05,
    "429": 0.05,
    "503": 0.025,
    "500": 0.025,
    "hang": 0.02,
    "malformed": 0.02,
    "cut": 0.01,
}
"""How often what goes wrong, where nothing else is said."""


_OTHERS_TOKENS = 500
"""Tokens of each request of another client, where nothing else says how many they are."""


class Chaos:
    """A script of faults: which, is a digest of the seed, the prompt and how often it came.

    The order in which concurrent requests arrive changes nothing, so a seed tells the run.

    Args:
        seed: Any number.
        faults: Shares by fault, each tried in turn.
        retry_after: Seconds that a 429 asks for, where it asks.
    """

    def __init__(
        self, seed: int, faults: Mapping[str, float] = FAULTS, *, retry_after: float = 1.0
    ) -> None:
        self.seed = seed
        self.faults = dict(faults)
        self.retry_after = retry_after
        self.happened: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()

    def __call__(self, got: Received) -> Fault | None:
        """What goes wrong with a request, or None."""
        self._seen[got.text] += 1
        name = f"{self.seed}:{self._seen[got.text]}:{got.text}"
        draw = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
        reaches = itertools.accumulate(self.faults.values())
        for fault, until in zip(self.faults, reaches, strict=True):
            if draw < until:
                self.happened[fault] += 1
                if fault == "429 retry-after":
                    return too_many({"retry-after": f"{self.retry_after:g}"})
                return int(fault) if fault.isdigit() else fault
        return None


def too_many(headers: dict[str, str] | None = None) -> Answer:
    """A 429 as Cerebras words it."""
    said = "Requests per minute limit exceeded - too many requests sent."
    return Answer(429, error_body(said, "request_quota_exceeded"), headers or {})


@dataclass
class _Entry:
    at: float
    amount: float


@dataclass
class SlidingWindow:
    """At most so much within any period."""

    limit: float
    period: float
    entries: deque[_Entry] = field(default_factory=deque)

    def used(self, now: float) -> float:
        """What is in the window."""
        while self.entries and self.entries[0].at <= now - self.period:
            self.entries.popleft()
        return sum(entry.amount for entry in self.entries)

    def add(self, now: float, amount: float) -> _Entry:
        """Let an amount in."""
        entry = _Entry(now, amount)
        self.entries.append(entry)
        return entry

    def fits_in(self, now: float, amount: float) -> float:
        """Seconds until an amount fits in."""
        excess = self.used(now) + amount - self.limit
        for entry in self.entries:
            if excess <= 0:
                break
            excess -= entry.amount
            if excess <= 0:
                return entry.at + self.period - now
        return 0.0


class Quota:
    """Requests and tokens a minute, enforced in sliding windows, and told in Cerebras's headers.

    A request counts as its prompt and its ``max_completion_tokens`` when it comes, and as what it
    used once it is answered. One that is turned down counts as nothing.

    Args:
        requests: A minute; None for no limit.
        tokens: A minute; None for no limit.
        minute: Seconds in a minute.
        other_share: The share of both that another client of the account uses, evenly.
        day: Requests a day.
        tells_retry_after: Whether a 429 says when to come back.
    """

    def __init__(
        self,
        *,
        requests: float | None = None,
        tokens: float | None = None,
        minute: float = 60.0,
        other_share: float = 0.0,
        day: int = 1_000_000,
        tells_retry_after: bool = True,
    ) -> None:
        self.requests = SlidingWindow(requests or float("inf"), minute)
        self.tokens = SlidingWindow(tokens or float("inf"), minute)
        self.minute = minute
        self.day = day
        self.tells_retry_after = tells_retry_after
        self.rejected: list[float] = []
        """When a request was turned down."""
        self.others_rejected = 0
        self.used: list[tuple[float, float]] = []
        """When a request came that was let in, and the tokens that it used."""
        self._share = other_share
        self._next_other: float | None = None

    def admit(self, now: float, got: Received) -> tuple[_Entry, _Entry] | Answer:
        """Let a request in, or answer 429."""
        self._others(now)
        amount = prompt_tokens(got) + got.body.get("max_completion_tokens", 16_384)
        wait = max(self.requests.fits_in(now, 1), self.tokens.fits_in(now, amount))
        if wait > 0:
            self.rejected.append(now)
            told = {"retry-after": f"{wait:.3f}"} if self.tells_retry_after else {}
            return too_many(told | self.headers(now))
        self.day -= 1
        return self.requests.add(now, 1), self.tokens.add(now, amount)

    def settle(self, now: float, entries: tuple[_Entry, _Entry], used: float) -> dict[str, str]:
        """A request was answered; returns the headers of its reply."""
        self._others(now)
        entries[1].amount = used
        self.used.append((entries[0].at, used))
        return self.headers(now)

    def headers(self, now: float) -> dict[str, str]:
        """What is left of the account's budgets."""
        told = {
            "x-ratelimit-limit-requests-day": "1000000",
            "x-ratelimit-remaining-requests-day": str(self.day),
            "x-ratelimit-reset-requests-day": "33011.38",
        }
        if self.tokens.limit != float("inf"):
            remaining = max(self.tokens.limit - self.tokens.used(now), 0)
            told |= {
                "x-ratelimit-limit-tokens-minute": f"{self.tokens.limit:.0f}",
                "x-ratelimit-remaining-tokens-minute": f"{remaining:.0f}",
                "x-ratelimit-reset-tokens-minute": f"{self.minute:.3f}",
            }
        return told

    def rejected_after(self, moment: float) -> int:
        """How many requests were turned down after a moment."""
        return sum(at > moment for at in self.rejected)

    def share(self) -> float:
        """What of the limits was used in the whole minutes since the first request.

        No more than its limit can ever be used of a sliding window, so 1 is the most there is.
        """
        began = min(at for at, _ in self.used)
        minutes = int((max(at for at, _ in self.used) - began) / self.minute)
        until = began + minutes * self.minute
        used = [tokens for at, tokens in self.used if at < until]
        return max(len(used) / self.requests.limit, sum(used) / self.tokens.limit) / minutes

    def _others(self, now: float) -> None:
        """Let the other client do what it did since the last time."""
        if not self._share:
            return
        limited = self.requests.limit != float("inf")
        in_minute = self.requests.limit if limited else self.tokens.limit / _OTHERS_TOKENS
        rate = in_minute * self._share / self.minute
        tokens = self.tokens.limit * self._share / self.minute / rate
        if self._next_other is None:  # it has been at it for long
            self._next_other = now - self.minute
        while self._next_other <= now:
            at = self._next_other
            self._next_other += 1 / rate
            amount = 0.0 if tokens == float("inf") else tokens
            if self.requests.fits_in(at, 1) > 0 or self.tokens.fits_in(at, amount) > 0:
                self.others_rejected += 1
                continue
            self.requests.add(at, 1)
            self.tokens.add(at, amount)
            self.day -= 1
