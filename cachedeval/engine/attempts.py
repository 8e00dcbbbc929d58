"""Attempts of a step that has a limiter, a time limit or retries.

Each attempt waits for the limiter, and gets the inputs anew, as one that failed may have changed them.
"""

# Lazy import: only async steps and limiters need asyncio.

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from contextvars import copy_context
from typing import Any

from cachedeval.engine.errors import CachedevalError
from cachedeval.engine.inflight import InFlight
from cachedeval.engine.node import Limiter, Node, describe
from cachedeval.engine.process import end_child, importing
from cachedeval.engine.retry import RetryPolicy

__all__ = ["Attempts", "run_attempts"]

_SLICE = 0.1
"""Seconds after which a pause between two attempts looks whether a run still waits for the call."""


class Attempts:
    """The attempts of one call, so far.

    Args:
        node: the node of the call.
    """

    def __init__(self, node: Node[Any]) -> None:
        once = RetryPolicy(attempts=1)
        given = node.retry if node.retry is not None else once
        policy = RetryPolicy(attempts=given) if isinstance(given, int) else given
        self.timeout = node.timeout if policy.timeout is None else policy.timeout
        """Seconds for one attempt."""
        self._total = policy.total_timeout
        self._pauses = policy.pauses()
        self._retry_on = node.retry_on
        self._spent = 0.0

    def pause(self, error: Exception, seconds: float) -> float:
        """Return how many seconds to wait for the next attempt.

        Args:
            error: how the last one failed.
            seconds: how long it took.

        Raises:
            Exception: the error, if it is final.
        """
        self._spent += seconds
        wanted = self._retry_on != (Exception,)  # by default, no error of this package
        if not isinstance(error, self._retry_on) or (
            isinstance(error, CachedevalError) and (error.fatal or not wanted)
        ):
            raise error
        pause = next(self._pauses, None)
        if pause is None:
            raise error
        self._spent += pause
        if self._total is not None and self._spent >= self._total:
            raise error
        return pause


def timed_out(flight: InFlight, seconds: float | None) -> TimeoutError:
    """Return the error of an attempt that took too long."""
    return TimeoutError(f"{describe(flight.call)} took longer than its timeout of {seconds:g} s")


def run_attempts(flight: InFlight, inputs_of: Callable[[], dict[str, Any]]) -> tuple[Any, float]:
    """Run a synchronous step.

    Args:
        flight: the call.
        inputs_of: returns the arguments of the function.

    Returns:
        What the function returned, and how many seconds the attempt took.

    Raises:
        BaseException: the error of the last attempt.
    """
    node = flight.call.node
    attempts = Attempts(node)
    while True:
        inputs = inputs_of()
        start = time.perf_counter()
        try:
            with nullcontext() if node.limiter is None else _limited(node.limiter):
                start = time.perf_counter()
                value = _call(flight, inputs, attempts.timeout)
                seconds = time.perf_counter() - start
        except Exception as error:
            pause = attempts.pause(error, time.perf_counter() - start)
            _sleep(flight, pause)
            if not flight.wanted:
                raise
        else:
            return value, seconds


def _call(flight: InFlight, inputs: dict[str, Any], seconds: float | None) -> Any:
    """Call the function; with a time limit on a thread that is left alone when the time is over."""
    node = flight.call.node
    if seconds is None:
        return node.signature.call(node.function, inputs)
    returned: list[Any] = []
    raised: list[BaseException] = []
    process = os.getpid()

    def work() -> None:
        flight.thread = threading.get_ident()
        try:
            returned.append(node.signature.call(node.function, inputs))
        except BaseException as error:  # noqa: BLE001  raised below
            raised.append(error)
        end_child(process)

    target = copy_context().run
    thread = threading.Thread(target=target, args=(work,), name="cachedeval-timed", daemon=True)
    thread.start()
    thread.join(min(seconds, threading.TIMEOUT_MAX))
    if raised:
        raise raised[0]
    if not returned:
        raise timed_out(flight, seconds)
    return returned[0]


def _sleep(flight: InFlight, seconds: float) -> None:
    """Wait for the next attempt; end at once if no run waits for the call any more."""
    until = time.monotonic() + seconds
    while flight.wanted and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _SLICE))


@contextmanager
def _limited(limiter: Limiter) -> Iterator[None]:
    """Wait for a limiter on this thread, with an event loop of its own."""
    with importing():
        import asyncio

    with asyncio.Runner() as runner:
        context = limiter.acquire()
        runner.run(_entered(context))
        try:
            yield
        except BaseException as error:
            runner.run(_left(context, error))
            raise
        runner.run(_left(context, None))


async def _entered(context: AbstractAsyncContextManager[Any]) -> None:
    await context.__aenter__()


async def _left(context: AbstractAsyncContextManager[Any], error: BaseException | None) -> None:
    kind, trace = (None, None) if error is None else (type(error), error.__traceback__)
    await context.__aexit__(kind, error, trace)
