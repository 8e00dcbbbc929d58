"""What was found out about a model's batches, remembered in the cache.

Whether a model decodes prompts together as it decodes each alone is tried out before its batches
are trusted (`cachedeval.evals.mlx.batch_trial`). What came out follows from the model's content, the
versions of mlx and mlx_lm, and the number of rows: it is a step like others, and its result is
stored like theirs. But it is computed inside of another step, on the thread of the model, when a
batch is about to be decoded: so a run of hits, or one prompt after the other, does without.
"""

import time
from typing import Any, Protocol

import msgspec

from cachedeval.engine.call import Call, recipe_of
from cachedeval.engine.node import node
from cachedeval.engine.recipe import key_of
from cachedeval.engine.resolve import resolve_alone
from cachedeval.engine.resource import Handle, Resource
from cachedeval.engine.store import Store
from cachedeval.evals.generation import EXECUTOR

__all__ = ["BATCH_SIZE", "BatchProof", "Proofs", "batch_proof"]

BATCH_SIZE = 32
"""The most rows that are decoded together unless more are asked for."""


class BatchProof(msgspec.Struct, frozen=True):
    """What came of trying a model's batches."""

    trouble: str
    """How a batch differed from each prompt alone; empty if it did not."""


class Prover(Protocol):
    """A loaded model that can be tried."""

    def prove(self, rows: int) -> str:
        """Return how batches of up to so many rows differ from prompts alone; empty if not."""
        ...


@node(version="1", name="batch_proof", executor=EXECUTOR)
def batch_proof(model: Handle[Prover], rows: int) -> BatchProof:
    """Try a model's batches of up to so many rows."""
    with model as prover:
        return BatchProof(prover.prove(rows))


class Proofs:
    """The proofs of one model.

    Args:
        store: where they are stored; None remembers nothing.
        model: the model, by its content.
    """

    def __init__(self, store: Store | None, model: Resource[Any]) -> None:
        self._store = store
        self._model = model

    def recall(self, rows: int) -> str | None:
        """Return what came of an earlier trial, or None if none is known."""
        if self._store is None:
            return None
        call = self._call(rows)
        outcome = resolve_alone(call, self._store.get).outcomes.get(call)
        if outcome is None or outcome.error is not None:
            return None
        trouble: str = outcome.value.trouble
        return trouble

    def remember(self, rows: int, trouble: str, seconds: float) -> None:
        """Store what came of a trial.

        Args:
            rows: the most rows that were tried.
            trouble: as in `BatchProof`.
            seconds: how long it took.
        """
        if self._store is None:
            return
        # Imports what runs steps, which a run of hits does without.
        from cachedeval.engine.steps import to_record

        recipe = recipe_of(self._call(rows), _no_upstream)
        record = to_record(batch_proof, recipe, BatchProof(trouble), seconds)
        self._store.put_many({key_of(recipe): record})

    def prove(self, prover: Prover, rows: int) -> str:
        """Return what is known of a model's batches, found out by a trial where nothing is."""
        known = self.recall(rows)
        if known is not None:
            return known
        started = time.perf_counter()
        trouble = prover.prove(rows)
        self.remember(rows, trouble, time.perf_counter() - started)
        return trouble

    def _call(self, rows: int) -> Call[BatchProof]:
        return batch_proof(model=self._model, rows=rows)


def _no_upstream(call: Call[Any]) -> str:
    raise AssertionError(f"{call} has no place among the inputs of a proof")
