"""Pictures of a graph: which calls it has, and what a run would do with each.

The text of a `Graph` is Mermaid, which GitHub, GitLab and many editors draw. In a notebook it is an
SVG, drawn here without a script or a network. The same graph and the same cache give the same text.
"""

import html
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from cachedeval.engine.node import Call, describe, substitute
from cachedeval.engine.resolve import Resolution, graph_of

__all__ = ["Graph", "GraphNode", "State", "graph_from"]

_MOST = 60
"""Graphs with more calls are drawn by node: one box for all its calls of one state."""

_NAME = 40
_INPUTS = 60

State = Literal["hit", "miss", "waits", "failed"]

_COLOURS: dict[State, tuple[str, str]] = {
    "hit": ("#d3f0d8", "#2f7d3b"),
    "miss": ("#ffe3c2", "#b5651d"),
    "waits": ("#e8e8e8", "#666666"),
    "failed": ("#f8d0d0", "#a02020"),
}
"""Fill and border of each state; `docs/engine.md` says what the states mean."""


class GraphNode(NamedTuple):
    """A box of a picture: one call, or all calls of one node and state.

    Attributes:
        node: the node's name.
        state: `hit`, the result is in the cache; `miss`, a run will compute it; `waits`, a run will
            compute it unless the cache has a result for inputs that are not known yet; `failed`,
            the call or one before it has no key.
        inputs: the inputs as short text, without secrets; empty where the box is of several calls.
        calls: how many calls there are in the box.
        depth: the column in which the box is drawn.

    Example:
        >>> from cachedeval import Engine, node
        >>> @node(version="1", name="double")
        ... def double(x: int) -> int:
        ...     return 2 * x
        >>> with Engine() as engine:
        ...     engine.graph(double(1)).nodes
        [GraphNode(node='double', state='miss', inputs='x=1', calls=1, depth=0)]
    """

    node: str
    state: State
    inputs: str
    calls: int
    depth: int


class Graph:
    """A picture of a graph. `Engine.graph` makes one.

    Attributes:
        nodes: the boxes.
        edges: pairs of indices into `nodes`, from an input to the call that takes it.

    Example:
        >>> from cachedeval import Engine, node
        >>> @node(version="1", name="double")
        ... def double(x: int) -> int:
        ...     return 2 * x
        >>> with Engine() as engine:
        ...     engine.run(double(1))
        ...     print(engine.graph(double(double(1))))
        2
        flowchart LR
            n0["double<br>x=1"]:::hit
            n1["double<br>x=[double]"]:::miss
            n0 --> n1
            classDef hit fill:#d3f0d8,stroke:#2f7d3b,color:#000
            classDef miss fill:#ffe3c2,stroke:#b5651d,color:#000
    """

    __slots__ = ("edges", "nodes")

    def __init__(self, nodes: list[GraphNode], edges: list[tuple[int, int]]) -> None:
        self.nodes = nodes
        self.edges = edges

    def __repr__(self) -> str:
        states = [box.state for box in self.nodes for _ in range(box.calls)]
        counts = [f"{states.count(each)} {each}" for each in _COLOURS if each in states]
        return f"<Graph: {', '.join(counts) or 'empty'}>"

    def __str__(self) -> str:
        lines = ["flowchart LR"]
        for number, box in enumerate(self.nodes):
            label = "<br>".join(_mermaid(line) for line in _lines(box))
            lines.append(f'    n{number}["{label}"]:::{box.state}')
        lines += [f"    n{start} --> n{end}" for start, end in self.edges]
        used = {box.state for box in self.nodes}
        lines += [
            f"    classDef {state} fill:{fill},stroke:{border},color:#000"
            for state, (fill, border) in _COLOURS.items()
            if state in used
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the picture as an SVG, for notebooks."""
        return _svg(self)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Return the picture in the forms that notebooks may choose from."""
        return {"text/html": self._repr_html_(), "text/plain": str(self)}


def graph_from(roots: Iterable[Call[Any]], known: Resolution) -> Graph:
    """Return the picture of a graph.

    Args:
        roots: the calls at its end.
        known: the same graph, with the outcomes that the cache provides.
    """
    calls = [call for level in graph_of(roots) for call in level]
    boxes: dict[Any, int] = {}
    nodes: list[GraphNode] = []
    place: dict[Call[Any], int] = {}
    states: dict[Call[Any], State] = {}
    for call in calls:
        states[call] = _state(call, known, states)
    for call, same in _boxes(calls, known, states):
        if same not in boxes:
            boxes[same] = len(nodes)
            one = len(calls) <= _MOST
            inputs = _inputs(call) if one else ""
            nodes.append(GraphNode(call.node.name, states[call], inputs, 0, call.depth))
        number = place[call] = boxes[same]
        box = nodes[number]
        nodes[number] = box._replace(calls=box.calls + 1, depth=max(box.depth, call.depth))
    edges = dict.fromkeys(
        (place[upstream], place[call]) for call in calls for upstream in call.upstream
    )
    return Graph(nodes, [edge for edge in edges if edge[0] != edge[1]])


def _boxes(
    calls: list[Call[Any]], known: Resolution, states: dict[Call[Any], State]
) -> Iterable[tuple[Call[Any], Any]]:
    """Yield each call with what it shares with the others of its box."""
    for call in calls:
        if len(calls) > _MOST:
            yield call, (call.node.name, states[call])
            continue
        outcome = known.outcomes.get(call)
        keyed = known.keys.get(call)
        if keyed is not None:
            yield call, keyed[1]
        else:  # equal calls have one result
            yield call, call if outcome is None or not outcome.record else outcome.record.recipe


def _state(call: Call[Any], known: Resolution, states: dict[Call[Any], State]) -> State:
    outcome = known.outcomes.get(call)
    if outcome is not None:
        return "failed" if outcome.record is None else "hit"
    if any(states[upstream] == "failed" for upstream in call.upstream):
        return "failed"
    return "miss" if call in known.keys else "waits"


class _Reference:
    """Stands for a call among the inputs of another, in a text."""

    def __init__(self, call: Call[Any]) -> None:
        self.name = _last(call.node.name)

    def __repr__(self) -> str:
        return f"[{self.name}]"


def _inputs(call: Call[Any]) -> str:
    """Return the inputs of a call as text; other calls by the last part of their names."""
    if call.upstream:
        inputs = {
            name: substitute(value, _Reference, lambda resource: resource)
            for name, value in call.inputs.items()
        }
        call = Call(call.node, inputs)
    text = describe(call).removeprefix(call.node.name)[1:-1]
    return text if len(text) <= _INPUTS else text[: _INPUTS - 1] + "…"


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _lines(box: GraphNode) -> list[str]:
    """Return the label of a box, line by line."""
    title = _last(box.node)[:_NAME]
    if box.calls > 1:
        title += f" ({box.calls:,} calls)"
    return [title, box.inputs] if box.inputs else [title]


def _mermaid(text: str) -> str:
    """Return a text for a Mermaid label in quotes: entities for all that has a meaning there."""
    return "".join(
        char
        if char.isalnum() or char in " .,=_-:/()[]{}'…"
        else f"#{ord(char)};"
        if char.isprintable()
        else "#65533;"
        for char in text
    )


# The picture in a notebook.

_BOX = (230, 42)
_GAP = (60, 14)
_MARGIN = 8
_SVG_INPUTS = 34


def _svg(graph: Graph) -> str:
    columns: dict[int, int] = {}
    corners: list[tuple[int, int]] = []
    for box in graph.nodes:
        row = columns.get(box.depth, 0)
        columns[box.depth] = row + 1
        corners.append(
            (_MARGIN + box.depth * (_BOX[0] + _GAP[0]), _MARGIN + row * (_BOX[1] + _GAP[1]))
        )
    width = max((x for x, _ in corners), default=0) + _BOX[0] + _MARGIN
    height = max((y for _, y in corners), default=0) + _BOX[1] + _MARGIN
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    font = 'font-family="sans-serif" font-size="12"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font} role="img">']
    for start, end in graph.edges:
        x1, y1 = corners[start][0] + _BOX[0], corners[start][1] + _BOX[1] // 2
        x2, y2 = corners[end][0], corners[end][1] + _BOX[1] // 2
        middle = (x1 + x2) // 2
        parts.append(
            f'<path d="M{x1} {y1} C{middle} {y1} {middle} {y2} {x2} {y2}" fill="none" stroke="#888"/>'
        )
    for box, (x, y) in zip(graph.nodes, corners, strict=True):
        fill, border = _COLOURS[box.state]
        title = html.escape(f"{_printable(box.node)}: {box.state} {box.inputs}".rstrip())
        parts.append(
            f'<g><title>{title}</title><rect x="{x}" y="{y}" width="{_BOX[0]}" height="{_BOX[1]}" '
            f'rx="5" fill="{fill}" stroke="{border}"/>'
        )
        for number, line in enumerate(_lines(box)):
            shown = _printable(line)
            if len(shown) > _SVG_INPUTS:
                shown = shown[: _SVG_INPUTS - 1] + "…"
            weight = ' font-weight="bold"' if number == 0 else ""
            parts.append(
                f'<text x="{x + 8}" y="{y + 17 + 16 * number}" fill="#000"{weight}>'
                f"{html.escape(shown)}</text>"
            )
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
