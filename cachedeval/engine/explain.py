"""Explanations of misses: how a call differs, field by field, from the nearest stored record.

`Index` reads a store and finds the record of the same node that has the most inputs in common with
a recipe. `Explainer` explains each call by its differences from that record. `reasons_of` groups
the explanations of many calls: calls in which the same fields changed share one reason.
"""

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from cachedeval.engine.difference import ABSENT, Difference, differences, short
from cachedeval.engine.encoding import Identified, Output, decode, encode
from cachedeval.engine.errors import BackendError, EncodingError
from cachedeval.engine.keys import Recipe, identity_recipe, key_of, read_recipe
from cachedeval.engine.node import Call
from cachedeval.engine.record import Record
from cachedeval.engine.resolve import Resolution, graph_of, resolve
from cachedeval.engine.resource import Resource
from cachedeval.engine.store import Store
from cachedeval.engine.values import plain_data

__all__ = ["Changed", "Explainer", "Explanation", "Index", "Known", "Reason", "reasons_of"]


_COMMON = 500
"""A field that more records than this share does not help to find the nearest record."""

_AT_MOST = 200
"""How many records are compared with a recipe if no field is rarer than `_COMMON`."""

_SHOWN = 5
"""How many causes one explanation prints."""

_DEEP = 6
"""How many upstream steps are searched for the cause of a changed output."""

_DIGEST = re.compile(r"(?<=:)([0-9a-f]{8})[0-9a-f]{24,}")

State = Literal["hit", "new", "changed", "waits", "failed"]


# Finding the nearest record.


class Known(NamedTuple):
    """A record with its decoded recipe.

    Attributes:
        record: the record.
        recipe: the decoded recipe.
        fields: the encodings of the inputs, by name.
    """

    record: Record
    recipe: Recipe
    fields: dict[str, bytes]


class Index:
    """The records of a store, read once.

    Args:
        store: the store to read. If its backend fails, the index holds the records read by then.

    Attributes:
        unreadable: the keys of corrupt records.
    """

    def __init__(self, store: Store) -> None:
        self.unreadable: set[bytes] = set()
        self._nodes: dict[str, list[Known]] = {}
        self._sharing: dict[tuple[str, str, bytes], list[Known]] = {}
        self._outputs: dict[str, list[Known]] = {}
        try:
            for entry, record in store.records():
                if isinstance(record, Record):
                    self._add(record)
                else:
                    self.unreadable.add(entry.key)
        except BackendError:
            return

    def nearest(self, recipe: bytes, among: Iterable[Known] | None = None) -> Known | None:
        """Return the record of the same node that has the most inputs in common with a recipe.

        Args:
            recipe: the recipe; its own record counts too.
            among: the records to search; by default all records of the node.
        """
        wanted = read_recipe(recipe)
        fields = {name: encode(value) for name, value in wanted.inputs.items()}
        if among is None:
            among = self._candidates(wanted.node, fields)
        found = [known for known in among if known.recipe.node == wanted.node]
        return max(found, key=lambda known: _nearness(known, fields), default=None)

    def with_output(self, digest: str) -> list[Known]:
        """Return the records whose output has a digest."""
        return self._outputs.get(digest, [])

    def _candidates(self, node: str, fields: dict[str, bytes]) -> list[Known]:
        shared: dict[int, tuple[int, Known]] = {}
        for name, field in fields.items():
            sharing = self._sharing.get((node, name, field), [])
            if len(sharing) <= _COMMON:
                for known in sharing:
                    count = shared.get(id(known), (0, known))[0]
                    shared[id(known)] = count + 1, known
        if not shared:
            return self._nodes.get(node, [])[-_AT_MOST:]
        most = max(count for count, _ in shared.values())
        return [known for count, known in shared.values() if count == most][-_AT_MOST:]

    def _add(self, record: Record) -> None:
        try:
            recipe = read_recipe(record.recipe)
            fields = {name: encode(value) for name, value in recipe.inputs.items()}
        except EncodingError:
            self.unreadable.add(key_of(record.recipe))
            return
        known = Known(record, recipe, fields)
        self._nodes.setdefault(recipe.node, []).append(known)
        self._outputs.setdefault(record.digest, []).append(known)
        for name, field in fields.items():
            self._sharing.setdefault((recipe.node, name, field), []).append(known)


def _nearness(known: Known, fields: dict[str, bytes]) -> tuple[int, int, float]:
    same, alike = 0, 0
    for name, field in fields.items():
        other = known.fields.get(name)
        if other == field:
            same += 1
        elif other is not None:
            alike += _shared_start(field, other) + _shared_start(field[::-1], other[::-1])
    return same, alike, known.record.created


def _shared_start(one: bytes, other: bytes) -> int:
    """Return the length of the common prefix of two byte strings."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


# Explaining calls.


class Explanation(NamedTuple):
    """Why a call is, or is not, in the cache.

    Attributes:
        node: the node's name.
        state: `hit`; `new`, the cache has no record of the node; `changed`, the call differs from
            the nearest record; `waits`, an input is not known yet; `failed`, the call has no key.
        differences: from the nearest record. For a hit among `upstream`: from the record whose
            output the nearest record used.
        upstream: explanations of the upstream calls whose outputs are not known or have changed.

    Example:
        >>> from cachedeval import Engine, node
        >>> @node(version="1", name="double")
        ... def double(x: int) -> int:
        ...     return 2 * x
        >>> with Engine() as engine:
        ...     engine.run(double(1))
        ...     print(engine.explain(double(2)))
        2
        double: x: 1 → 2
    """

    node: str
    state: State
    differences: list[Difference]
    upstream: "list[Explanation]"

    @property
    def reason(self) -> str:
        """The explanation in one line, without those of the upstream calls."""
        what = "; ".join(str(difference) for difference in self.differences)
        match self.state:
            case "hit" if what:
                return f"{self.node} has another output: {what}"
            case "hit":
                return f"{self.node}: in the cache"
            case "new":
                return f"{self.node}: nothing of this step is in the cache yet"
            case "waits":
                names = list(dict.fromkeys(above.node for above in self.upstream))
                return f"{self.node}: waits for {' and '.join(names) or 'an upstream call'}"
            case "failed":
                return f"{self.node}: its inputs cannot be part of a key"
            case "changed":
                return f"{self.node}: {what or 'its record is corrupt or cannot be read'}"

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        """Yield a line for this explanation and for each cause; calls that only wait are skipped."""
        todo: list[tuple[int, Explanation | str]] = [(0, self)]
        while todo:
            depth, each = todo.pop()
            indent = "  " * min(depth, _DEEP)
            if isinstance(each, str):
                yield indent + each
            else:
                yield indent + ("because " if depth else "") + each.reason
                causes: list[Explanation | str] = [*_causes(each)]
                if len(causes) > _SHOWN:
                    causes[_SHOWN:] = [f"and {len(causes) - _SHOWN} more"]
                todo += [(depth + 1, cause) for cause in reversed(causes)]


def _causes(explanation: Explanation) -> Iterator[Explanation]:
    """Yield the nearest upstream explanations that do more than wait; each reason once."""
    seen: set[int] = set()
    reasons: set[str] = set()
    todo = list(reversed(explanation.upstream))
    while todo:
        above = todo.pop()
        if id(above) in seen:
            continue
        seen.add(id(above))
        if above.state == "waits":
            todo += reversed(above.upstream)
        elif above.reason not in reasons:
            reasons.add(above.reason)
            yield above


class Explainer:
    """Explains calls by the records of a store, read once.

    Args:
        store: the store to read; counts no hits.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._index: Index | None = None

    def explain(self, calls: Sequence[Call[Any]]) -> list[Explanation]:
        """Return an explanation of each call."""
        known = resolve(calls, self._store.peek_many)
        done: dict[Call[Any], Explanation] = {}
        for level in graph_of(calls):
            for call in level:
                done[call] = self._explain(call, known, done)
        return [done[call] for call in calls]

    def _explain(
        self, call: Call[Any], known: Resolution, done: dict[Call[Any], Explanation]
    ) -> Explanation:
        name = call.node.name
        outcome = known.outcomes.get(call)
        if outcome is not None:
            return Explanation(name, "failed" if outcome.record is None else "hit", [], [])
        if call not in known.keys:
            above = list(dict.fromkeys(call.upstream))
            waits = [done[each] for each in above if done[each].state != "hit"]
            return Explanation(name, "waits", [], waits)
        if self._index is None:
            self._index = Index(self._store)
        key, recipe = known.keys[call]
        if call.node.ttl is not None:
            record = self._store.peek_many({key: recipe}).get(key)
            if record is not None and call.node.expired(record.created):
                age = f"{time.time() - record.created:.0f} s"
                old = Difference("age", f"at most {call.node.ttl:g} s (the node's ttl)", age)
                return Explanation(name, "changed", [old], [])
        if key in self._index.unreadable:
            return Explanation(name, "changed", [], [])
        nearest = self._index.nearest(recipe)
        if nearest is None:
            return Explanation(name, "new", [], [])
        was, now = nearest.recipe, read_recipe(recipe)
        found = list(self._differences(was, now, call))
        bound = call.node.bound
        if not found and bound is not None:
            found = [Difference(bound.name, "a smaller one", repr(call.inputs[bound.name]))]
        return Explanation(name, "changed", found, self._above(was, now, call, known, _DEEP))

    def _differences(self, was: Recipe, now: Recipe, call: Call[Any]) -> Iterator[Difference]:
        if was.version != now.version:
            yield _version(was.version, now.version)
        for name in [*was.inputs, *(name for name in now.inputs if name not in was.inputs)]:
            before, after = was.inputs.get(name, ABSENT), now.inputs.get(name, ABSENT)
            given = call.inputs.get(name)
            title = f"{name} (output of {given.node.name})" if isinstance(given, Call) else name
            if isinstance(before, Identified) and isinstance(after, Identified):
                before, after = self._identities(before, after, given)
            found = []
            with suppress(RecursionError):  # too deep to look for the outputs inside it
                found = list(differences(self._expanded(before), self._expanded(after), title))
            # Outputs with equal content, or unknown content, differ in their digests.
            yield from found or differences(before, after, title)

    def _identities(self, was: Identified, now: Identified, given: Any) -> tuple[Any, Any]:
        """Return the data of two identities if both are known, else the identities."""
        if was == now or not isinstance(given, Resource):
            return was, now
        recipe = identity_recipe(was)
        record = self._store.peek_many({key_of(recipe): recipe}).get(key_of(recipe))
        if record is None:
            return was, now
        try:
            return decode(record.payload[1:]), given.identity
        except EncodingError:
            return was, now

    def _expanded(self, value: Any) -> Any:
        """Return a value with the outputs inside it replaced by their data, if it is stored."""
        if isinstance(value, Output):
            assert self._index is not None  # noqa: S101  for the type checker
            for known in self._index.with_output(value.digest):
                try:
                    return plain_data(known.record.payload)
                except EncodingError:
                    break
            return value
        if isinstance(value, dict):
            return {key: self._expanded(member) for key, member in value.items()}
        if type(value) in {list, tuple}:
            return type(value)(self._expanded(member) for member in value)
        return value

    def _above(
        self, was: Recipe, now: Recipe, call: Call[Any], known: Resolution, depth: int
    ) -> list[Explanation]:
        """Return explanations of the upstream calls whose outputs have changed."""
        before, after = set(_outputs(was.inputs)), set(_outputs(now.inputs))
        found = []
        for above in dict.fromkeys(call.upstream) if depth else ():
            record = known.outcomes[above].record
            assert record is not None  # noqa: S101  for the type checker: its output is known
            if record.digest in before or record.digest not in after:
                continue
            replaced = self._replaced(record.recipe, before - after)
            if replaced is not None:
                recipe = read_recipe(record.recipe)
                changed = list(self._differences(replaced.recipe, recipe, above))
                further = self._above(replaced.recipe, recipe, above, known, depth - 1)
                found.append(Explanation(above.node.name, "hit", changed, further))
        return found

    def _replaced(self, recipe: bytes, outputs: set[str]) -> Known | None:
        assert self._index is not None  # noqa: S101  for the type checker
        among = [known for digest in outputs for known in self._index.with_output(digest)]
        return self._index.nearest(recipe, among)


def _outputs(value: Any) -> Iterator[str]:
    if isinstance(value, Output):
        yield value.digest
    elif isinstance(value, dict):
        for member in value.values():
            yield from _outputs(member)
    elif type(value) in {list, tuple}:
        for member in value:
            yield from _outputs(member)


def _version(was: str, now: str) -> Difference:
    """Return the difference of two versions; without a declared one it is the source's digest."""
    if was.startswith("source:") and now.startswith("source:"):
        return Difference("its source", *(short(v).partition(":")[2] for v in (was, now)))
    versions = (
        "by its source" if version.startswith("source:") else version for version in (was, now)
    )
    return Difference("version", *versions)


# Grouping explanations.


class Changed(NamedTuple):
    """A field in which calls of one node differ from their nearest records.

    Attributes:
        where: the path to the field.
        was: the old value of the first call, as short text.
        now: its new value, as short text.
        values: how many different changes of the field the calls have.
    """

    where: str
    was: str
    now: str
    values: int

    def __str__(self) -> str:
        text = str(Difference(self.where, _short(self.was), _short(self.now)))
        others = self.values - 1
        return f"{text} (and {others} other change{'s'[: others > 1]})" if others else text


class Reason(NamedTuple):
    """A reason that calls of one node share for missing.

    Attributes:
        node: the node's name.
        calls: how many calls share the reason.
        state: as of `Explanation`; `hit` means that the calls are in the cache and that their
            outputs have changed.
        changed: the fields that changed.
        waits_for: for `waits`, how many of the calls wait for each node.
        because: for `changed` and `hit`, why the outputs of the upstream calls have changed.
    """

    node: str
    calls: int
    state: State
    changed: list[Changed]
    waits_for: dict[str, int]
    because: "list[Reason]"

    @property
    def reason(self) -> str:
        """The reason in one line, without its causes."""
        match self.state:
            case "new":
                return "nothing of this step is in the cache yet"
            case "waits":
                return f"waits for {' and '.join(self.waits_for)}"
            case "failed":
                return "its inputs cannot be part of a key"
            case "changed":
                text = "; ".join(map(str, self.changed))
                return text or "the nearest record cannot be read"
            case "hit":
                return f"another output: {'; '.join(map(str, self.changed))}"

    def __str__(self) -> str:
        lines = [f"{self.calls} {self.node}: {self.reason}"]
        for cause in self.because:
            first, *rest = str(cause).splitlines()
            lines += [f"  because of {first}", *(f"  {line}" for line in rest)]
        return "\n".join(lines)


def reasons_of(explanations: Iterable[Explanation]) -> list[Reason]:
    """Group explanations, and those of their upstream calls, by reason.

    Calls of a node in which the same fields changed share a reason. Reasons are in the order of the
    graph, and those of one node by the number of calls. Hits are left out.
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
    """Return the key by which explanations are grouped."""
    fields = sorted({difference.where for difference in explanation.differences})
    return explanation.node, explanation.state, *fields


def _all(explanation: Explanation, seen: dict[int, int]) -> Iterator[tuple[Explanation, int]]:
    """Yield an explanation and its upstream ones, each once, with its depth in the graph.

    Equal explanations may belong to different calls, so they are compared by identity.
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
    """Return the nodes that a call waits for directly, and not through another one of them."""
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


def _short(text: str) -> str:
    """Return a value's text with its digests shortened."""
    return _DIGEST.sub(r"\1…", text)
