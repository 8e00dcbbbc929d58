"""Why a call misses: the field-by-field difference from the nearest record of the same node."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from cachedeval.engine.call import Call
from cachedeval.engine.decoding import decode
from cachedeval.engine.difference import ABSENT, Difference, differences, short
from cachedeval.engine.encoding import Identified, Output
from cachedeval.engine.errors import EncodingError
from cachedeval.engine.nearest import Index, Known
from cachedeval.engine.recipe import Recipe, identity_recipe, key_of, read_recipe
from cachedeval.engine.resolve import Resolution, graph_of, resolve
from cachedeval.engine.resource import Resource
from cachedeval.engine.store import Store
from cachedeval.engine.values import Codec

__all__ = ["Explainer", "Explanation"]

_SHOWN = 5
"""How many reasons are told for one explanation."""

_DEEP = 6
"""How many steps up an output's difference is followed."""

_ANY = Codec()


class Explanation(NamedTuple):
    """Why a call is, or is not, in the cache."""

    node: str
    state: Literal["hit", "new", "changed", "waits", "failed"]
    """`new`: no record of the node is there to compare with. `waits`: an input is not known yet."""
    differences: list[Difference]
    """From the nearest record. Of a hit above: from the record that had its place before."""
    upstream: "list[Explanation]"
    """Why the inputs that are outputs of other calls are not known, or are others than before."""

    @property
    def reason(self) -> str:
        """One line that says why."""
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
                return f"{self.node}: waits for {' and '.join(names) or 'what comes before it'}"
            case "failed":
                return f"{self.node}: its inputs cannot be part of a key"
            case "changed":
                return f"{self.node}: {what or 'its record is damaged or cannot be read'}"

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        """Yield a line for this and for each cause; what merely waits between is left out."""
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
    """Yield what does not merely wait, nearest above an explanation; each reason once."""
    seen: set[int] = set()
    told: set[str] = set()
    todo = list(reversed(explanation.upstream))
    while todo:
        above = todo.pop()
        if id(above) in seen:
            continue
        seen.add(id(above))
        if above.state == "waits":
            todo += reversed(above.upstream)
        elif above.reason not in told:
            told.add(above.reason)
            yield above


class Explainer:
    """Explains calls against what a store holds, read once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._index: Index | None = None

    def explain(self, calls: Sequence[Call[Any]]) -> list[Explanation]:
        """Return an explanation for each call."""
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
        if key in self._index.unreadable:
            return Explanation(name, "changed", [], [])
        nearest = self._index.nearest(recipe)
        if nearest is None:
            return Explanation(name, "new", [], [])
        was, now = nearest.recipe, read_recipe(recipe)
        found = list(self._differences(was, now, call))
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
                found = list(differences(self._told(before), self._told(after), title))
            # What cannot be told apart by what it holds is told apart by its digest.
            yield from found or differences(before, after, title)

    def _identities(self, was: Identified, now: Identified, given: Any) -> tuple[Any, Any]:
        """Return what stands behind two identities, as far as it is known of both."""
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

    def _told(self, value: Any) -> Any:
        """Return a value with the outputs inside it, where the cache holds them, in full."""
        if isinstance(value, Output):
            assert self._index is not None  # noqa: S101  for the type checker
            for known in self._index.with_output(value.digest):
                try:
                    return _ANY.load(known.record.payload)
                except EncodingError:
                    break
            return value
        if isinstance(value, dict):
            return {key: self._told(member) for key, member in value.items()}
        if type(value) in {list, tuple}:
            return type(value)(self._told(member) for member in value)
        return value

    def _above(
        self, was: Recipe, now: Recipe, call: Call[Any], known: Resolution, depth: int
    ) -> list[Explanation]:
        """Say of the upstream calls with other outputs than before how they differ."""
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
    """Tell two versions apart; that of a node without one is the digest of its source."""
    if was.startswith("source:") and now.startswith("source:"):
        return Difference("its source", *(short(v).partition(":")[2] for v in (was, now)))
    told = ("by its source" if version.startswith("source:") else version for version in (was, now))
    return Difference("version", *told)
