"""Running a node's function: on the loop, on a thread, or together with others on a lane."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

from cachedeval.engine.lane import Lane
from cachedeval.engine.node import Computed, Node
from cachedeval.engine.record import Record
from cachedeval.engine.values import payload_digest

__all__ = ["Computer", "to_record"]


class _Job(NamedTuple):
    inputs: dict[str, Any]
    future: "asyncio.Future[tuple[Any, float]]"


class Computer:
    """Runs the functions of nodes for one event loop."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None
        self._lanes: dict[str, Lane] = {}
        self._waiting: dict[Node[Any], list[_Job]] = {}
        self._running: set[Node[Any]] = set()

    async def compute(self, node: Node[Any], inputs: dict[str, Any]) -> tuple[Any, float]:
        """Return what the node's function makes of the inputs, and the seconds that it took.

        Raises:
            Exception: whatever the function raises.
        """
        if node.lane is not None:
            return await self._on_lane(node, inputs)
        start = time.perf_counter()
        if node.is_async:
            value = await node.function(**inputs)
        else:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(thread_name_prefix="cachedeval-step")
            loop = asyncio.get_running_loop()
            value = await loop.run_in_executor(self._threads, lambda: node.function(**inputs))
        return value, time.perf_counter() - start

    def close(self) -> None:
        """End the threads; a step that is running keeps its own until it comes back."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        for lane in self._lanes.values():
            lane.close()

    async def _on_lane(self, node: Node[Any], inputs: dict[str, Any]) -> tuple[Any, float]:
        loop = asyncio.get_running_loop()
        job = _Job(inputs, loop.create_future())
        waiting = self._waiting.setdefault(node, [])
        waiting.append(job)
        if len(waiting) == 1 and node not in self._running:
            # Two turns of the loop let all calls that became ready together go as one batch.
            loop.call_soon(loop.call_soon, self._start, node)
        return await job.future

    def _start(self, node: Node[Any]) -> None:
        """Give a lane all the calls of a node that wait; what comes later waits for their end."""
        jobs = [job for job in self._waiting.pop(node, []) if not job.future.done()]
        if not jobs:
            return
        assert node.lane is not None  # noqa: S101  for the type checker: only such calls wait
        lane = self._lanes.get(node.lane)
        if lane is None:
            lane = self._lanes[node.lane] = Lane(node.lane)
        self._running.add(node)
        loop = asyncio.get_running_loop()

        def post(job: _Job, value: Any, seconds: float) -> None:
            with suppress(RuntimeError):  # the engine was closed in the meantime
                loop.call_soon_threadsafe(_deliver, job, value, seconds)

        def finished() -> None:
            self._running.discard(node)
            if self._waiting.get(node):
                self._start(node)

        def steps() -> Iterator[None]:
            try:
                yield from (_batch if node.batch else _one_by_one)(node, jobs, post)
            finally:
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(finished)

        lane.add(steps())


_Post = Callable[[_Job, Any, float], None]


def _deliver(job: _Job, value: Any, seconds: float) -> None:
    if job.future.done():
        return
    if isinstance(value, BaseException):
        job.future.set_exception(value)
    else:
        job.future.set_result((value, seconds))


def _one_by_one(node: Node[Any], jobs: list[_Job], post: _Post) -> Iterator[None]:
    for job in jobs:
        if not job.future.done():
            start = time.perf_counter()
            value: Any
            try:
                value = node.function(**job.inputs)
            except Exception as error:  # noqa: BLE001  it belongs to the call
                value = error
            post(job, value, time.perf_counter() - start)
        yield


def _batch(node: Node[Any], jobs: list[_Job], post: _Post) -> Iterator[None]:
    """Run a batched node, and hand on each result as soon as it is there."""
    missing = dict(enumerate(jobs))
    item = node.signature.item
    assert item is not None  # noqa: S101  for the type checker: a batched node declares one
    last = time.perf_counter()
    failure: Exception | None = None
    try:
        produced = node.function([item(**job.inputs) for job in jobs])
        try:
            for result in produced:
                if result is not None:
                    index, value = result
                    now = time.perf_counter()
                    # The batch's time is shared out in the order in which results come, so that
                    # the sum over its calls is what the batch took.
                    post(missing.pop(index), value, now - last)
                    last = now
                if all(job.future.done() for job in missing.values()) and missing:
                    return  # nobody wants the rest any more
                yield
        finally:
            produced.close()
    except GeneratorExit:
        raise
    except Exception as error:  # noqa: BLE001  it belongs to the calls that have no result yet
        failure = error
    for job in missing.values():
        post(job, failure or _unanswered(node), 0.0)


def _unanswered(node: Node[Any]) -> Exception:
    return RuntimeError(f"{node.name} ended without a result for one of its calls")


def to_record(node: Node[Any], recipe: bytes, value: Any, seconds: float) -> Record:
    """Return the record of a result.

    Raises:
        EncodingError: the value cannot be stored.
    """
    computed = value if isinstance(value, Computed) else Computed(value)
    payload = node.codec.dump(computed.value)
    return Record(
        recipe=recipe,
        payload=payload,
        digest=payload_digest(payload),
        created=time.time(),
        seconds=seconds,
        cost=computed.cost,
        provenance={"code": node.fingerprint, **computed.provenance},
    )
