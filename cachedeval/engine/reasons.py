"""Explanations of many calls, told together: what misses for the same reason is one reason."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from cachedeval.engine.difference import Difference
from cachedeval.engine.explain import Explanation

__all__ = ["Changed", "Reason", "reasons_of"]


_DIGEST = re.compile(r"(?<=:)([0-9a-f]{8})[0-9a-f]{24,}")


class Changed(NamedTuple):
    """A field in which calls differ from what is in the cache."""

    where: str
    was: str
    now: str
    values: int
    """How many different changes of the field there are; the one told is the first."""

    def __str__(self) -> str:
        told = str(Difference(self.where, _short(self.was), _short(self.now)))
        others = self.values - 1
        return f"{told} (and {others} other change{'s'[: others > 1]})" if others else told


class Reason(NamedTuple):
    """Why so many calls of one node are not in the cache."""

    node: str
    calls: int
    state: Literal["hit", "new", "changed", "waits", "failed"]
    """`hit`: of calls that are in the cache, and have another output than was there before."""
    changed: list[Changed]
    waits_for: dict[str, int]
    """Of `waits`: the nodes waited for, and how many of these calls wait for each."""
    because: "list[Reason]"
    """Of `changed` and `hit`: why the outputs that these calls are given are others."""

    @property
    def reason(self) -> str:
        """The reason alone, in one line."""
        match self.state:
            case "new":
                return "nothing of this step is in the cache yet"
            case "waits":
                return f"waits for {' and '.join(self.waits_for)}"
            case "failed":
                return "its inputs cannot be part of a key"
            case "changed":
                told = "; ".join(map(str, self.changed))
                return told or "the nearest record cannot be read"
            case "hit":
                return f"another output: {'; '.join(map(str, self.changed))}"

    def __str__(self) -> str:
        lines = [f"{self.calls} {self.node}: {self.reason}"]
        for cause in self.because:
            first, *rest = str(cause).splitlines()
            lines += [f"  because of {first}", *(f"  {line}" for line in rest)]
        return "\n".join(lines)


def reasons_of(explanations: Iterable[Explanation]) -> list[Reason]:
    """Group explanations, and those of the calls that they wait for.

    Calls of a node in which the same fields changed share a reason. What is waited for comes
    before what waits, the commonest reason of a node first. Hits are left out.
    """
    groups: dict[tuple[str, ...], list[Explanation]] = {}
    depths: dict[str, int] = {}
    seen: dict[int, int] = {}
    for explanation in explanations:
        for each, depth in _all(explanation, seen):
            if each.state == "hit":
                continue
            depths[each.node] = max(depth, depths.get(each.node, 0))
            groups.setdefault(_kind(each), []).append(each)
    found = [_reason(group) for group in groups.values()]
    return sorted(found, key=lambda reason: (depths[reason.node], reason.node, -reason.calls))


def _kind(explanation: Explanation) -> tuple[str, ...]:
    """Return what explanations that are told together have in common."""
    fields = sorted({difference.where for difference in explanation.differences})
    return explanation.node, explanation.state, *fields


def _all(explanation: Explanation, seen: dict[int, int]) -> Iterator[tuple[Explanation, int]]:
    """Yield an explanation and those above it, each once, with how deep it stands in the graph.

    Equal explanations may be of different calls: it is the object that tells them apart.
    """
    if id(explanation) in seen:
        return
    depth = 0
    for above in explanation.upstream:
        yield from _all(above, seen)
        depth = max(depth, seen[id(above)] + 1)
    seen[id(explanation)] = depth
    yield explanation, depth


def _reason(group: list[Explanation]) -> Reason:
    first = group[0]
    return Reason(
        first.node,
        len(group),
        first.state,
        [_changed(where, group) for where in _fields(first)],
        dict(Counter(name for each in group for name in _waits_for(each))),
        _because(group),
    )


def _because(group: list[Explanation]) -> list[Reason]:
    if group[0].state not in ("changed", "hit"):
        return []
    causes: dict[tuple[str, ...], list[Explanation]] = {}
    for above in (above for each in group for above in each.upstream):
        if above.state == "hit" and above.differences:
            causes.setdefault(_kind(above), []).append(above)
    return sorted(map(_reason, causes.values()), key=lambda cause: (cause.node, -cause.calls))


def _waits_for(explanation: Explanation) -> list[str]:
    """Return the nodes that a call waits for; those that they wait for themselves go unsaid."""
    if explanation.state != "waits":
        return []
    above = {each.node: each for each in explanation.upstream}
    indirect = {further.node for each in above.values() for further in each.upstream}
    return [name for name in above if name not in indirect]


def _fields(explanation: Explanation) -> list[str]:
    return list(dict.fromkeys(difference.where for difference in explanation.differences))


def _changed(where: str, group: list[Explanation]) -> Changed:
    values = dict.fromkeys(
        (difference.was, difference.now)
        for each in group
        for difference in each.differences
        if difference.where == where
    )
    was, now = next(iter(values))
    return Changed(where, was, now, len(values))


def _short(told: str) -> str:
    """Return a value with its digests shortened: in full they are for programs."""
    return _DIGEST.sub(r"\1…", told)
