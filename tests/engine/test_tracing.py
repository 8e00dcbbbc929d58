"""Spans of OpenTelemetry, as its own SDK records them."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest

from cachedeval import Computed, Engine, node
from cachedeval.engine import tracing

trace = pytest.importorskip("opentelemetry.trace")
pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: E402
    InMemorySpanExporter,
)
from opentelemetry.trace import StatusCode  # noqa: E402


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)  # it may be set once in a process
    return exporter


@node(version="1", name="parse")
def parse(text: str) -> Computed[int]:
    with trace.get_tracer("mine").start_as_current_span("inside"):
        return Computed(int(text), cost={"letters": len(text)})


@node(version="1", name="later")
async def later(number: int) -> int:
    with trace.get_tracer("mine").start_as_current_span("inside later"):
        return number


class Item(msgspec.Struct):
    number: int


@node(version="1", name="many", batch=True)
def many(batch: Sequence[Item]) -> Iterator[tuple[int, int | Exception]]:
    for index, item in enumerate(batch):
        yield index, ValueError("odd") if item.number % 2 else item.number


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_each_computed_step_has_a_span_below_the_caller_s(exporter: InMemorySpanExporter) -> None:
    with Engine() as engine, trace.get_tracer("mine").start_as_current_span("caller"):
        assert engine.run(later(parse("12"))) == 12
    spans = by_name(exporter)
    parents = {
        name: None if span.parent is None else span.parent.span_id for name, span in spans.items()
    }

    def identity(name: str) -> int:
        context = spans[name].get_span_context()
        assert context is not None
        return context.span_id

    assert parents == {
        "caller": None,
        "parse": identity("caller"),
        "inside": identity("parse"),
        "later": identity("caller"),
        "inside later": identity("later"),
    }
    attributes = dict(spans["parse"].attributes or {})
    assert len(str(attributes.pop("cachedeval.key"))) == 32
    assert attributes == {
        "cachedeval.node": "parse",
        "cachedeval.version": "1",
        "cachedeval.cost.letters": 2.0,
    }


def test_a_hit_has_no_span(exporter: InMemorySpanExporter) -> None:
    with Engine() as engine:
        engine.run(parse("1"))
        exporter.clear()
        engine.run([parse("1"), parse("1")])
    assert not exporter.get_finished_spans()


@pytest.mark.parametrize("step", [parse, many])
def test_a_failure_is_in_the_span(exporter: InMemorySpanExporter, step: Any) -> None:
    with Engine() as engine:
        engine.settle(step("x") if step is parse else step(number=1))
    span = by_name(exporter)[step.name]
    assert span.status.status_code is StatusCode.ERROR
    assert (span.status.description or "").startswith("ValueError: ")
    assert [event.name for event in span.events] == ["exception"]


def test_each_call_of_a_batch_has_a_span(exporter: InMemorySpanExporter) -> None:
    with Engine() as engine, trace.get_tracer("mine").start_as_current_span("caller") as caller:
        engine.run([many(number=n) for n in (2, 4, 6)])
    spans = [span for span in exporter.get_finished_spans() if span.name == "many"]
    assert len(spans) == 3
    for span in spans:
        assert span.parent is not None
        assert span.parent.span_id == caller.get_span_context().span_id
        assert (span.start_time or 0) <= (span.end_time or 0)


def test_tracing_that_fails_does_not_fail_a_step(
    exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError

    with Engine() as engine:
        monkeypatch.setattr(tracing, "_start", broken)
        assert engine.run([parse("1"), many(number=2), later(3)]) == [1, 2, 3]
        monkeypatch.undo()
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
        assert engine.run([parse("2"), many(number=4), later(5)]) == [2, 4, 5]
    assert not [span for span in exporter.get_finished_spans() if "inside" not in span.name]


@pytest.mark.slow
def test_a_program_without_opentelemetry_does_not_import_it() -> None:
    program = (
        "import sys; from cachedeval import Engine, node\n"
        "@node(version='1')\n"
        "def f(x): return x\n"
        "with Engine() as e: e.run([f(1), f(2)])\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
