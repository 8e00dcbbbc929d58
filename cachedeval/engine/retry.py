"""How often and how long a step is retried."""

import random
from collections.abc import Iterator

import msgspec

from cachedeval.engine.errors import InputError

__all__ = ["RetryPolicy"]

_NUMBERS = ("timeout", "total_timeout", "wait_initial", "wait_max")


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often and how long a step is retried. The names are those of stamina and tenacity.

    Attributes:
        attempts: the most attempts of one call.
        timeout: seconds for one attempt; None means no limit.
        total_timeout: seconds for all attempts of a call together, with the waits between them;
            waiting for a limiter does not count. None means no limit.
        wait_initial: seconds before the first retry. The wait doubles with each further one, plus
            jitter of up to `wait_initial`.
        wait_max: the most seconds between two attempts, before jitter.

    Raises:
        InputError: a number is not above 0.

    Example:
        >>> RetryPolicy(attempts=3, timeout=20).wait_initial
        0.5
    """

    attempts: int = 3
    timeout: float | None = None
    total_timeout: float | None = None
    wait_initial: float = 0.5
    wait_max: float = 20.0

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        if type(self.attempts) is not int or self.attempts < 1:
            raise InputError(f"retry: attempts is {self.attempts}, and must be an int above 0")
        for name in _NUMBERS:
            given = getattr(self, name)
            if given is not None and not given > 0:
                raise InputError(f"retry: {name} is {given}, and must be above 0")

    def pauses(self) -> Iterator[float]:
        """Yield the seconds before each retry."""
        for number in range(self.attempts - 1):
            wait = min(self.wait_initial * 2.0 ** min(number, 60), self.wait_max)
            yield wait + random.random() * self.wait_initial  # noqa: S311  jitter is no secret
