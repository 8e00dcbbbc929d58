"""How often and how long a call of a service is retried. `cachedeval.services.client` keeps to it."""

from cachedeval.engine import retry

__all__ = ["RetryPolicy"]


class RetryPolicy(retry.RetryPolicy, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often and how long a call is retried. `cachedeval.services.errors` says which errors are.

    It is the engine's policy with defaults for a service: ten attempts of a minute each, within five
    minutes.

    Example:
        >>> RetryPolicy(attempts=3, timeout=20).total_timeout
        300.0
    """

    attempts: int = 10
    timeout: float = 60.0
    total_timeout: float = 300.0
