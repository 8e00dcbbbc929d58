"""Running a batched node: many calls in, each result handed on as soon as it is there."""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from cachedeval.engine.node import Node

if TYPE_CHECKING:
    import asyncio

__all__ = ["Job", "Post", "run_batch"]


class Job(NamedTuple):
    """A call that waits for its turn on a lane."""

    inputs: dict[str, Any]
    future: "asyncio.Future[tuple[Any, BaseException | None, float]]"
    """Gets value, error and seconds; done before that if nobody wants them any more."""


_END: Any = object()

Post = Callable[[Job, Any, BaseException | None, float], None]
"""Hands on a job's value or error, and the seconds that it took."""


def run_batch(node: Node[Any], jobs: list[Job], post: Post) -> Iterator[None]:
    """Run a batched node, a turn at a time; each job is posted once, with a value or an error."""
    items, good = [], []
    for job in jobs:
        try:
            items.append(_item(node)(**job.inputs))
            good.append(job)
        except Exception as error:  # noqa: BLE001  it belongs to this call, not to its neighbours
            post(job, None, error, 0.0)
    if not good:
        return
    missing = dict(enumerate(good))
    failure: BaseException
    try:
        yield from _turns(node, items, missing, post)
        failure = RuntimeError(f"{node.name} ended without a result for one of its calls")
    except GeneratorExit:
        failure = RuntimeError(f"{node.name} was stopped: the engine was closed")
        raise
    except BaseException as error:  # noqa: BLE001  it belongs to the calls without a result
        failure = error
    finally:
        for job in missing.values():
            post(job, None, failure, 0.0)


def _turns(
    node: Node[Any], items: list[Any], missing: dict[int, Job], post: Post
) -> Iterator[None]:
    last = time.perf_counter()
    produced = node.function(items)
    try:
        while (result := _next(node, produced)) is not _END:
            if result is None and not missing:
                return  # it has nothing more to say, and holds what others may want
            if result is not None:
                index, value = _read(node, result, missing, len(items))
                now = time.perf_counter()
                failed = isinstance(value, BaseException)
                # The batch's time is shared out in the order in which results come, so that the
                # sum over its calls is what the batch took.
                post(
                    missing.pop(index),
                    None if failed else value,
                    value if failed else None,
                    now - last,
                )
                last = now
            if missing and all(job.future.done() for job in missing.values()):
                return  # nobody wants the rest any more
            yield
    finally:
        produced.close()


def _next(node: Node[Any], produced: Iterator[Any]) -> Any:
    try:
        return next(produced, _END)
    except GeneratorExit as error:  # as it is, it would say that the lane is closed
        raise RuntimeError(f"{node.name} raised GeneratorExit {error}") from error


def _item(node: Node[Any]) -> Callable[..., Any]:
    assert node.signature.item is not None  # noqa: S101  for the type checker: it is batched
    return node.signature.item


def _read(node: Node[Any], result: Any, missing: dict[int, Job], count: int) -> tuple[int, Any]:
    if not isinstance(result, tuple) or len(result) != 2 or type(result[0]) is not int:  # noqa: PLR2004
        raise TypeError(
            f"{node.name} yielded a {type(result).__name__}: a batched node yields (index, value), "
            "or None to let others have a turn"
        )
    index, value = result
    if not 0 <= index < count:
        raise IndexError(f"{node.name} yielded a result for call {index}, of {count}")
    if index not in missing:
        raise ValueError(f"{node.name} yielded a second result for call {index}")
    return index, value
