"""Resolving a graph: which of its calls are in the cache.

It walks the graph from its leaves and looks up all calls of one depth together. It needs no event
loop, no thread and no lease. A run of hits ends here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from cachedeval.engine.errors import EncodingError
from cachedeval.engine.keys import key_of
from cachedeval.engine.node import Call, recipe_of
from cachedeval.engine.record import Record
from cachedeval.engine.result import Outcome, Unreadable, disowned, found_outcome

__all__ = ["Resolution", "graph_of", "resolve", "resolve_alone"]

_AT_ONCE = 1000
"""How many calls are looked up together. The records fit into the processor's cache, which makes
their verification fast."""

Lookup = Callable[[Mapping[bytes, bytes]], dict[bytes, Record]]


class _NotReadyError(Exception):
    """The output of an upstream call is not known."""


class Resolution:
    """The calls of a graph that are in the cache, and those that are not.

    Attributes:
        outcomes: the outcomes of the calls that were found, and of those that cannot have a recipe.
        keys: key and recipe of each call that was not found and whose inputs are known.
        open: the calls without an outcome, each after its upstream calls.
        unreadable: for each record whose value the call's node cannot read, why. Such a call is a
            miss.
    """

    def __init__(self) -> None:
        self.outcomes: dict[Call[Any], Outcome] = {}
        self.keys: dict[Call[Any], tuple[bytes, bytes]] = {}
        self.open: list[Call[Any]] = []
        self.unreadable: dict[Call[Any], Unreadable] = {}

    def digest(self, call: Call[Any]) -> str:
        """Return the digest of a call's output."""
        return self.outcomes[call].digest

    def judge(
        self,
        call: Call[Any],
        key: bytes,
        recipe: bytes,
        record: Record | None,
        *,
        any_age: bool = False,
    ) -> None:
        """Set the outcome of a call if a record is its result; else note why it is not."""
        if record is None or record.recipe != recipe or call in self.unreadable:
            return
        if not any_age and _expired(call, record):
            return
        # The comparison spares three calls on the path of a hit.
        own = record.notes == call.node.own_notes
        why = None if own else disowned(call, key, record)
        if why is None:
            found = found_outcome(call, record)
            if found is not None:
                self.outcomes[call] = found
            return
        error = call.node.rival(record)
        if error is not None:
            self.outcomes[call] = Outcome(call, "failed", error=error)
        else:
            self.unreadable[call] = why


def graph_of(roots: Iterable[Call[Any]]) -> list[list[Call[Any]]]:
    """Return every call of a graph once, by depth, in the order of the roots."""
    levels: list[list[Call[Any]]] = []
    seen: set[Call[Any]] = set()
    stack = list(roots)[::-1]
    while stack:
        call = stack.pop()
        if call in seen:
            continue
        seen.add(call)
        while len(levels) <= call.depth:
            levels.append([])
        levels[call.depth].append(call)
        if call.upstream:
            stack.extend(call.upstream[::-1])
    return levels


def resolve(
    roots: Sequence[Call[Any]],
    lookup: Lookup,
    *,
    read_all: bool = False,
    any_age: bool = False,
) -> Resolution:
    """Look up the calls of a graph.

    A record whose value the node cannot read counts as a miss. Values that no caller and no missing
    call needs are not read.

    Args:
        roots: the calls whose outcomes the caller needs.
        lookup: returns the records of recipes, by key.
        read_all: read the values of all calls, not only the needed ones.
        any_age: take results that are older than the `ttl` of their node, too.
    """
    unreadable: dict[Call[Any], Unreadable] = {}
    while True:
        known = Resolution()
        known.unreadable = unreadable
        for level in graph_of(roots):
            for start in range(0, len(level), _AT_ONCE):
                _resolve(level[start : start + _AT_ONCE], known, lookup, any_age=any_age)
        read = known.outcomes if read_all else _needed(roots, known.open)
        before = len(unreadable)
        for call in read:
            outcome = known.outcomes.get(call)
            why = None if outcome is None else outcome.unreadable()
            if why is not None:
                unreadable[call] = why
        if len(unreadable) == before:
            return known


def resolve_alone(call: Call[Any], lookup: Callable[[bytes, bytes], Record | None]) -> Resolution:
    """Look up one call without upstream calls, in half the time."""
    known = Resolution()
    try:
        recipe = recipe_of(call, known.digest)
    except EncodingError as error:
        known.outcomes[call] = Outcome(call, "failed", error=error)
        return known
    key = key_of(recipe)
    record = lookup(key, recipe)
    known.judge(call, key, recipe, record)
    outcome = known.outcomes.get(call)
    if outcome is not None:
        why = outcome.unreadable()
        if why is None:
            return known
        del known.outcomes[call]
        known.unreadable[call] = why
    known.keys[call] = key, recipe
    known.open.append(call)
    return known


def _needed(roots: Sequence[Call[Any]], missing: Sequence[Call[Any]]) -> Iterator[Call[Any]]:
    """Yield the calls whose values are needed: the roots, and the inputs of missing calls."""
    yield from roots
    for call in missing:
        yield from call.upstream


def _expired(call: Call[Any], record: Record) -> bool:
    return call.node.ttl is not None and call.node.expired(record.created)


def _resolve(
    calls: Iterable[Call[Any]], known: Resolution, lookup: Lookup, *, any_age: bool
) -> None:
    """Look up calls of one depth."""
    outcomes = known.outcomes

    def digest(call: Call[Any]) -> str:
        outcome = outcomes.get(call)
        if outcome is None or outcome.record is None:
            raise _NotReadyError
        return outcome.record.digest

    # If two recipes have one key, the second is not looked up and is a miss.
    wanted: dict[bytes, bytes] = {}
    keyed: list[tuple[Call[Any], bytes, bytes]] = []
    for call in calls:
        try:
            recipe = recipe_of(call, digest)
        except _NotReadyError:
            known.open.append(call)
            continue
        except EncodingError as error:
            outcomes[call] = Outcome(call, "failed", error=error)
            continue
        key = key_of(recipe)
        wanted.setdefault(key, recipe)
        keyed.append((call, key, recipe))
    records = lookup(wanted) if wanted else {}
    for call, key, recipe in keyed:
        known.judge(call, key, recipe, records.get(key), any_age=any_age)
        if call not in outcomes:
            known.keys[call] = key, recipe
            known.open.append(call)
