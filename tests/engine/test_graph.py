import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachedeval import Call, Engine, node
from cachedeval.engine.graph import Graph


@node(version="1", name="pipe.words")
def words(text: str) -> list[str]:
    return text.split()


@node(version="1", name="pipe.count")
def count(parts: Sequence[str], *, least: int = 0, api_key: str = "") -> int:
    del api_key
    return sum(len(part) >= least for part in parts)


@node(version="1", name="pipe.total")
def total(numbers: Sequence[int]) -> int:
    return sum(numbers)


def boxes(graph: Graph) -> list[tuple[str, str, int]]:
    return [(box.node.rpartition(".")[2], box.state, box.calls) for box in graph.nodes]


def test_a_graph_shows_what_a_run_would_do() -> None:
    with Engine() as engine:
        engine.run(count(words("a b"), least=1))
        graph = engine.graph(total([count(words("a b"), least=1), count(words("c"), least=2)]))
        assert engine.stats["pipe.words"].calls == 1
    assert boxes(graph) == [
        ("words", "hit", 1),
        ("words", "miss", 1),
        ("count", "hit", 1),
        ("count", "waits", 1),
        ("total", "waits", 1),
    ]
    assert graph.edges == [(0, 2), (1, 3), (2, 4), (3, 4)]
    assert repr(graph) == "<Graph: 2 hit, 1 miss, 2 waits>"
    assert str(graph).splitlines()[:4] == [
        "flowchart LR",
        """    n0["words<br>text='a b'"]:::hit""",
        """    n1["words<br>text='c'"]:::miss""",
        '    n2["count<br>parts=[words], least=1, api_key=#42;#42;#42;"]:::hit',
    ]


def test_equal_calls_are_one_box_and_failed_ones_are_shown() -> None:
    with Engine() as engine:
        graph = engine.graph([words("a"), words("a"), count(words(object()))])  # type: ignore[arg-type]
    assert boxes(graph) == [("words", "miss", 2), ("words", "failed", 1), ("count", "failed", 1)]
    assert "words (2 calls)" in str(graph)


def test_a_large_graph_is_drawn_by_node() -> None:
    with Engine() as engine:
        engine.run([words(f"{n}") for n in range(40)])
        graph = engine.graph(total([count(words(f"{n}")) for n in range(100)]))
    assert boxes(graph) == [
        ("words", "hit", 40),
        ("words", "miss", 60),
        ("count", "miss", 40),
        ("count", "waits", 60),
        ("total", "waits", 1),
    ]
    assert graph.edges == [(0, 2), (1, 3), (2, 4), (3, 4)]


def test_a_graph_is_the_same_each_time() -> None:
    def draw() -> tuple[str, str]:
        with Engine() as engine:
            engine.run(words("b"))
            graph = engine.graph([total([count(words(t)) for t in "abc"]), words("b")])
            return str(graph), graph._repr_html_()

    assert draw() == draw()


def test_a_graph_without_calls_is_empty() -> None:
    with Engine() as engine:
        graph = engine.graph([])
    assert (repr(graph), str(graph)) == ("<Graph: empty>", "flowchart LR")
    parsed(graph._repr_html_())


def test_what_is_no_call_is_refused() -> None:
    with Engine() as engine, pytest.raises(TypeError, match="is no call"):
        engine.graph([1])  # type: ignore[list-item]


def named(name: str, text: str) -> Call[Any]:
    @node(version="1", name=name)
    def step(text: str) -> str:
        return text

    return step(text)


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314  our own text


NASTY = st.text(min_size=1, max_size=30) | st.sampled_from(
    [
        '"];x',
        "<script>alert(1)</script>",
        "a\nend",
        "`#;&quot;",
        "\x1b]0;x\x07",
        "%%{init}%%",
        "\u202e",
    ]
)


@given(NASTY, NASTY)
def test_names_and_inputs_are_cleaned(name: str, text: str) -> None:
    with Engine() as engine:
        graph = engine.graph(named(name, text))
    first, box, colours = str(graph).splitlines()
    assert first == "flowchart LR"
    assert re.fullmatch(r' {4}n0\["(?:[^"<>;#`&%\\]|#\d+;|<br>)*"\]:::miss', box)
    assert box.count("<br>") == 1
    assert box.isprintable()
    assert colours.startswith("    classDef miss ")
    svg = graph._repr_html_()
    picture = parsed(svg)
    assert {part.tag.partition("}")[2] for part in picture.iter()} <= {
        *["svg", "g", "title", "rect", "text", "path"]
    }
    assert svg.isprintable()


def test_a_notebook_gets_a_picture() -> None:
    with Engine() as engine:
        graph = engine.graph(count(words("a")))
    bundle = graph._repr_mimebundle_(include=None, exclude=None)
    picture = parsed(bundle["text/html"])
    assert len(picture.findall("{*}g")) == 2
    assert len(picture.findall("{*}path")) == 1
    assert bundle["text/plain"] == str(graph)
