"""Why a call misses: the field-by-field difference from the nearest record of the same node."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from cachedeval.engine.decoding import decode
from cachedeval.engine.difference import Difference, differences
from cachedeval.engine.encoding import Identified, Output, encode
from cachedeval.engine.errors import BackendError, EncodingError
from cachedeval.engine.node import Call
from cachedeval.engine.recipe import Recipe, identity_recipe, key_of, node_of, read_recipe
from cachedeval.engine.record import Record
from cachedeval.engine.resolve import Resolution, resolve
from cachedeval.engine.resource import Resource
from cachedeval.engine.store import Store

__all__ = ["Explainer", "Explanation"]

_COMMON = 500
"""A field that so many records share does not tell which of them is near."""


class Explanation(NamedTuple):
    """Why a call is, or is not, in the cache."""

    node: str
    state: Literal["hit", "new", "changed", "waits", "failed"]
    """`new`: no record of the node is there to compare with. `waits`: an input is not known yet."""
    differences: list[Difference]
    upstream: "list[Explanation]"
    """Why the inputs that are outputs of other calls are not known, or are others than before."""

    @property
    def reason(self) -> str:
        """One line that says why."""
        match self.state:
            case "hit":
                return f"{self.node}: in the cache"
            case "new":
                return f"{self.node}: nothing of this step is in the cache yet"
            case "waits":
                return f"{self.node}: waits for what is computed before it"
            case "failed":
                return f"{self.node}: its inputs cannot be part of a key"
            case "changed":
                what = "; ".join(str(difference) for difference in self.differences)
                return f"{self.node}: {what}"

    def __str__(self) -> str:
        return "\n".join(self._lines(0))

    def _lines(self, depth: int) -> Iterator[str]:
        yield "  " * depth + ("because " if depth else "") + self.reason
        for above in self.upstream:
            yield from above._lines(depth + 1)  # noqa: SLF001  its own class


class _Known(NamedTuple):
    """The records of one node, and where each value of each input stands."""

    records: list[Record]
    recipes: list[Recipe]
    places: dict[tuple[str, bytes], list[int]]


class Explainer:
    """Explains calls against what a store holds, read once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, _Known] | None = None

    def explain(self, calls: Sequence[Call[Any]]) -> list[Explanation]:
        """Return an explanation for each call."""
        known = resolve(calls, self._store.peek_many)
        done: dict[Call[Any], Explanation] = {}
        return [self._explain(call, known, done) for call in calls]

    def _explain(
        self, call: Call[Any], known: Resolution, done: dict[Call[Any], Explanation]
    ) -> Explanation:
        if call not in done:
            done[call] = self._explain_once(call, known, done)
        return done[call]

    def _explain_once(
        self, call: Call[Any], known: Resolution, done: dict[Call[Any], Explanation]
    ) -> Explanation:
        name = call.node.name
        outcome = known.outcomes.get(call)
        if outcome is not None:
            return Explanation(name, "failed" if outcome.record is None else "hit", [], [])
        if call not in known.keys:
            waits = [self._explain(above, known, done) for above in call.upstream]
            return Explanation(name, "waits", [], [why for why in waits if why.state != "hit"])
        recipe = read_recipe(known.keys[call][1])
        nearest = self._nearest(recipe)
        if nearest is None:
            return Explanation(name, "new", [], [])
        found = list(self._differences(nearest, recipe, call))
        return Explanation(name, "changed", found, [])

    def _differences(self, was: Recipe, now: Recipe, call: Call[Any]) -> Iterator[Difference]:
        if was.version != now.version:
            yield Difference("version", was.version, now.version)
        for name in sorted(was.inputs.keys() | now.inputs.keys()):
            before, after = was.inputs.get(name), now.inputs.get(name)
            if isinstance(before, Identified) and isinstance(after, Identified):
                yield from self._identity_differences(name, before, after, call)
            elif isinstance(before, Output) and isinstance(after, Output):
                if before != after:
                    yield Difference(
                        f"{name} (output of {_producer(call, name)})",
                        _short(before.digest),
                        _short(after.digest),
                    )
            else:
                yield from differences(_readable(before), _readable(after), name)

    def _identity_differences(
        self, name: str, was: Identified, now: Identified, call: Call[Any]
    ) -> Iterator[Difference]:
        if was == now:
            return
        given = call.inputs.get(name)
        after = given.identity if isinstance(given, Resource) else None
        before = self._identity(was)
        found = list(differences(before, after, name)) if before and after else []
        yield from found or [Difference(name, _short(was.digest), _short(now.digest))]

    def _identity(self, identified: Identified) -> Any:
        recipe = identity_recipe(identified)
        record = self._store.peek_many({key_of(recipe): recipe}).get(key_of(recipe))
        return decode(record.payload[1:]) if record is not None else None

    def _nearest(self, recipe: Recipe) -> Recipe | None:
        if self._known is None:
            self._known = _index(self._store)
        known = self._known.get(recipe.node)
        if known is None:
            return None
        shared: dict[int, int] = {}
        for name, value in recipe.inputs.items():
            places = known.places.get((name, encode(value)), [])
            if len(places) <= _COMMON:
                for place in places:
                    shared[place] = shared.get(place, 0) + 1
        candidates = shared or range(max(0, len(known.records) - _COMMON), len(known.records))

        def nearness(place: int) -> tuple[int, float]:
            other = known.recipes[place]
            same = sum(
                name in other.inputs and encode(other.inputs[name]) == encode(value)
                for name, value in recipe.inputs.items()
            )
            return same, known.records[place].created

        return known.recipes[max(candidates, key=nearness)]


def _index(store: Store) -> dict[str, _Known]:
    found: dict[str, _Known] = {}
    try:
        for _, record in store.records():
            if not isinstance(record, Record):
                continue
            try:
                name = node_of(record.recipe)
                recipe = read_recipe(record.recipe)
            except EncodingError:
                continue
            known = found.setdefault(name, _Known([], [], {}))
            for field, value in recipe.inputs.items():
                places = known.places.setdefault((field, encode(value)), [])
                places.append(len(known.records))
            known.records.append(record)
            known.recipes.append(recipe)
    except BackendError:
        return found
    return found


def _producer(call: Call[Any], name: str) -> str:
    given = call.inputs.get(name)
    return given.node.name if isinstance(given, Call) else "a step"


def _readable(value: Any) -> Any:
    if isinstance(value, Output):
        return _short(value.digest)
    if isinstance(value, Identified):
        return f"{value.label} {_short(value.digest)}"
    return value


def _short(digest: str) -> str:
    algorithm, _, rest = digest.partition(":")
    return f"{algorithm}:{rest[:8]}…"
