"""Running a node's function: on the loop, on a thread, or together with others on a lane."""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from cachedeval.engine.batch import Job, Post, run_batch
from cachedeval.engine.errors import EncodingError
from cachedeval.engine.forks import end_child
from cachedeval.engine.lane import Lane
from cachedeval.engine.node import Computed, Node
from cachedeval.engine.record import Damaged, Record, seal, unseal, write_notes
from cachedeval.engine.threads import Threads
from cachedeval.engine.values import payload_digest

__all__ = ["Computer", "to_record"]


class _Done(NamedTuple):
    value: Any
    error: BaseException | None
    seconds: float


class Computer:
    """Runs the functions of nodes for one event loop."""

    def __init__(self) -> None:
        self.threads = Threads()
        self._lanes: dict[str, Lane] = {}
        self._waiting: dict[Node[Any], list[Job]] = {}
        self._running: dict[Node[Any], tuple[list[Job], asyncio.Future[None]]] = {}
        """What each node has on a lane, and what is done when the lane is through with it."""

    async def compute(self, node: Node[Any], inputs: dict[str, Any]) -> tuple[Any, float]:
        """Return what the node's function makes of the inputs, and the seconds that it took.

        Raises:
            Exception: whatever the function raises; what is no `Exception` as a `RuntimeError`.
        """
        if node.lane is not None:
            done = await self._on_lane(node, inputs)
        elif node.is_async:
            done = await _on_loop(node, inputs)
        else:
            done = await self._on_thread(node, inputs)
        if done.error is None:
            return done.value, done.seconds
        if isinstance(done.error, Exception) and not isinstance(done.error, StopIteration):
            raise done.error
        # Raised as it is, it would end the event loop with all that runs on it, or a generator.
        raise RuntimeError(
            f"{node.name} raised {type(done.error).__name__} {done.error}".rstrip()
        ) from done.error

    async def tidied(self) -> None:
        """Wait until the batches whose calls are all answered have let go of what they hold."""
        for jobs, ended in list(self._running.values()):
            if all(job.future.done() for job in jobs):
                await asyncio.shield(ended)

    def close(self) -> None:
        """End the threads; a step that is running keeps its own until it comes back."""
        self.threads.close()
        for lane in self._lanes.values():
            lane.close()

    def is_lane(self, thread: threading.Thread) -> bool:
        """Say whether steps take turns on a thread."""
        return any(lane.thread is thread for lane in self._lanes.values())

    async def _on_thread(self, node: Node[Any], inputs: dict[str, Any]) -> _Done:
        loop = asyncio.get_running_loop()
        job = Job(inputs, loop.create_future())

        def work() -> None:
            if not job.future.done():  # somebody still wants it
                _post(loop, job, *_here(node, inputs))

        self.threads.run(work)
        return _Done(*await job.future)

    async def _on_lane(self, node: Node[Any], inputs: dict[str, Any]) -> _Done:
        loop = asyncio.get_running_loop()
        job = Job(inputs, loop.create_future())
        waiting = self._waiting.setdefault(node, [])
        waiting.append(job)
        if len(waiting) == 1 and node not in self._running:
            # Two turns of the loop let all calls that became ready together go as one batch.
            loop.call_soon(loop.call_soon, self._start, node)
        return _Done(*await job.future)

    def _start(self, node: Node[Any]) -> None:
        """Give a lane all the calls of a node that wait; what comes later waits for their end."""
        jobs = [job for job in self._waiting.pop(node, []) if not job.future.done()]
        if not jobs:
            return
        assert node.lane is not None  # noqa: S101  for the type checker: only such calls wait
        lane = self._lanes.get(node.lane)
        if lane is None:
            lane = self._lanes[node.lane] = Lane(node.lane)
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        self._running[node] = jobs, ended

        post = partial(_post, loop)

        def finished() -> None:
            del self._running[node]
            ended.set_result(None)
            if self._waiting.get(node):
                self._start(node)

        def steps() -> Iterator[None]:
            try:
                yield from (run_batch if node.batch else _one_by_one)(node, jobs, post)
            finally:
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(finished)

        lane.add(steps())


def _post(
    loop: asyncio.AbstractEventLoop,
    job: Job,
    value: Any,
    error: BaseException | None,
    seconds: float,
) -> None:
    with suppress(RuntimeError):  # the engine was closed in the meantime
        loop.call_soon_threadsafe(_deliver, job, value, error, seconds)


def _deliver(job: Job, value: Any, error: BaseException | None, seconds: float) -> None:
    if not job.future.done():
        job.future.set_result((value, error, seconds))


def _here(node: Node[Any], inputs: dict[str, Any]) -> _Done:
    """Run a function on this thread; how it fails is part of the result."""
    start = time.perf_counter()
    value: Any = None
    error: BaseException | None = None
    try:
        value = node.signature.call(node.function, inputs)
    except BaseException as raised:  # noqa: BLE001  it belongs to the call
        error = raised
    return _Done(value, error, time.perf_counter() - start)


async def _on_loop(node: Node[Any], inputs: dict[str, Any]) -> _Done:
    process = os.getpid()
    start = time.perf_counter()
    value: Any = None
    error: BaseException | None = None
    try:
        value = await node.signature.call(node.function, inputs)
    except asyncio.CancelledError as raised:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        error = raised  # of something inside the step, and not of the step
    except BaseException as raised:  # noqa: BLE001  it belongs to the call
        error = raised
    end_child(process)
    return _Done(value, error, time.perf_counter() - start)


def _one_by_one(node: Node[Any], jobs: list[Job], post: Post) -> Iterator[None]:
    for job in jobs:
        if not job.future.done():
            post(job, *_here(node, job.inputs))
        yield


def to_record(node: Node[Any], recipe: bytes, value: Any, seconds: float) -> Record:
    """Return the record of a result.

    Raises:
        EncodingError: the value, or what is told of it, cannot be stored.
    """
    computed = value if isinstance(value, Computed) else Computed(value)
    payload = node.codec.dump(computed.value)
    try:
        record = Record(
            recipe=recipe,
            payload=payload,
            digest=payload_digest(payload),
            created=time.time(),
            seconds=seconds,
            cost=computed.cost,
            notes=write_notes({**node.fingerprints, **computed.provenance}),
        )
        if computed.cost:
            unseal(seal(record))
    except (Damaged, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EncodingError(
            f"{node.name}: its cost or provenance is not plain data: {error}"
        ) from None
    return record
