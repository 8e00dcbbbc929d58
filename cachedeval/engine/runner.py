"""Running a graph: what the cache does not hold is computed once and kept.

Everything here runs on the engine's own event loop. A flight is one computation that all who want
it wait for: whoever gives up waiting harms no other, and the computation is called off only when
nobody waits any more.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from cachedeval.engine.claims import Claims, Writer
from cachedeval.engine.compute import Computer, to_record
from cachedeval.engine.encoding import encode
from cachedeval.engine.errors import CachedevalError, EncodingError, MissingError
from cachedeval.engine.node import Call, recipe_of, substitute
from cachedeval.engine.outcome import Outcome, State
from cachedeval.engine.recipe import identity_recipe, key_of
from cachedeval.engine.record import Record
from cachedeval.engine.resolve import Resolution
from cachedeval.engine.resource import Handle, Resource, ResourcePool
from cachedeval.engine.store import Store

__all__ = ["CacheMode", "OnOutcome", "Run", "Runner"]

CacheMode = Literal["use", "refresh", "off", "offline"]
"""`use` reads and writes, `refresh` writes alone, `off` neither, `offline` reads alone."""

OnOutcome = Callable[[Outcome], None]


class Run:
    """One request: a graph, what is known of it, and how the cache may be used."""

    def __init__(self, known: Resolution, mode: CacheMode, on_outcome: OnOutcome) -> None:
        self.known = known
        self.outcomes = known.outcomes
        self.mode = mode
        self.on_outcome = on_outcome
        self.records: dict[bytes, Record] = {}
        """What this run computed, by key: it is not computed again, even uncached."""
        self.tasks: dict[Call[Any], asyncio.Task[Outcome]] = {}


class _Flight:
    __slots__ = ("task", "waiters")

    def __init__(self, task: "asyncio.Task[tuple[State, Record]]") -> None:
        self.task = task
        self.waiters = 0


class Runner:
    """Runs graphs on one event loop."""

    def __init__(self, store: Store, pool: ResourcePool) -> None:
        self._pool = pool
        self._claims = Claims(store)
        self._writer = Writer(store)
        self._computer = Computer()
        self._flights: dict[tuple[CacheMode, bytes], _Flight] = {}
        self._told: set[str] = set()

    async def run(self, run: Run) -> None:
        """Give every call of the run an outcome.

        Raises:
            CachedevalError: a fatal one, after which no other call can succeed.
        """
        loop = asyncio.get_running_loop()
        for call in run.known.open:
            run.tasks[call] = loop.create_task(self._settle(call, run))
        try:
            await asyncio.gather(*run.tasks.values())
        except BaseException:
            # A fatal error or an interrupt: let go of the rest, but keep what is done.
            for task in run.tasks.values():
                task.cancel()
            await asyncio.gather(*run.tasks.values(), return_exceptions=True)
            raise
        finally:
            await self._writer.drain()

    def close(self) -> None:
        """End the threads once what was computed is kept."""
        self._computer.close()
        self._claims.close()
        self._writer.close()

    async def _settle(self, call: Call[Any], run: Run) -> Outcome:
        outcome = await self._outcome(call, run)
        run.outcomes[call] = outcome
        run.on_outcome(outcome)
        error = outcome.error
        if isinstance(error, CachedevalError) and error.fatal:
            raise error
        return outcome

    async def _outcome(self, call: Call[Any], run: Run) -> Outcome:
        for upstream in call.upstream:
            task = run.tasks.get(upstream)
            before = run.outcomes[upstream] if task is None else await task
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
        done = run.records.get(key)
        if done is not None:
            return Outcome(call, "hit", done)
        try:
            state, record = await self._join(call, key, recipe, run)
        except Exception as error:  # noqa: BLE001  it belongs to the call, which carries it
            return Outcome(call, "failed", error=error)
        run.records[key] = record
        return Outcome(call, state, record)

    async def _join(
        self, call: Call[Any], key: bytes, recipe: bytes, run: Run
    ) -> tuple[State, Record]:
        """Wait for the flight of a key, and start it if there is none."""
        at = run.mode, key
        flight = self._flights.get(at)
        started = flight is None
        if flight is None:
            task = asyncio.get_running_loop().create_task(self._fly(call, key, recipe, run))
            flight = self._flights[at] = _Flight(task)
            task.add_done_callback(lambda _: self._flights.pop(at, None))
        flight.waiters += 1
        try:
            state, record = await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.task.done():
                flight.task.cancel()
        return (state if started else "hit"), record

    async def _fly(
        self, call: Call[Any], key: bytes, recipe: bytes, run: Run
    ) -> tuple[State, Record]:
        if run.mode == "offline":
            raise MissingError(
                f"a result of {call.node.name} is not in the cache, and offline nothing is computed"
            )
        release = None
        if run.mode == "use":
            claim = await self._claims.claim(key, recipe)
            if claim.record is not None:
                return "hit", claim.record
            release = claim.release
        try:
            value, seconds = await self._computer.compute(call.node, self._inputs(call, run))
            record = to_record(call.node, recipe, value, seconds)
            if run.mode != "off":
                self._tell_identities(call)
                await asyncio.shield(self._writer.put(key, record))
        finally:
            if release is not None:
                release()
        return "computed", record

    def _inputs(self, call: Call[Any], run: Run) -> dict[str, Any]:
        """Return what the function is given: values for calls, handles for resources."""

        def handle(resource: Resource[Any]) -> Handle[Any]:
            return self._pool.handle(resource)

        return {
            name: substitute(value, lambda c: run.outcomes[c].value, handle)
            for name, value in call.inputs.items()
            if name in call.node.signature.names
        }

    def _tell_identities(self, call: Call[Any]) -> None:
        """Keep what stands behind the identities in a recipe, for explanations."""
        found: list[Resource[Any]] = []
        for value in call.inputs.values():
            substitute(value, lambda _: None, found.append)
        for resource in found:
            identified = resource.identified
            if identified.digest in self._told:
                continue
            self._told.add(identified.digest)
            recipe = identity_recipe(identified)
            payload = b"c" + encode(resource.identity)
            record = Record(recipe, payload, identified.digest, 0.0, 0.0)
            self._writer.put(key_of(recipe), record)
