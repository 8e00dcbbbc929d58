"""Running a graph: what the cache does not hold is computed once and kept.

Everything here runs on the engine's own event loop. A flight is one computation that all who want
it wait for: whoever gives up waiting harms no other, and the computation is called off only when
nobody waits any more.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from cachedeval.engine.alteration import changed_input
from cachedeval.engine.call import Call, describe, recipe_of, substitute
from cachedeval.engine.claims import Claims
from cachedeval.engine.compute import Computer, to_record
from cachedeval.engine.encoding import Identified, encode
from cachedeval.engine.errors import CachedevalError, EncodingError, InputError, MissingError
from cachedeval.engine.log import logger
from cachedeval.engine.outcome import Outcome, State
from cachedeval.engine.recipe import identity_recipe, key_of
from cachedeval.engine.record import Record
from cachedeval.engine.resource import Handle, Resource, ResourcePool
from cachedeval.engine.run import CacheMode, OnOutcome, Run
from cachedeval.engine.store import Store
from cachedeval.engine.writer import Writer

__all__ = ["CacheMode", "OnOutcome", "Run", "Runner"]


class _Flight:
    __slots__ = ("state", "task", "waiters")

    def __init__(self, task: "asyncio.Task[tuple[State, Record]]") -> None:
        self.task = task
        self.waiters = 0
        self.state: State | None = None
        """What the first who waits is told; for the others it is a hit."""


class Runner:
    """Runs graphs on one event loop."""

    def __init__(self, store: Store, pool: ResourcePool) -> None:
        self._pool = pool
        self._store = store
        self._claims = Claims(store)
        self._writer = Writer(store)
        self._computer = Computer()
        self._flights: dict[tuple[CacheMode, bytes], _Flight] = {}
        self._flying: set[asyncio.Task[Any]] = set()
        self._runs: set[asyncio.Task[Any]] = set()
        self._told: set[Identified] = set()
        self._warned: set[str] = set()

    async def run(self, run: Run) -> None:
        """Give every call of the run an outcome.

        Raises:
            CachedevalError: a fatal one, after which no other call can succeed.
        """
        loop = asyncio.get_running_loop()
        this = asyncio.current_task()
        assert this is not None  # noqa: S101  for the type checker: this is a coroutine
        self._runs.add(this)
        for call in run.known.open:
            run.tasks[call] = loop.create_task(self._settle(call, run))
        try:
            await asyncio.gather(*run.tasks.values())
            # A batch's last answer is there before the batch lets go of its model, which whoever
            # asks for the memory back as the next thing may want to be free.
            await self._computer.tidied()
        except BaseException:
            # A fatal error or an interrupt: let go of the rest, but keep what is done.
            for task in run.tasks.values():
                task.cancel()
            await asyncio.gather(*run.tasks.values(), return_exceptions=True)
            raise
        finally:
            run.tasks.clear()
            await self._writer.drain()
            self._runs.discard(this)
            run.ended.set()

    async def stop(self) -> None:
        """Call off all runs, and wait until what they computed is kept."""
        runs = list(self._runs)
        for task in runs:
            task.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        await asyncio.gather(*self._flying, return_exceptions=True)
        await self._claims.drain()
        await self._writer.drain()

    def is_lane(self, thread: threading.Thread) -> bool:
        """Say whether steps take turns on a thread."""
        return self._computer.is_lane(thread)

    def waiting(self) -> AbstractContextManager[None]:
        """Return the context in which a thread waits for a run."""
        return self._computer.threads.waiting()

    def close(self) -> None:
        """End the threads."""
        self._computer.close()
        self._claims.close()
        self._writer.close()

    async def _settle(self, call: Call[Any], run: Run) -> None:
        outcome = await self._outcome(call, run)
        run.outcomes[call] = outcome
        run.on_outcome(outcome)
        error = outcome.error
        if isinstance(error, CachedevalError) and error.fatal:
            raise error

    async def _outcome(self, call: Call[Any], run: Run) -> Outcome:
        for upstream in call.upstream:
            task = run.tasks.get(upstream)
            if task is not None:
                await task
            before = run.outcomes[upstream]
            if before.record is None:
                return Outcome(call, "failed", error=before.error)
        keyed = run.known.keys.get(call)
        if keyed is None:
            try:
                recipe = recipe_of(call, run.known.digest)
            except EncodingError as error:
                return Outcome(call, "failed", error=error)
            keyed = key_of(recipe), recipe
        key, recipe = keyed
        done = run.records.get(recipe)
        if done is not None and (known := Outcome(call, "hit", done)).unreadable() is None:
            return known
        try:
            state, record = await self._join(call, key, recipe, run)
            if state == "hit" and Outcome(call, state, record).unreadable() is not None:
                # Two nodes have one name and version, and return different types.
                state, record = "computed", await self._compute(call, recipe, run)
        except Exception as error:  # noqa: BLE001  it belongs to the call, which carries it
            return Outcome(call, "failed", error=error)
        run.records[recipe] = record
        return Outcome(call, state, record)

    async def _join(
        self, call: Call[Any], key: bytes, recipe: bytes, run: Run
    ) -> tuple[State, Record]:
        """Wait for the flight of a recipe, and start it if there is none."""
        at = run.mode, recipe
        flight = self._flights.get(at)
        if flight is None:
            task = asyncio.get_running_loop().create_task(self._fly(call, key, recipe, run))
            flight = self._flights[at] = _Flight(task)
            self._flying.add(task)
            task.add_done_callback(self._flying.discard)
            task.add_done_callback(lambda _: self._land(at, flight))
        flight.waiters += 1
        try:
            state, record = await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if flight.task.cancelled() and this is not None and not this.cancelling():
                # As it is, it would say that this run was cancelled.
                raise RuntimeError(f"{call.node.name} cancelled the task that it runs in") from None
            raise
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.task.done():
                flight.task.cancel()
                self._land(at, flight)  # nobody may join it any more
        if flight.state is None:
            flight.state = state
            return state, record
        return "hit", record

    def _land(self, at: tuple[CacheMode, bytes], flight: _Flight) -> None:
        if self._flights.get(at) is flight:
            del self._flights[at]

    async def _fly(
        self, call: Call[Any], key: bytes, recipe: bytes, run: Run
    ) -> tuple[State, Record]:
        if run.mode == "offline":
            raise MissingError(
                f"{describe(call)} is not in the cache, and offline nothing is computed"
            )
        release = None
        if run.mode == "use":
            claim = await self._claims.claim(
                key, recipe, lambda record: self._is_usable(call, recipe, record)
            )
            if claim.record is not None:
                return "hit", claim.record
            release = claim.release
        commit: asyncio.Future[None] | None = None
        try:
            record = await self._compute(call, recipe, run)
            if run.mode != "off" and not self._changed(call, recipe, run):
                self._tell_identities(call)
                commit = self._writer.put(key, record)
                await asyncio.shield(commit)
        finally:
            if release is not None:
                _release_after(commit, release)
        return "computed", record

    def _is_usable(self, call: Call[Any], recipe: bytes, record: Record) -> bool:
        if record.recipe != recipe:
            return False
        unreadable = Outcome(call, "hit", record).unreadable()
        if unreadable is not None:
            self._store.found_unreadable(*unreadable)
        return unreadable is None

    async def _compute(self, call: Call[Any], recipe: bytes, run: Run) -> Record:
        _ = call.node.codec  # a type that cannot be stored is told before the work, not after
        name = call.node.changed_outside(call.inputs)
        if name is not None:
            raise InputError(
                f"{call.node.name} reads {name!r} from around itself, which has changed since the "
                "call was made: pass it as an argument"
            )
        value, seconds = await self._computer.compute(call.node, self._inputs(call, run))
        try:
            return to_record(call.node, recipe, value, seconds)
        except Exception:
            raise
        except BaseException as error:
            # No signal: the value's own code raised it. As it is, it could end the event loop.
            raise RuntimeError(f"{call.node.name}: its value raised {error!r}") from error

    def _changed(self, call: Call[Any], recipe: bytes, run: Run) -> bool:
        """Say whether a call's key is out of date, so that its result must not be kept."""
        where = changed_input(call, recipe, run.known.digest)
        if where is not None and call.node.name not in self._warned:
            self._warned.add(call.node.name)
            logger().warning(
                "%s is not kept: %s changed while it ran, so nobody knows what the result is of; "
                "a step must not change what it reads, nor may another meanwhile",
                describe(call),
                where,
            )
        return where is not None

    def _inputs(self, call: Call[Any], run: Run) -> dict[str, Any]:
        """Return what the function is given: values for calls, handles for resources."""

        def handle(resource: Resource[Any]) -> Handle[Any]:
            return self._pool.handle(resource)

        return {
            name: substitute(value, lambda c: run.outcomes[c].copy(), handle)
            for name, value in call.inputs.items()
            if name in call.node.signature.names
        }

    def _tell_identities(self, call: Call[Any]) -> None:
        """Keep what stands behind the identities in a recipe, for explanations."""
        if call.plain:
            return
        found: list[Resource[Any]] = []
        for value in call.inputs.values():
            substitute(value, lambda _: None, found.append)
        for resource in found:
            identified = resource.identified
            if identified in self._told:
                continue
            self._told.add(identified)
            recipe = identity_recipe(identified)
            payload = b"c" + encode(resource.identity)
            record = Record(recipe, payload, identified.digest, 0.0, 0.0)
            self._writer.put(key_of(recipe), record)


def _release_after(commit: "asyncio.Future[None] | None", release: Callable[[], None]) -> None:
    """End a lease once its record is committed: who takes it next must find the record."""
    if commit is None or commit.done():
        release()
    else:  # the run was cancelled meanwhile
        commit.add_done_callback(lambda _: release())
