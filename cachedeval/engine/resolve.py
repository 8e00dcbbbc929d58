"""What the cache already knows of a graph: the path of a run that is all hits.

It walks the graph from its leaves, asks the store for all calls of one depth together, and needs no
event loop, no thread and no lease.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from cachedeval.engine.call import Call, recipe_of
from cachedeval.engine.errors import EncodingError
from cachedeval.engine.outcome import Outcome, Unreadable
from cachedeval.engine.recipe import key_of
from cachedeval.engine.record import Record

__all__ = ["Resolution", "graph_of", "resolve", "resolve_alone"]

_AT_ONCE = 1000
"""Calls that are looked up together: what is read is verified while the processor's cache has it."""

Lookup = Callable[[Mapping[bytes, bytes]], dict[bytes, Record]]


class _NotReadyError(Exception):
    """A call waits for another, whose output is not known."""


class Resolution:
    """What is known of a graph before anything runs.

    Attributes:
        outcomes: the calls that were found, and those whose recipe cannot be made.
        keys: key and recipe of each call whose inputs are known and that was not found.
        open: the calls without an outcome, each after the calls it waits for.
        unreadable: why the records of some calls do not hold what the nodes return now; the calls
            are misses.
    """

    def __init__(self) -> None:
        self.outcomes: dict[Call[Any], Outcome] = {}
        self.keys: dict[Call[Any], tuple[bytes, bytes]] = {}
        self.open: list[Call[Any]] = []
        self.unreadable: dict[Call[Any], Unreadable] = {}

    def digest(self, call: Call[Any]) -> str:
        """Return the digest of a call's output."""
        return self.outcomes[call].digest


def graph_of(roots: Iterable[Call[Any]]) -> list[list[Call[Any]]]:
    """Return every call of a graph once, by depth, in the order in which the roots name them."""
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


def resolve(roots: Sequence[Call[Any]], lookup: Lookup, *, read_all: bool = False) -> Resolution:
    """Find what is in the cache.

    A record whose value cannot be read as what the node returns now is none. But a value that
    nobody asks for, because all that depends on it is there too, is not even read.

    Args:
        roots: the calls that are wanted.
        lookup: returns the records of those recipes, by key, that have one.
        read_all: read the values of all calls, and not just of those that are wanted.
    """
    unreadable: dict[Call[Any], Unreadable] = {}
    while True:
        known = Resolution()
        known.unreadable = unreadable
        for level in graph_of(roots):
            for start in range(0, len(level), _AT_ONCE):
                _resolve(level[start : start + _AT_ONCE], known, lookup)
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
    """Do the same for one call that waits for no other, at half the cost."""
    known = Resolution()
    try:
        recipe = recipe_of(call, known.digest)
    except EncodingError as error:
        known.outcomes[call] = Outcome(call, "failed", error=error)
        return known
    key = key_of(recipe)
    record = lookup(key, recipe)
    if record is not None and record.recipe == recipe:
        outcome = Outcome(call, "hit", record)
        why = outcome.unreadable()
        if why is None:
            known.outcomes[call] = outcome
            return known
        known.unreadable[call] = why
    known.keys[call] = key, recipe
    known.open.append(call)
    return known


def _needed(roots: Sequence[Call[Any]], missing: Sequence[Call[Any]]) -> Iterator[Call[Any]]:
    """Yield the calls whose values are asked for: what is wanted, and inputs of what is missing."""
    yield from roots
    for call in missing:
        yield from call.upstream


def _resolve(calls: Iterable[Call[Any]], known: Resolution, lookup: Lookup) -> None:
    """Find those of some calls of one depth that the cache has."""
    outcomes = known.outcomes

    def digest(call: Call[Any]) -> str:
        outcome = outcomes.get(call)
        if outcome is None or outcome.record is None:
            raise _NotReadyError
        return outcome.record.digest

    # Two recipes of one key: the second is not looked up, and is a miss.
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
        record = records.get(key)
        if record is None or record.recipe != recipe or call in known.unreadable:
            known.keys[call] = key, recipe
            known.open.append(call)
        else:
            outcomes[call] = Outcome(call, "hit", record)
