"""Running a step: from the inputs of a call, through the node's function, to a record.

A step runs on the thread or event loop of its executor, and sets its result or error in its
in-flight call. A batched step takes many calls and posts each result as soon as it is known.
"""

# Lazy imports: few steps have limiters, time limits or retries, and few inputs are mutated.

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from msgspec.structs import replace

from cachedeval.engine.errors import CachedevalError, EncodingError, InputError
from cachedeval.engine.expansion import (
    Expanded,
    calls_in,
    expanded,
    holds_calls,
    output_of,
    with_output,
)
from cachedeval.engine.inflight import InFlight, current
from cachedeval.engine.keys import CLOSURE, read_recipe
from cachedeval.engine.node import Computed, Node, describe, recipe_of, substitute
from cachedeval.engine.process import importing
from cachedeval.engine.record import CorruptRecord, Record, pack, unpack, write_notes
from cachedeval.engine.resource import ResourcePool
from cachedeval.engine.show import add_note
from cachedeval.engine.tracing import end_span, record_span, start_span
from cachedeval.engine.values import Unstored, digest_unstored, payload_digest

__all__ = ["complete", "inputs_of", "run_batch", "run_in_context", "to_record"]


def inputs_of(flight: InFlight, pool: ResourcePool) -> dict[str, Any]:
    """Return the arguments of the function: values instead of calls, handles instead of resources.

    Raises:
        InputError: a closure value of the function has changed since the call was made.
        EncodingError: values of the node's declared type cannot be stored.
    """
    call = flight.call
    node = call.node
    _ = node.codec  # raises before the step runs, not after
    name = node.changed_closure(call.inputs)
    if name is not None:
        raise InputError(
            f"{node.name} reads {name!r} from its closure or module, which has changed since the "
            "call was made: pass it as an argument"
        )
    if call.plain and call.frozen and CLOSURE not in call.inputs:
        return call.inputs
    return {
        name: substitute(value, lambda c: flight.outcomes[c].copy(), pool.handle)
        for name, value in call.inputs.items()
        if name != CLOSURE
    }


def run_in_context(flight: InFlight, pool: ResourcePool) -> None:
    """Run a synchronous step on this thread, in the context variables of its run."""
    flight.context.run(_run_here, flight, pool)


def _run_here(flight: InFlight, pool: ResourcePool) -> None:
    """Run a synchronous step on this thread."""
    current.set(flight)
    flight.thread = threading.get_ident()
    span = start_span(flight)
    node = flight.call.node
    value: Any = None
    error: BaseException | None = None
    start = time.perf_counter()
    try:
        if node.is_guarded:
            with importing():
                from cachedeval.engine.attempts import run_attempts

            value, seconds = run_attempts(flight, partial(inputs_of, flight, pool))
            start = time.perf_counter() - seconds
        else:
            value = node.signature.call(node.function, inputs_of(flight, pool))
    except BaseException as raised:  # noqa: BLE001  it is the error of the call
        error = raised
    complete(flight, value, error, time.perf_counter() - start, _run_calls)
    if span is not None:
        end_span(span, flight)


def _refuse_calls(flight: InFlight, _: Any) -> Any:
    raise EncodingError(
        f"{flight.call.node.name} is batched and returned calls: let another step return them"
    )


def _run_calls(flight: InFlight, output: Any) -> Any:
    """Return an output that holds calls with their values; runs them on this thread."""
    calls = list(calls_in(output))
    return expanded(output, calls, flight.engine.run(calls, mode=flight.mode))


def complete(
    flight: InFlight,
    value: Any,
    error: BaseException | None,
    seconds: float,
    expand: "Callable[[InFlight, Any], Any]" = _refuse_calls,
) -> None:
    """Set the record or the error of a call whose step has ended.

    Args:
        flight: the call.
        value: what the function returned, unless there is an error.
        error: what it raised.
        seconds: how long it took.
        expand: runs the calls that an output holds.
    """
    node = flight.call.node
    if error is None:
        try:
            recipe = flight.recipe
            if isinstance(value, Computed) and value.inputs:
                recipe = _replaced(node, recipe, value.inputs)
            flight.record = to_record(node, recipe, value, seconds)
            if isinstance(flight.record.payload, Unstored) and flight.record.payload.calls:
                flight.record = None
                value = with_output(value, expand(flight, output_of(value)))
                flight.record = to_record(node, recipe, value, seconds)
            if flight.mode != "off" and not (flight.call.frozen and node.is_closed):
                flight.mutated = _changed_input(flight)
        except BaseException as raised:  # noqa: BLE001  the value's own code may raise anything
            error = raised
    if error is None:
        return
    flight.record = None
    add_note(error, describe(flight.call))
    if not isinstance(error, Exception) or isinstance(error, StopIteration):
        # Raised in the caller, it would end the program, an event loop or a generator.
        text = f"{node.name} raised {type(error).__name__} {error}".rstrip()
        wrapped = RuntimeError(text)
        wrapped.__cause__ = error
        error = wrapped
        add_note(error, describe(flight.call))
    flight.error = error


def _replaced(node: Node[Any], recipe: bytes, inputs: dict[str, Any]) -> bytes:
    """Return the recipe of the same call with other values for some of its inputs.

    Raises:
        EncodingError: there is no such input, or a value has no canonical encoding.
    """
    given = read_recipe(recipe).inputs
    if unknown := inputs.keys() - given.keys():
        raise EncodingError(
            f"{node.name}: its result is for an input that it does not have: {min(unknown)}"
        )
    return node.recipe({**given, **inputs})


def to_record(node: Node[Any], recipe: bytes, value: Any, seconds: float) -> Record:
    """Return the record of a result.

    Args:
        node: the step.
        recipe: the recipe of the call.
        value: what the function returned: the output, or a `Computed` with it.
        seconds: how long the step took.

    Returns:
        The record. If the output cannot be stored, the payload is `Unstored`.

    Raises:
        EncodingError: the cost or the provenance cannot be stored.
    """
    computed = value if isinstance(value, Computed) else None
    output = value if computed is None else computed.value
    payload: bytes
    is_expanded = type(output) is Expanded
    if is_expanded:
        output = output.value
    try:
        payload = node.codec.dump(output)
        digest = payload_digest(payload)
        if is_expanded:
            payload = Unstored(output, "")
    except EncodingError as error:
        digest = "" if (calls := holds_calls(output)) else digest_unstored(output)
        payload = Unstored(output, str(error), calls=calls)
    if computed is None or not (computed.cost or computed.provenance):
        return Record(recipe, payload, digest, time.time(), seconds, {}, node.notes)
    try:
        notes = write_notes(node.provenance(computed.provenance))
        record = Record(recipe, payload, digest, time.time(), seconds, computed.cost, notes)
        if computed.cost:
            unpack(pack(replace(record, payload=b"")))
    except (CorruptRecord, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EncodingError(
            f"{node.name}: its cost or provenance is not plain data: {error}; pass numbers as cost, "
            "and strings, numbers, lists and dicts as provenance"
        ) from None
    return record


def _changed_input(flight: InFlight) -> str | None:
    """Return the path of an input that has changed since the recipe was made, or None."""
    call = flight.call
    outside = call.node.changed_closure(call.inputs)
    if outside is not None:
        return outside
    try:
        now = recipe_of(call, flight.digest)
    except EncodingError:
        return "an input"
    if now == flight.recipe:
        return None
    from cachedeval.engine.difference import differences

    then = read_recipe(flight.recipe).inputs
    where = next(differences(then, read_recipe(now).inputs)).where
    return where.removeprefix(f"{CLOSURE} / ")


_END: Any = object()

Post = Callable[[InFlight], None]
"""Called with each call of a batch that has its result or its error."""


def run_batch(
    node: Node[Any], flights: list[InFlight], pool: ResourcePool, post: Post
) -> Iterator[None]:
    """Run a batched node, one turn per iteration; posts each call once."""

    def end(flight: InFlight, value: Any, error: BaseException | None, seconds: float) -> None:
        complete(flight, value, error, seconds)
        record_span(flight, seconds)
        post(flight)

    items, good = [], []
    for flight in flights:
        try:
            assert node.signature.item is not None  # noqa: S101  for the type checker
            items.append(node.signature.item(**inputs_of(flight, pool)))
            good.append(flight)
        except Exception as error:  # noqa: BLE001  it is the error of this call alone
            end(flight, None, error, 0.0)
    if not good:
        return
    missing = dict(enumerate(good))
    failure: BaseException
    try:
        yield from _turns(node, items, missing, end)
        failure = RuntimeError(f"{node.name} ended without a result for one of its calls")
    except GeneratorExit:
        failure = CachedevalError(f"{node.name} was stopped: the engine was closed")
        raise
    except BaseException as error:  # noqa: BLE001  it is the error of all calls without a result
        failure = error
    finally:
        for flight in missing.values():
            end(flight, None, failure, 0.0)


def _turns(
    node: Node[Any],
    items: list[Any],
    missing: dict[int, InFlight],
    end: Callable[[InFlight, Any, BaseException | None, float], None],
) -> Iterator[None]:
    last = time.perf_counter()
    produced = node.function(items)
    try:
        while (result := _next(node, produced)) is not _END:
            if result is None and not missing:
                return  # all results are known; the generator may hold a resource
            if result is not None:
                index, value = _read(node, result, missing, len(items))
                now = time.perf_counter()
                failed = isinstance(value, BaseException)
                # Each call gets the time since the previous result, so that the sum over the
                # calls is the time of the batch.
                flight = missing.pop(index)
                end(flight, None if failed else value, value if failed else None, now - last)
                last = now
            if missing and not any(flight.wanted for flight in missing.values()):
                for flight in missing.values():
                    flight.cancelled = True
                return
            yield
    finally:
        produced.close()


def _next(node: Node[Any], produced: Iterator[Any]) -> Any:
    try:
        return next(produced, _END)
    except GeneratorExit as error:  # unchanged, it would mean that the executor is closed
        raise RuntimeError(f"{node.name} raised GeneratorExit {error}") from error


def _read(
    node: Node[Any], result: Any, missing: dict[int, InFlight], count: int
) -> tuple[int, Any]:
    if not isinstance(result, tuple) or len(result) != 2 or type(result[0]) is not int:  # noqa: PLR2004
        raise TypeError(
            f"{node.name} yielded a {type(result).__name__}: a batched node yields (index, value), "
            "or None to give other steps a turn"
        )
    index, value = result
    if not 0 <= index < count:
        raise IndexError(f"{node.name} yielded a result for call {index}, of {count}")
    if index not in missing:
        raise ValueError(f"{node.name} yielded a second result for call {index}")
    return index, value
