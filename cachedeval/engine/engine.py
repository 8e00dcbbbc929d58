"""The engine: runs graphs of calls, and computes only the results that the cache lacks."""

# Lazy imports: a run of hits needs neither the scheduler nor asyncio, and no run needs plans,
# explanations or maintenance.

import threading
import weakref
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager, aclosing, closing, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from cachedeval.engine import process
from cachedeval.engine.backend import Backend, open_cache
from cachedeval.engine.errors import CachedevalError, InputError
from cachedeval.engine.keys import key_of
from cachedeval.engine.log import debug_logger
from cachedeval.engine.node import Call
from cachedeval.engine.record import Record
from cachedeval.engine.resolve import Resolution, resolve, resolve_alone
from cachedeval.engine.resource import ResourcePool
from cachedeval.engine.result import MODES, CacheMode, OnOutcome, Outcome, Stats
from cachedeval.engine.stale import StaleVersions
from cachedeval.engine.store import Store

if TYPE_CHECKING:
    from datetime import timedelta

    from cachedeval.engine.explain import Explanation
    from cachedeval.engine.graph import Graph
    from cachedeval.engine.maintenance import PruneReport
    from cachedeval.engine.plan import Plan
    from cachedeval.engine.progress import OnProgress
    from cachedeval.engine.runtime import Runtime

__all__ = ["Engine"]

R = TypeVar("R")

_READING = {"use", "offline"}
"""The modes in which the cache is read."""


class Engine:
    """Runs calls of nodes and caches their results.

    Async steps run on the engine's own event loop. A forked child may use the engine too: it opens
    its own resources, and shares the stored results with its parent.

    Args:
        cache: the URL of a cache, as in `memory:` or `disk:./eval_cache`, or an open `Backend`,
            which stays open when the engine is closed.
        mode: how runs use the cache: `use` reads and writes, `refresh` only writes, `off` does
            neither, `offline` only reads. A run may override it.
        memory_budget: bytes that open resources may take together. Above it, unused resources are
            closed, least recently used first. None means no limit.

    Raises:
        InputError: the URL names no installed backend.

    Thread safety: every method may be called from any thread, and inside a running event loop.

    Example:
        >>> from cachedeval import Engine, node
        >>> @node(version="1")
        ... def double(x: int) -> int:
        ...     return 2 * x
        >>> with Engine("memory:") as engine:
        ...     engine.run(double(4))
        ...     engine.run([double(double(1)), double(2)])
        8
        [4, 4]
    """

    def __init__(
        self,
        cache: str | Backend = "memory:",
        *,
        mode: CacheMode = "use",
        memory_budget: int | None = None,
    ) -> None:
        self.mode: CacheMode = _checked(mode)
        self.stats = Stats()
        """Per node: calls, hits, computed, failed."""
        self.resources = ResourcePool(memory_budget)
        self._owns_backend = isinstance(cache, str)
        self.store = Store(open_cache(cache))
        self._lock = threading.Lock()
        self._runtime: Runtime | None = None
        self._closed = False
        self._stale = StaleVersions()
        process.register(self)
        # A prune needs the last use of each record, also if the program never calls `close`.
        weakref.finalize(self, self.store.flush)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @overload
    def run(
        self,
        calls: Call[R],
        *,
        mode: CacheMode | None = None,
        on_outcome: OnOutcome | None = None,
        return_exceptions: Literal[False] = False,
        progress: "bool | OnProgress" = False,
    ) -> R: ...

    @overload
    def run(
        self,
        calls: Iterable[Call[R]],
        *,
        mode: CacheMode | None = None,
        on_outcome: OnOutcome | None = None,
        return_exceptions: Literal[False] = False,
        progress: "bool | OnProgress" = False,
    ) -> list[R]: ...

    @overload
    def run(
        self,
        calls: Call[R],
        *,
        mode: CacheMode | None = None,
        on_outcome: OnOutcome | None = None,
        return_exceptions: bool,
        progress: "bool | OnProgress" = False,
    ) -> R | BaseException: ...

    @overload
    def run(
        self,
        calls: Iterable[Call[R]],
        *,
        mode: CacheMode | None = None,
        on_outcome: OnOutcome | None = None,
        return_exceptions: bool,
        progress: "bool | OnProgress" = False,
    ) -> list[R | BaseException]: ...

    def run(
        self,
        calls: Any,
        *,
        mode: CacheMode | None = None,
        on_outcome: OnOutcome | None = None,
        return_exceptions: bool = False,
        progress: "bool | OnProgress" = False,
    ) -> Any:
        """Return the value of a call, or the list of values of several calls.

        Args:
            calls: one call, or any number of calls. Their upstream calls run too.
            mode: how to use the cache; None is the engine's mode.
            on_outcome: called with each outcome as soon as it is known, from any thread.
            return_exceptions: return the errors of steps in the places of their values.
            progress: draw a bar for each node on a terminal (standard error) or in a notebook; or a
                function, called with a node's name and how many of its calls are done, of how many.

        Raises:
            Exception: the first error of a step, after all other calls have ended.
            CachedevalError: a fatal error of a step, after which no other call can succeed.
        """
        if isinstance(calls, Call):
            if not (progress or return_exceptions):
                return self._settled([calls], mode, on_outcome)[calls].value
            return self.run(
                [calls],
                mode=mode,
                on_outcome=on_outcome,
                return_exceptions=return_exceptions,
                progress=progress,
            )[0]
        calls = list(calls)
        with self._reporting(progress, on_outcome, calls) as note:
            outcomes = self._settled(calls, mode, note)
        return [_result(outcomes[call], return_exceptions) for call in calls]

    async def arun(
        self,
        calls: Any,
        *,
        mode: CacheMode | None = None,
        on_outcome: OnOutcome | None = None,
        return_exceptions: bool = False,
        progress: "bool | OnProgress" = False,
    ) -> Any:
        """Run as `run` does, without blocking the event loop."""
        several = [calls] if isinstance(calls, Call) else list(calls)
        with self._reporting(progress, on_outcome, several) as note:
            outcomes = await self.asettle(several, mode=mode, on_outcome=note)
        found = [_result(outcome, return_exceptions) for outcome in outcomes]
        return found[0] if isinstance(calls, Call) else found

    def map(
        self,
        node: Callable[..., Call[R]],
        *items: Iterable[Any],
        mode: CacheMode | None = None,
        on_outcome: OnOutcome | None = None,
        return_exceptions: bool = False,
        ordered: bool = True,
        progress: "bool | OnProgress" = False,
    ) -> Iterator[R]:
        """Yield the results of a node for each item, as soon as they are there.

        Items are taken, and results are held, a few thousand at a time, so there may be any number.
        What was computed is stored, so an interrupted map goes on where it was.

        Args:
            node: a node, or another function that returns a call.
            items: the node's arguments, as for the built-in `map`.
            mode: as for `run`.
            on_outcome: as for `run`.
            return_exceptions: yield the errors of steps in the places of their values.
            ordered: yield in the order of the items; otherwise as results come, so that one slow
                step delays no other result.
            progress: as for `run`; the number of calls is not known before.

        Raises:
            Exception: the error of a step, when its turn has come.
            CachedevalError: a fatal error of a step, after which no other call can succeed.

        Example:
            >>> from cachedeval import Engine, node
            >>> @node(version="1")
            ... def double(x: int) -> int:
            ...     return 2 * x
            >>> with Engine() as engine:
            ...     sum(engine.map(double, range(10_000)))
            99990000
        """
        with process.importing():
            from cachedeval.engine.mapping import map_calls

        with self._reporting(progress, on_outcome, None) as note:
            outcomes = map_calls(
                map(node, *items),
                lambda part: self._resolve(part, mode, note),
                self._started,
                mode=mode or self.mode,
                note=partial(self._note_one, note),
                engine=self,
                ordered=ordered,
            )
            with closing(outcomes):
                for outcome in outcomes:
                    yield _result(outcome, return_exceptions)

    async def amap(
        self,
        node: Callable[..., Call[R]],
        *items: Iterable[Any],
        mode: CacheMode | None = None,
        on_outcome: OnOutcome | None = None,
        return_exceptions: bool = False,
        ordered: bool = True,
        progress: "bool | OnProgress" = False,
    ) -> AsyncIterator[R]:
        """Yield as `map` does, without blocking the event loop."""
        process.import_logging()
        with process.importing():
            from cachedeval.engine.mapping import amap_calls

        with self._reporting(progress, on_outcome, None) as note:
            outcomes = amap_calls(
                map(node, *items),
                lambda part: self._resolve(part, mode, note),
                self._started,
                mode=mode or self.mode,
                note=partial(self._note_one, note),
                engine=self,
                ordered=ordered,
            )
            async with aclosing(outcomes):
                async for outcome in outcomes:
                    yield _result(outcome, return_exceptions)

    @overload
    def settle(
        self,
        calls: Call[Any],
        *,
        mode: CacheMode | None = None,
        on_outcome: OnOutcome | None = None,
    ) -> Outcome: ...

    @overload
    def settle(
        self,
        calls: Iterable[Call[Any]],
        *,
        mode: CacheMode | None = None,
        on_outcome: OnOutcome | None = None,
    ) -> list[Outcome]: ...

    def settle(
        self,
        calls: Any,
        *,
        mode: CacheMode | None = None,
        on_outcome: OnOutcome | None = None,
    ) -> Any:
        """Return the outcome of a call, or the list of outcomes of several calls.

        The outcome of a failed call holds its error.

        Args:
            calls: as for `run`.
            mode: as for `run`.
            on_outcome: as for `run`.

        Raises:
            CachedevalError: a fatal error of a step, after which no other call can succeed.
        """
        if isinstance(calls, Call):
            return self._settled([calls], mode, on_outcome)[calls]
        calls = list(calls)
        outcomes = self._settled(calls, mode, on_outcome)
        return [outcomes[call] for call in calls]

    @overload
    async def asettle(
        self,
        calls: Call[Any],
        *,
        mode: CacheMode | None = None,
        on_outcome: OnOutcome | None = None,
    ) -> Outcome: ...

    @overload
    async def asettle(
        self,
        calls: Iterable[Call[Any]],
        *,
        mode: CacheMode | None = None,
        on_outcome: OnOutcome | None = None,
    ) -> list[Outcome]: ...

    async def asettle(
        self,
        calls: Any,
        *,
        mode: CacheMode | None = None,
        on_outcome: OnOutcome | None = None,
    ) -> Any:
        """Run as `settle` does, without blocking the event loop."""
        if isinstance(calls, Call):
            return (await self.asettle([calls], mode=mode, on_outcome=on_outcome))[0]
        process.import_logging()
        with process.importing():
            import asyncio

        calls = list(calls)
        known = await asyncio.to_thread(self._resolve, calls, mode, on_outcome)
        if known.open:
            await self._await_run(calls, known, mode, on_outcome)
        return [known.outcomes[call] for call in calls]

    def plan(self, calls: Call[Any] | Iterable[Call[Any]]) -> "Plan":
        """Return what a run of these calls would compute, with estimates of its cost.

        It runs and opens nothing.
        """
        with process.importing():
            from cachedeval.engine.plan import plan_of

        return plan_of(resolve(_calls_of(calls), self.store.peek_many), self.store)

    def graph(self, calls: Call[Any] | Iterable[Call[Any]]) -> "Graph":
        """Return a picture of a graph that shows what is in the cache; runs and opens nothing.

        Its text is Mermaid, and a notebook shows it as a picture.

        Args:
            calls: one call or several calls at the end of the graph.
        """
        with process.importing():
            from cachedeval.engine.graph import graph_from

        calls = _calls_of(calls)
        return graph_from(calls, resolve(calls, self.store.peek_many))

    def explain(self, call: Call[Any]) -> "Explanation":
        """Return why a call is not in the cache: how it differs from the nearest record."""
        return self.explain_many([call])[0]

    def explain_many(self, calls: Iterable[Call[Any]]) -> "list[Explanation]":
        """Explain many calls; reads the cache once."""
        with process.importing():
            from cachedeval.engine.explain import Explainer

        return Explainer(self.store).explain(_calls_of(calls))

    def prune(
        self,
        older_than: "timedelta | None" = None,
        max_bytes: int | None = None,
        *,
        node: str | None = None,
        tag: str | None = None,
        dry_run: bool = False,
    ) -> "PruneReport":
        """Delete old records, and then cheap ones until the cache is small enough.

        What is cheap to compute goes before what is expensive: what took little time before what
        took ten times as long, and both before what cost tokens or money. Of equally expensive
        records, the least recently used goes first.

        Args:
            older_than: delete records that were not used for longer than this.
            max_bytes: the size of the cache after the prune, at most.
            node: consider only the records of this node; all of them are deleted if neither
                `older_than` nor `max_bytes` is given, and `max_bytes` is the size of these alone.
            tag: consider only records with this tag, in the same way.
            dry_run: report what a prune would delete, and delete nothing.

        Raises:
            InputError: nothing is given, or a limit is negative.
            BackendError: the cache cannot be read or written.
        """
        with process.importing():
            from cachedeval.engine.maintenance import prune

        self.store.flush()
        return prune(
            self.store,
            older_than=older_than,
            max_bytes=max_bytes,
            node=node,
            tag=tag,
            dry_run=dry_run,
        )

    def forget(self, calls: Call[Any] | Iterable[Call[Any]]) -> int:
        """Delete the records of a call, or of several calls; return how many there were."""
        calls = _calls_of(calls)
        known = resolve(calls, self.store.peek_many, any_age=True)
        keys = [key_of(o.record.recipe) for c in calls if (o := known.outcomes.get(c)) and o.record]
        keys += [known.unreadable[call].key for call in calls if call in known.unreadable]
        return self.store.delete_many(keys)

    def cleanup(self) -> None:
        """Close every open resource that no step uses."""
        self.resources.cleanup()

    def close(self) -> None:
        """Stop all runs, close the resources and close the cache; closing twice is harmless.

        Results that were computed by then are stored. Runs in other threads raise
        `CachedevalError`.
        """
        with self._lock:
            runtime, self._runtime = self._runtime, None
            self._closed = True
        if runtime is not None:
            runtime.stop()
        # Before the event loop ends: a client may have connections on it to close.
        self.resources.close()
        if runtime is not None:
            runtime.close()
        if self._owns_backend:
            self.store.close()
        else:
            self.store.flush()

    def forget_parent(self) -> None:
        """Drop the parent's locks, runs and resources in a forked child."""
        self._lock = threading.Lock()
        process.leave_to_parent(self._runtime)
        self._runtime = None
        self.stats.forget_parent()
        self.store.forget_parent()
        self.resources.forget_parent()

    def _settled(
        self, calls: Sequence[Call[Any]], mode: CacheMode | None, on_outcome: OnOutcome | None
    ) -> dict[Call[Any], Outcome]:
        known = self._resolve(calls, mode, on_outcome)
        if known.open:
            runtime = self._started()
            from cachedeval.engine.inflight import Run

            note = partial(self._note_one, on_outcome)
            runtime.run(Run(known, mode or self.mode, note, calls, self))
        return known.outcomes

    def _resolve(
        self,
        calls: Sequence[Call[Any]],
        mode: CacheMode | None,
        on_outcome: OnOutcome | None,
    ) -> Resolution:
        if self._closed:
            raise CachedevalError("the engine is closed: create another one")
        _check_calls(calls)
        reads = _checked(self.mode if mode is None else mode) in _READING
        if len(calls) == 1 and not calls[0].upstream:
            known = resolve_alone(calls[0], self.store.get if reads else _find_none)
        else:
            lookup = self.store.get_many if reads else _find_nothing
            known = resolve(calls, lookup, read_all=on_outcome is not None)
        for unreadable in known.unreadable.values():
            self.store.found_unreadable(*unreadable)
        self._note(known.outcomes.values(), on_outcome)
        return known

    async def _await_run(
        self,
        calls: Sequence[Call[Any]],
        known: Resolution,
        mode: CacheMode | None,
        on_outcome: OnOutcome | None,
    ) -> None:
        import asyncio

        runtime = self._started()
        with process.importing():
            from cachedeval.engine.inflight import Run
            from cachedeval.engine.waiting import Wake, waited

        run = Run(known, mode or self.mode, partial(self._note_one, on_outcome), calls, self)
        done = Wake()
        run.on_end = lambda _: done()
        runtime.start(run)
        try:
            await waited(runtime, run.parent, done.future)
        except asyncio.CancelledError:
            runtime.cancel(run, CachedevalError("the run was cancelled"))
            raise
        if run.error is not None:
            raise run.error

    def _started(self) -> "Runtime":
        runtime = self._runtime
        if runtime is not None:
            return runtime
        process.import_logging()
        with process.importing():
            from cachedeval.engine.runtime import Runtime

        with self._lock:
            if self._runtime is None:
                self._runtime = Runtime(self.store, self.resources)
            return self._runtime

    def _reporting(
        self,
        progress: "bool | OnProgress",
        on_outcome: OnOutcome | None,
        calls: list[Call[Any]] | None,
    ) -> AbstractContextManager[OnOutcome | None]:
        """Return the context that gives the callback of a run which may report progress."""
        if not progress:
            return nullcontext(on_outcome)
        with process.importing():
            from cachedeval.engine.progress import reporting

        return reporting(progress, on_outcome, calls)

    def _note_one(self, on_outcome: OnOutcome | None, outcome: Outcome) -> None:
        self._note((outcome,), on_outcome)

    def _note(self, outcomes: Collection[Outcome], on_outcome: OnOutcome | None) -> None:
        self.stats.note(outcomes)
        self._stale.notice(outcomes)
        if (log := debug_logger()) is not None:
            for outcome in outcomes:
                log.debug("%r", outcome)
        if on_outcome is not None:
            for outcome in outcomes:
                on_outcome(outcome)


def _calls_of(calls: Call[Any] | Iterable[Call[Any]]) -> list[Call[Any]]:
    """Return one call or several calls as a list."""
    found = [calls] if isinstance(calls, Call) else list(calls)
    _check_calls(found)
    return found


def _check_calls(calls: Iterable[Any]) -> None:
    for call in calls:
        if not isinstance(call, Call):
            raise TypeError(
                f"a {type(call).__name__} is no call: pass what a @node function returns, as in "
                "run(f(x))"
            )


def _result(outcome: Outcome, return_exceptions: bool) -> Any:  # noqa: FBT001
    """Return the value of an outcome, or its error in place of it."""
    if return_exceptions and outcome.record is None:
        return outcome.error
    return outcome.value


def _checked(mode: CacheMode) -> CacheMode:
    if mode not in MODES:
        raise InputError(f"mode {mode!r} is unknown: it is one of {', '.join(MODES)}")
    return mode


def _find_nothing(_: Mapping[bytes, bytes]) -> dict[bytes, Record]:
    return {}


def _find_none(_: bytes, __: bytes) -> None:
    return None
