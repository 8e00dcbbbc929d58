"""Steps that return calls: a graph that is known only when it runs.

The calls run as a run of the step's own, and are cached in their own right. Their values take their
places in the output. The output itself is never stored: its key would name neither the nodes of the
calls nor their versions, so a changed node would go unnoticed. So the step runs again in each run, and
its calls are hits.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from cachedeval.engine.node import Call, Computed, substitute

__all__ = ["Expanded", "calls_in", "expanded", "holds_calls", "output_of", "with_output"]

_DEPTH = 50
"""How deep calls may be nested in lists and dicts."""


class Expanded(NamedTuple):
    """An output in which values have taken the places of calls."""

    value: Any


def holds_calls(value: Any) -> bool:
    """Return whether an output holds calls."""
    return next(calls_in(value), None) is not None


def calls_in(value: Any, depth: int = _DEPTH) -> Iterator[Call[Any]]:
    """Yield the calls in an output: itself, or those in lists, tuples and values of dicts."""
    kind = type(value)
    if kind is Call:
        yield value
    elif depth and kind is dict:
        for member in value.values():
            yield from calls_in(member, depth - 1)
    elif depth and (kind is list or kind is tuple):
        for member in value:
            yield from calls_in(member, depth - 1)


def expanded(value: Any, calls: list[Call[Any]], values: list[Any]) -> Expanded:
    """Return an output with the values of its calls.

    Args:
        value: the output.
        calls: its calls, as `calls_in` yields them.
        values: their values, in the same order.
    """
    found = dict(zip(calls, values, strict=True))
    keep: Callable[[Any], Any] = lambda resource: resource  # noqa: E731
    return Expanded(substitute(value, found.__getitem__, keep))


def output_of(value: Any) -> Any:
    """Return the output in what a step returned: itself, or that of a `Computed`."""
    return value.value if isinstance(value, Computed) else value


def with_output(value: Any, output: Any) -> Any:
    """Return what a step returned with another output, and the same cost and provenance."""
    if not isinstance(value, Computed):
        return output
    return Computed(output, cost=value.cost, provenance=value.provenance, inputs=value.inputs)
