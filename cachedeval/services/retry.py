"""How often and how long a call is retried. `cachedeval.services.client` keeps to it."""

import msgspec

from cachedeval.engine.errors import InputError

__all__ = ["RetryPolicy"]


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
