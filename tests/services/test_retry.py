"""What a call's retries come to: pure decisions."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachedeval.engine.errors import InputError
from cachedeval.services import errors
from cachedeval.services.client import RetryState
from cachedeval.services.errors import (
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    InternalServerError,
    InvalidContentError,
    RateLimitError,
    ServiceError,
)
from cachedeval.services.retry import RetryPolicy

KINDS = [
    found
    for found in vars(errors).values()
    if isinstance(found, type) and issubclass(found, ServiceError)
]


def waits(state: RetryState, error: ServiceError) -> list[float]:
    """The waits until the state gives up."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    async def attempt() -> None:
        state.attempts += 1
        raise error

    with pytest.raises(type(error)):
        asyncio.run(state.retrying(sleep)(attempt))
    return found


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (InternalServerError(""), 10),
        (RateLimitError(""), 10),
        (APIConnectionError(""), 6),
        (APITimeoutError(""), 3),
        (InvalidContentError(""), 4),
        (BadRequestError(""), 1),
    ],
)
def test_attempts_are_bounded_by_the_policy_and_the_kind(
    error: ServiceError, attempts: int
) -> None:
    state = RetryState(RetryPolicy(total_timeout=10_000))
    assert len(waits(state, error)) == attempts - 1
    assert state.attempts == attempts


def test_a_final_error_is_not_retried() -> None:
    error = InternalServerError("")
    error.final = True
    assert waits(RetryState(RetryPolicy()), error) == []


def test_waits_double_up_to_the_maximum_with_jitter() -> None:
    state = RetryState(RetryPolicy(wait_initial=1, wait_max=4, total_timeout=1000))
    for wait, plain in zip(
        waits(state, InternalServerError("")), [1, 2, 4, 4, 4, 4, 4, 4, 4], strict=True
    ):
        assert plain <= wait <= plain + 1


def test_what_the_service_asks_for_is_waited_for_and_nothing_is_hammered() -> None:
    policy = RetryPolicy(total_timeout=1000, attempts=3)
    assert waits(RetryState(policy), InternalServerError("", retry_after=7)) == [7, 7]
    assert min(waits(RetryState(policy), InternalServerError("", retry_after=0))) > 0
    # All wait, at the limiter.
    assert waits(RetryState(policy), RateLimitError("", retry_after=7)) == [0, 0]


@given(
    st.sampled_from(KINDS),
    st.floats(0, 1e9, allow_nan=False),
    st.integers(1, 20),
    st.floats(0.01, 100),
)
def test_a_call_never_waits_for_longer_than_its_total(
    kind: type[ServiceError], retry_after: float, attempts: int, total: float
) -> None:
    state = RetryState(RetryPolicy(attempts=attempts, total_timeout=total))
    found = waits(state, kind("", retry_after=retry_after))
    assert sum(found) <= total
    assert len(found) < attempts
    assert state.timeout <= max(total, 0)


@pytest.mark.parametrize("field", RetryPolicy.__struct_fields__)
def test_an_impossible_policy_is_refused(field: str) -> None:
    with pytest.raises(InputError, match=field):
        RetryPolicy(**{field: 0})
