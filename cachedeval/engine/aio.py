"""The event loop executor: async steps run on one loop, in a thread of its own.

All limiters and connections of an engine belong to this loop, no matter which thread or loop asks
for a result. So no connection is shared between loops. Only this module imports asyncio at the top,
and only the first async step imports this module.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from cachedeval.engine.executors import OnEnd
from cachedeval.engine.expansion import calls_in, expanded, holds_calls, output_of, with_output
from cachedeval.engine.inflight import InFlight, InFlightTable, current
from cachedeval.engine.process import end_child, importing
from cachedeval.engine.resource import ResourcePool
from cachedeval.engine.steps import complete, inputs_of
from cachedeval.engine.tracing import end_span, start_span

__all__ = ["EventLoopExecutor"]

T = TypeVar("T")

_DRAIN_SECONDS = 1.0
"""Seconds that connections are given to close when the loop ends."""


class _ContextThreads(ThreadPoolExecutor):
    """Threads for `loop.run_in_executor(None, …)` that see the context variables of the step.

    A run that is started there knows the step that waits for it.
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        return super().submit(copy_context().run, fn, *args, **kwargs)


class EventLoopExecutor:
    """Runs async steps as tasks of one event loop.

    Thread safety: every method may be called from any thread.
    """

    def __init__(self, table: InFlightTable, pool: ResourcePool, on_end: OnEnd) -> None:
        self._table = table
        self._pool = pool
        self._on_end = on_end
        self._tasks: dict[InFlight, asyncio.Task[None]] = {}
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(_ContextThreads(thread_name_prefix="cachedeval-io"))
        self.thread = threading.Thread(target=self._work, name="cachedeval-loop", daemon=True)
        self.thread.start()

    def submit_many(self, flights: Sequence[InFlight]) -> None:
        """Start a task for each call."""
        self.loop.call_soon_threadsafe(self._spawn, flights)

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def cancel(self, flights: Sequence[InFlight]) -> None:
        """Cancel the tasks of calls."""
        self.loop.call_soon_threadsafe(self._cancel, flights)

    def task(self, flight: InFlight) -> "asyncio.Task[None] | None":
        """Return the task of a call whose step runs."""
        return self._tasks.get(flight)

    def stop(self, timeout: float) -> bool:
        """Cancel all steps and wait up to `timeout` seconds; return whether all of them ended."""
        with suppress(TimeoutError):
            self.submit(self._end()).result(timeout)
        return not self._tasks

    def close(self, timeout: float) -> bool:
        """Stop the loop and its thread; return whether all steps ended within `timeout` seconds."""
        ended = self.stop(timeout)
        with suppress(TimeoutError):
            self.submit(self._drain()).result(timeout)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(timeout)
        if not self.thread.is_alive():
            self.loop.close()
        return ended

    def _work(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def _spawn(self, flights: Sequence[InFlight]) -> None:
        for flight in flights:
            if self._table.start(flight):
                flight.context.run(current.set, flight)
                task = self.loop.create_task(self._run(flight), context=flight.context)
                self._tasks[flight] = task
                task.add_done_callback(partial(self._ended, flight))

    def _cancel(self, flights: Sequence[InFlight]) -> None:
        for flight in flights:
            if (task := self._tasks.get(flight)) is not None and not flight.wanted:
                flight.cancelling = True
                task.cancel()

    async def _run(self, flight: InFlight) -> None:
        node = flight.call.node
        value: Any = None
        error: BaseException | None = None
        process = os.getpid()
        span = start_span(flight)
        start = time.perf_counter()
        try:
            if node.is_guarded:
                value, seconds = await self._attempts(flight)
                start = time.perf_counter() - seconds
            else:
                value = await node.signature.call(node.function, inputs_of(flight, self._pool))
            output = output_of(value)
            if holds_calls(output):
                calls = list(calls_in(output))
                values = await flight.engine.arun(calls, mode=flight.mode)
                value = with_output(value, expanded(output, calls, values))
        except asyncio.CancelledError as raised:
            # A cancellation that the step caused itself is a failure of the step.
            flight.cancelled = flight.cancelling
            error = raised
        except BaseException as raised:  # noqa: BLE001  it is the error of the call
            error = raised
        end_child(process)
        complete(flight, value, error, time.perf_counter() - start)
        if span is not None:
            end_span(span, flight)

    async def _attempts(self, flight: InFlight) -> tuple[Any, float]:
        """Run a step that has a limiter, a time limit or retries, as `run_attempts` does."""
        with importing():
            from cachedeval.engine.attempts import Attempts, timed_out

        node = flight.call.node
        attempts = Attempts(node)
        while True:
            inputs = inputs_of(flight, self._pool)
            start = time.perf_counter()
            limit = asyncio.timeout(None)
            try:
                async with nullcontext() if node.limiter is None else node.limiter.acquire():
                    start = time.perf_counter()
                    async with asyncio.timeout(attempts.timeout) as limit:
                        value = await node.signature.call(node.function, inputs)
                    seconds = time.perf_counter() - start
            except Exception as error:  # noqa: BLE001  it may be final
                late = isinstance(error, TimeoutError) and limit.expired()
                failure = timed_out(flight, attempts.timeout) if late else error
                pause = attempts.pause(failure, time.perf_counter() - start)
            else:
                return value, seconds
            await asyncio.sleep(pause)

    def _ended(self, flight: InFlight, task: asyncio.Task[None]) -> None:
        del self._tasks[flight]
        if task.cancelled():  # before it began
            flight.cancelled = True
        self._on_end(flight)

    async def _end(self) -> None:
        """Cancel the steps and wait for them; those that were cancelled before clean up already."""
        for flight, task in list(self._tasks.items()):
            if not flight.cancelling:
                flight.cancelling = True
                task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _drain(self) -> None:
        """Let what else runs on the loop end, such as connections that are being closed."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            _, left = await asyncio.wait(others, timeout=_DRAIN_SECONDS)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        await self.loop.shutdown_asyncgens()
        for _ in range(3):  # a transport closes its socket a turn after it is told to
            await asyncio.sleep(0)
