"""How often and how long a call is retried. It decides, and waits for nothing itself."""

import random
from collections import Counter

import msgspec

from cachedeval.engine.errors import InputError
from cachedeval.services.errors import InvalidContentError, RateLimitError, ServiceError

__all__ = ["RetryPolicy", "RetryState"]


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often and how long a call is retried. `cachedeval.services.errors` says which errors are.

    Attributes:
        attempts: The most attempts of one call.
        timeout: Seconds for one attempt.
        total_timeout: Seconds for all attempts of a call together; waiting for the rate limiter
            does not count.
        wait_initial: Seconds before the first retry. The wait doubles with each further one, plus
            jitter of up to `wait_initial`.
        wait_max: The most seconds between two attempts, before jitter.

    Raises:
        InputError: A number is not above 0.

    Example:
        >>> RetryPolicy(attempts=3, timeout=20).wait_initial
        0.5
    """

    attempts: int = 10
    timeout: float = 60.0
    total_timeout: float = 300.0
    wait_initial: float = 0.5
    wait_max: float = 20.0

    def __post_init__(self) -> None:
        """Refuse what cannot be kept to."""
        for name in self.__struct_fields__:
            given = getattr(self, name)
            if not given > 0:
                raise InputError(f"retry: {name} is {given}, and must be above 0")


class RetryState:
    """The attempts of one call.

    Attributes:
        attempts: How many there were.
        busy: Seconds that they took, with the waits between them.
        last: The error of the last one, or None.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy = policy
        self.attempts = 0
        self.busy = 0.0
        self.last: ServiceError | None = None
        self._failed: Counter[str] = Counter()

    @property
    def timeout(self) -> float:
        """Seconds that the next attempt may take."""
        return max(min(self.policy.timeout, self.policy.total_timeout - self.busy), 0.0)

    def next_wait(self, error: ServiceError) -> float | None:
        """Return the seconds until the next attempt after an error, or None if there is none."""
        self.last = error
        self._failed[error.kind] += 1
        if (
            error.final
            or self._failed[error.kind] >= error.max_attempts
            or self.attempts >= self.policy.attempts
        ):
            return None
        wait = self._wait(error)
        self.busy += wait
        return wait if self.busy < self.policy.total_timeout else None

    def _wait(self, error: ServiceError) -> float:
        if isinstance(error, RateLimitError | InvalidContentError):
            return 0.0  # all wait, at the rate limiter; bad content says nothing of the service
        if error.retry_after:  # 0 would be all attempts at once
            return error.retry_after
        grown = self.policy.wait_initial * 2.0 ** min(self.attempts - 1, 60)
        jitter = random.uniform(0, self.policy.wait_initial)  # noqa: S311 -- no secret
        return min(grown, self.policy.wait_max) + jitter
