from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from cachedeval.engine.errors import InputError
from cachedeval.services.limits import Limits, RateHeaders, cerebras_free_tier, retry_after

NOW = datetime(2026, 11, 23, 12, 0, 0, 400_000, tzinfo=UTC)


def http_date(after: float) -> str:
    return format_datetime(NOW.replace(microsecond=0) + timedelta(seconds=after), usegmt=True)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("2", 2.0),
        (" 0.25 ", 0.25),
        ("0", 0.0),
        ("-3", 0.0),
        ("", None),
        ("soon", None),
        ("nan", None),
    ],
)
def test_seconds(said: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": said}, NOW) == seconds


def test_none_is_reported() -> None:
    assert retry_after({}, NOW) is None


def test_a_date_is_waited_for_to_the_second() -> None:
    assert retry_after({"retry-after": http_date(5)}, NOW) == pytest.approx(4.6)


def test_a_date_that_is_past_asks_for_nothing() -> None:
    assert retry_after({"retry-after": http_date(-60)}, NOW) == 0


def test_a_date_by_another_clock_is_taken_by_that_clock() -> None:
    headers = {"retry-after": http_date(3605), "date": http_date(3600)}
    assert retry_after(headers, NOW) == 5


def test_headers_are_read_and_nonsense_is_not() -> None:
    told = RateHeaders.read(
        {
            "x-ratelimit-limit-tokens-minute": "30000",
            "x-ratelimit-remaining-tokens-minute": "0",
            "x-ratelimit-reset-tokens-minute": "11.38",
            "x-ratelimit-remaining-requests-day": "lots",
            "x-ratelimit-reset-requests-day": "inf",
        }
    )
    assert told == RateHeaders(tokens_limit=30000, tokens_remaining=0, tokens_reset=11.38)


@pytest.mark.parametrize(
    "wrong",
    [
        {"requests_per_minute": 0},
        {"tokens_per_minute": -1},
        {"max_concurrency": 0},
        {"requests_per_day": -1},
        {"minute": float("nan")},
    ],
)
def test_a_limit_that_would_stall_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Limits(**wrong)  # type: ignore[arg-type] # as a file might have it


def test_the_free_tier_gives_way_to_what_the_account_has() -> None:
    assumed = cerebras_free_tier()
    assert (assumed.requests_per_minute, assumed.tokens_per_minute) == (5, 30_000)
    paid = assumed.corrected(1_000_000)
    assert (paid.requests_per_minute, paid.tokens_per_minute) == (1000, 1_000_000)
    assert assumed.corrected(30_000) is assumed
    assert assumed.corrected(None) is assumed
    assert assumed.corrected(8_000).requests_per_minute == 5


def test_the_users_own_limits_stand_unless_the_account_has_less() -> None:
    own = Limits(requests_per_minute=7, tokens_per_minute=10_000)
    assert own.corrected(30_000).tokens_per_minute == 10_000
    assert own.corrected(5_000).tokens_per_minute == 5_000
    assert own.corrected(5_000).requests_per_minute == 7
    assert Limits().corrected(5_000).tokens_per_minute == 5_000
