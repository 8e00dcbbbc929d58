"""Checks of the settings that `@node` takes, when a function is decorated."""

# A decorated function costs the time of its import at each start, so what a hit does not need is
# imported only for settings that were given.

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cachedeval.engine.errors import InputError

if TYPE_CHECKING:
    from datetime import timedelta

    from cachedeval.engine.retry import RetryPolicy

__all__ = [
    "checked_concurrency",
    "checked_kinds",
    "checked_retry",
    "checked_tags",
    "refuse_settings",
    "seconds_of",
]


def checked_tags(title: str, tags: Iterable[str]) -> tuple[str, ...]:
    """Return the tags of a node, sorted.

    Raises:
        InputError: one is no string, or empty.
    """
    found = None if isinstance(tags, str) else list(tags)
    if found is None or not all(isinstance(tag, str) and tag for tag in found):
        raise InputError(
            f'{title}: tags are strings that are not empty, as in @node(tags=("summaries",))'
        )
    return tuple(sorted({*found}))


def seconds_of(title: str, name: str, given: "float | timedelta | None") -> float | None:
    """Return a duration in seconds.

    Raises:
        InputError: it is not above 0, or no duration.
    """
    if given is None:
        return None
    seconds: Any = given
    if callable(total := getattr(given, "total_seconds", None)):
        seconds = total()
    if type(seconds) not in (int, float) or not seconds > 0:
        raise InputError(f"{title}: {name} is {given!r}: give seconds above 0, or a timedelta")
    return float(seconds)


def checked_concurrency(title: str, given: int | None) -> int | None:
    """Return how many steps may run at once.

    Raises:
        InputError: it is no int above 0.
    """
    if given is not None and (type(given) is not int or given < 1):
        raise InputError(f"{title}: concurrency is {given!r}: give an int above 0")
    return given


def checked_retry(title: str, given: "int | RetryPolicy | None") -> "int | RetryPolicy | None":
    """Return how a step is retried.

    Raises:
        InputError: it is neither a number of attempts nor a policy.
    """
    if given is None or (type(given) is int and given > 0):
        return given
    module = sys.modules.get("cachedeval.engine.retry")  # else there is no policy
    if module is None or not isinstance(given, module.RetryPolicy):
        raise InputError(
            f"{title}: retry is {given!r}: give the number of attempts, or a "
            "RetryPolicy(attempts=3, wait_initial=0.5)"
        )
    policy: RetryPolicy = given
    return policy


def checked_kinds(title: str, given: Any) -> tuple[type[Exception], ...]:
    """Return the exceptions after which a step is retried.

    Raises:
        InputError: one is no class of exceptions.
    """
    kinds = given if isinstance(given, tuple) else (given,)
    if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
        raise InputError(f"{title}: retry_on is {given!r}: give classes of exceptions")
    return kinds


def refuse_settings(title: str, given: Mapping[str, Any], *, batch: bool, serial: bool) -> None:
    """Refuse settings that the steps of a node cannot have.

    Args:
        title: the name of the function.
        given: `limiter`, `concurrency`, `timeout` and `retry`; None is not given.
        batch: whether the node is batched.
        serial: whether its steps share one thread.

    Raises:
        InputError: the message names the setting, and why.
    """
    for name, value in given.items():
        if value is None:
            continue
        if batch:
            raise InputError(
                f"{title}: a batched node takes no {name}, as it computes many calls at once"
            )
        if serial and name in {"concurrency", "timeout"}:
            raise InputError(
                f"{title}: the steps of an executor take turns on one thread, which runs each to "
                f"its end: they take no {name}"
            )
    if given["timeout"] is not None and getattr(given["retry"], "timeout", None) is not None:
        raise InputError(f"{title}: give the timeout of an attempt once, here or in retry")
