"""The engine: runs graphs of calls, and computes only what the cache does not hold."""

import threading
import weakref
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from cachedeval.engine import forks
from cachedeval.engine.backend import Backend
from cachedeval.engine.call import Call
from cachedeval.engine.drift import Drift
from cachedeval.engine.errors import CachedevalError, InputError
from cachedeval.engine.open import open_cache
from cachedeval.engine.outcome import MODES, CacheMode, OnOutcome, Outcome
from cachedeval.engine.recipe import key_of
from cachedeval.engine.record import Record
from cachedeval.engine.resolve import Resolution, resolve, resolve_alone
from cachedeval.engine.resource import ResourcePool
from cachedeval.engine.stats import Stats
from cachedeval.engine.store import Store

if TYPE_CHECKING:
    from datetime import timedelta

    from cachedeval.engine.explain import Explanation
    from cachedeval.engine.plan import Plan
    from cachedeval.engine.prune import PruneReport
    from cachedeval.engine.runtime import Runtime

__all__ = ["Engine"]

R = TypeVar("R")

_READING = {"use", "offline"}
"""The modes in which the cache is read."""


class Engine:
    """Runs calls of nodes and keeps their results.

    Args:
        cache: the URL of a cache, as in `memory:` or `disk:./eval_cache`, or an open `Backend`,
            which stays open when the engine is closed.
        mode: how runs use the cache: `use` reads and writes, `refresh` writes alone, `off`
            neither, `offline` reads alone. A run may choose another.
        memory_budget: bytes that open resources may take together before those that nobody uses
            are freed, least recently used first; None is no bound.

    Raises:
        InputError: the URL names no installed backend.

    Async steps run on the engine's own event loop. Thread safety: every method may be called from
    any thread, and inside a running event loop. A forked child may use the engine too: it opens
    resources of its own, and in a shared cache it and its parent find each other's results.
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
        self._drift = Drift()
        forks.register(self)
        # For whoever does not close: which records were used, a prune wants to know.
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
    ) -> R: ...

    @overload
    def run(
        self,
        calls: Sequence[Call[R]],
        *,
        mode: CacheMode | None = None,
        on_outcome: OnOutcome | None = None,
    ) -> list[R]: ...

    def run(
        self,
        calls: Any,
        *,
        mode: CacheMode | None = None,
        on_outcome: OnOutcome | None = None,
    ) -> Any:
        """Return the value of a call, or the values of several, in their order.

        Args:
            calls: one call or a sequence of them; their upstream calls run with them.
            mode: how to use the cache, if not as the engine does.
            on_outcome: called with each outcome as soon as it is there, from any thread.

        Raises:
            Exception: the first error of a step, once all others are done and kept.
        """
        if isinstance(calls, Call):
            return self._settled([calls], mode, on_outcome)[calls].value
        return [o.value for o in self.settle(calls, mode=mode, on_outcome=on_outcome)]

    async def arun(
        self,
        calls: Any,
        *,
        mode: CacheMode | None = None,
        on_outcome: OnOutcome | None = None,
    ) -> Any:
        """Do the same as `run`, awaited."""
        if isinstance(calls, Call):
            return (await self.asettle([calls], mode=mode, on_outcome=on_outcome))[0].value
        return [o.value for o in await self.asettle(calls, mode=mode, on_outcome=on_outcome)]

    def settle(
        self,
        calls: Sequence[Call[Any]],
        *,
        mode: CacheMode | None = None,
        on_outcome: OnOutcome | None = None,
    ) -> list[Outcome]:
        """Return the outcome of each call; a failed one carries its error, and none is raised.

        Raises:
            CachedevalError: a fatal error of a step, after which no other call can succeed.
        """
        calls = list(calls)
        outcomes = self._settled(calls, mode, on_outcome)
        return [outcomes[call] for call in calls]

    async def asettle(
        self,
        calls: Sequence[Call[Any]],
        *,
        mode: CacheMode | None = None,
        on_outcome: OnOutcome | None = None,
    ) -> list[Outcome]:
        """Do the same as `settle`, awaited."""
        forks.import_logging()
        with forks.importing():
            import asyncio  # noqa: PLC0415  a run of hits has no need of it

        calls = list(calls)
        known = await asyncio.to_thread(self._resolve, calls, mode, on_outcome)
        if known.open:
            await self._await_run(calls, known, mode, on_outcome)
        return [known.outcomes[call] for call in calls]

    def plan(self, calls: Sequence[Call[Any]]) -> "Plan":
        """Say what a run would compute, and about what that costs; nothing runs or opens."""
        with forks.importing():
            from cachedeval.engine.plan import plan_of  # noqa: PLC0415  not to run

        return plan_of(resolve(list(calls), self.store.peek_many), self.store)

    def explain(self, call: Call[Any]) -> "Explanation":
        """Say why a call is not in the cache: how it differs from the nearest record."""
        return self.explain_many([call])[0]

    def explain_many(self, calls: Sequence[Call[Any]]) -> "list[Explanation]":
        """Do the same as `explain` for many calls, reading the cache once."""
        with forks.importing():
            from cachedeval.engine.explain import Explainer  # noqa: PLC0415  not to run

        return Explainer(self.store).explain(list(calls))

    def prune(
        self,
        older_than: "timedelta | None" = None,
        max_bytes: int | None = None,
        *,
        dry_run: bool = False,
    ) -> "PruneReport":
        """Delete records that were not used for so long, and then the least recently used ones.

        Args:
            older_than: records not used for longer than this go.
            max_bytes: what the cache may take when it is done.
            dry_run: only say what would go.

        Raises:
            InputError: neither bound is given, or one is negative.
            BackendError: the cache cannot be read or written.
        """
        with forks.importing():
            from cachedeval.engine.prune import prune  # noqa: PLC0415  not to run

        self.store.flush()
        return prune(
            self.store.backend, older_than=older_than, max_bytes=max_bytes, dry_run=dry_run
        )

    def forget(self, calls: Sequence[Call[Any]]) -> int:
        """Delete the records of these calls, if there are any; return how many there were."""
        known = resolve(calls, self.store.peek_many)
        keys = [key_of(o.record.recipe) for c in calls if (o := known.outcomes.get(c)) and o.record]
        keys += [known.unreadable[call].key for call in calls if call in known.unreadable]
        return self.store.delete_many(keys)

    def cleanup(self) -> None:
        """Free every open resource that no step uses."""
        self.resources.cleanup()

    def close(self) -> None:
        """Stop what runs, free the resources and close the cache; closing twice is harmless.

        What was computed by then is kept. Calls that are waited for raise `CachedevalError`.
        """
        with self._lock:
            runtime, self._runtime = self._runtime, None
            self._closed = True
        if runtime is not None:
            runtime.stop()
        # While the event loop still runs: a client may have connections on it to close.
        self.resources.close()
        if runtime is not None:
            runtime.close()
        if self._owns_backend:
            self.store.close()
        else:
            self.store.flush()

    def forget_parent(self) -> None:
        """In a forked child: drop what the parent's threads do; what is stored stays usable."""
        self._lock = threading.Lock()
        forks.leave_to_parent(self._runtime)
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
            from cachedeval.engine.scheduler import Run  # noqa: PLC0415  nothing of this for hits

            note = partial(self._note_one, on_outcome)
            runtime.run(Run(known, mode or self.mode, note, calls))
        return known.outcomes

    def _resolve(
        self,
        calls: Sequence[Call[Any]],
        mode: CacheMode | None,
        on_outcome: OnOutcome | None,
    ) -> Resolution:
        if self._closed:
            raise CachedevalError("the engine is closed: make another one")
        for call in calls:
            if not isinstance(call, Call):
                raise TypeError(
                    f"a {type(call).__name__} is no call: run(f(x)) takes what a @node function "
                    "returns when it is called"
                )
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
        import asyncio  # noqa: PLC0415  imported already

        runtime = self._started()
        from cachedeval.engine.scheduler import Run  # noqa: PLC0415

        run = Run(known, mode or self.mode, partial(self._note_one, on_outcome), calls)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not done.done():
                done.set_result(None)

        def ended(_: Run) -> None:
            with suppress(RuntimeError):  # the loop was closed in the meantime
                loop.call_soon_threadsafe(wake)

        run.on_end = ended
        runtime.start(run)
        try:
            with runtime.waiting():
                await done
        except asyncio.CancelledError:
            runtime.cancel(run, CachedevalError("the run was cancelled"))
            raise
        if run.error is not None:
            raise run.error

    def _started(self) -> "Runtime":
        forks.import_logging()
        with forks.importing():
            from cachedeval.engine.runtime import Runtime  # noqa: PLC0415  nothing of this for hits

        with self._lock:
            if self._runtime is None:
                self._runtime = Runtime(self.store, self.resources)
            return self._runtime

    def _note_one(self, on_outcome: OnOutcome | None, outcome: Outcome) -> None:
        self._note((outcome,), on_outcome)

    def _note(self, outcomes: Collection[Outcome], on_outcome: OnOutcome | None) -> None:
        self.stats.note(outcomes)
        self._drift.notice(outcomes)
        if on_outcome is not None:
            for outcome in outcomes:
                on_outcome(outcome)


def _checked(mode: CacheMode) -> CacheMode:
    if mode not in MODES:
        raise InputError(f"mode {mode!r}: it is one of {', '.join(MODES)}")
    return mode


def _find_nothing(_: Mapping[bytes, bytes]) -> dict[bytes, Record]:
    return {}


def _find_none(_: bytes, __: bytes) -> None:
    return None
