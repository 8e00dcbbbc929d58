"""A service's limits: the settings, what Cerebras publishes, and what its headers say."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from cachedeval.engine.errors import InputError

__all__ = ["PUBLISHED", "Limits", "RateHeaders", "cerebras_free_tier", "retry_after"]

PUBLISHED: tuple[tuple[int, int], ...] = (
    (30_000, 5),
    (60_000, 30),
    (250_000, 250),
    (500_000, 300),
    (1_000_000, 1_000),
)
"""Tokens a minute and requests a minute that go together in Cerebras's published tiers.

From https://inference-docs.cerebras.ai/support/rate-limits: the free trial as of July 2026 (30,000
and 5, and a million tokens a day), the free tier of 2025 (60,000 and 30, and 14,400 requests a
day), pay as you go (250,000 to 1,000,000, by model). The service's headers tell an account's
tokens a minute but not its requests a minute, so the one is looked up by the other.
"""


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a service allows. None means no known limit.

    Attributes:
        requests_per_minute: Requests in any ``minute``.
        tokens_per_minute: Tokens in any ``minute``: a request counts as its prompt and its
            ``max_completion_tokens`` when it is sent, and as what it used once it is answered.
        requests_per_day: Requests in a day; counted from now on, and corrected by the headers.
        max_concurrency: The most requests at once.
        minute: Seconds in a minute; shorter in tests.
        longest_wait: The most seconds that a 429 may ask to wait; if it asks for more, the budget
            counts as exhausted.
        assumed: The numbers are a tier's published ones, not the account's: the headers of the
            first reply replace them.
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    requests_per_day: int | None = None
    max_concurrency: int = 32
    minute: float = 60.0
    longest_wait: float = 120.0
    assumed: bool = False

    def __post_init__(self) -> None:
        """Refuse what would stall or divide by zero.

        Raises:
            InputError: A limit is not above 0.
        """
        for name in ("requests_per_minute", "tokens_per_minute", "minute", "longest_wait"):
            given = getattr(self, name)
            if given is not None and not given > 0:
                raise InputError(f"limits: {name} is {given}, and must be above 0")
        if self.max_concurrency < 1:
            raise InputError(
                f"limits: max_concurrency is {self.max_concurrency}, and must be 1 or more"
            )
        if self.requests_per_day is not None and self.requests_per_day < 0:
            raise InputError(f"limits: requests_per_day is {self.requests_per_day}, below 0")

    def corrected(self, tokens_per_minute: float | None) -> "Limits":
        """These limits, with the account's tokens a minute in place of assumed ones.

        A limit that the user set stands, unless the account's is lower.
        """
        announced, mine = tokens_per_minute, self.tokens_per_minute
        if announced is None or announced <= 0 or announced == mine:
            return self
        if not self.assumed:
            return msgspec.structs.replace(
                self, tokens_per_minute=announced if mine is None else min(announced, mine)
            )
        fitting = [requests for tokens, requests in PUBLISHED if tokens <= announced]
        return msgspec.structs.replace(
            self,
            tokens_per_minute=announced,
            requests_per_minute=float(fitting[-1]) if fitting else self.requests_per_minute,
        )


def cerebras_free_tier() -> Limits:
    """Cerebras's published limits for its free trial (July 2026); see `PUBLISHED`."""
    tokens, requests = PUBLISHED[0]
    return Limits(requests_per_minute=requests, tokens_per_minute=tokens, assumed=True)


class RateHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """What Cerebras's ``x-ratelimit-*`` headers say of an account's budgets; None: not sent.

    Attributes:
        tokens_limit: Tokens a minute in all.
        tokens_remaining: Of them, not used.
        tokens_reset: Seconds until none counts as used.
        day_remaining: Requests of the day that are left.
        day_reset: Seconds until the day's requests are given anew.
    """

    tokens_limit: float | None = None
    tokens_remaining: float | None = None
    tokens_reset: float | None = None
    day_remaining: float | None = None
    day_reset: float | None = None

    @classmethod
    def read(cls, headers: Mapping[str, str]) -> "RateHeaders":
        """Read the headers (names in lower case); a value that is no number is ignored."""

        def number(name: str) -> float | None:
            try:
                value = float(headers[f"x-ratelimit-{name}"])
            except (KeyError, ValueError):
                return None
            # Nonsense must not stall a run: less than none, or until next year.
            most = _LONGEST_RESET if name.startswith("reset") else math.inf
            least = 1 if name.startswith("limit") else 0
            return value if math.isfinite(value) and least <= value <= most else None

        return cls(
            tokens_limit=number("limit-tokens-minute"),
            tokens_remaining=number("remaining-tokens-minute"),
            tokens_reset=number("reset-tokens-minute"),
            day_remaining=number("remaining-requests-day"),
            day_reset=number("reset-requests-day"),
        )


_LONGEST_RESET = 2 * 86_400.0
"""Seconds: a day's budget is renewed after a day."""

_SKEW = 2.0
"""Seconds by which the service's clock may differ from ours and still be the same."""


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds to wait by `retry-after-ms` or `retry-after`, or None.

    The former is a number, the latter a number or an HTTP date. A time in the past is 0.

    Args:
        headers: The reply's, names in lower case.
        now: The time of day, with its zone. Where the service's ``date`` shows that its clock is
            another, a date is taken by that clock.
    """
    try:
        exact = float(headers.get("retry-after-ms", "")) / 1000
    except ValueError:
        exact = math.nan
    if math.isfinite(exact) and exact >= 0:
        return exact
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        until = _date(text)
        if until is None:
            return None
        theirs = _date(headers.get("date", ""))
        if theirs is not None and abs((theirs - now).total_seconds()) > _SKEW:
            now = theirs
        seconds = (until - now).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _date(text: str) -> datetime | None:
    from email.utils import parsedate_to_datetime  # noqa: PLC0415  slow to import, rarely wanted

    try:
        parsed = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
