"""OpenTelemetry: a span for each step that is computed, if the program has set OpenTelemetry up.

A program that sets a tracer provider has imported `opentelemetry.trace`, so nothing is imported here,
and a program without it pays for one look into `sys.modules` a miss. Hits have no span. A span is
named by its node and has no inputs, which may be long or confidential. Spans that a step starts
itself are children of its span, and the span's parent is the one that was current when the run began.
"""

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cachedeval.engine.show import show_text

if TYPE_CHECKING:
    from cachedeval.engine.inflight import InFlight

__all__ = ["end_span", "record_span", "start_span"]

_WIDTH = 200
_NS = 1_000_000_000


def start_span(flight: "InFlight") -> Any:
    """Start a span for a step and make it the current one; call it in the step's own context.

    Returns:
        The span; None without OpenTelemetry.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    with suppress(Exception):  # tracing that fails is no reason for a step to fail
        span = _start(trace, flight)
        if span.is_recording():
            # Never detached: the context belongs to this step alone.
            from opentelemetry import context

            context.attach(trace.set_span_in_context(span))
            return span
    return None


def end_span(span: Any, flight: "InFlight") -> None:
    """End the span of a step that has its result or its error."""
    with suppress(Exception):
        _finish(span, flight)
        span.end()


def record_span(flight: "InFlight", seconds: float) -> None:
    """Add the span of a call of a batch, which has just ended."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return
    with suppress(Exception):
        now = time.time_ns()
        span = flight.context.run(_start, trace, flight, start_time=now - int(seconds * _NS))
        if span.is_recording():
            _finish(span, flight)
        span.end(end_time=now)


def _start(trace: Any, flight: "InFlight", **when: Any) -> Any:
    node = flight.call.node
    attributes = {
        "cachedeval.node": node.name,
        "cachedeval.version": node.version or "by source",
        "cachedeval.key": flight.key.hex(),
    }
    return trace.get_tracer("cachedeval").start_span(node.name, attributes=attributes, **when)


def _finish(span: Any, flight: "InFlight") -> None:
    if flight.cancelled:
        span.set_attribute("cachedeval.cancelled", True)
    elif flight.error is not None:
        status = sys.modules["opentelemetry.trace"].StatusCode.ERROR
        kind = type(flight.error).__name__
        span.record_exception(flight.error)
        span.set_status(status, f"{kind}: {show_text(str(flight.error), _WIDTH)}")
    elif flight.record is not None:
        for unit, amount in flight.record.cost.items():
            span.set_attribute(f"cachedeval.cost.{unit}", amount)
