"""Stores in the cache whether a model's batches can be trusted.

Whether a model decodes prompts together as it decodes each alone is tested before its batches
are trusted (`cachedeval.evals.mlx.batch_trial`). The result follows from the model's content, the
versions of mlx and mlx_lm, and the number of rows: it is a step like others, and its result is
stored like theirs. But it is computed inside another step, on the thread of the model, just before a
batch is decoded: a run of hits, or one prompt alone, needs no test. A nested `engine.run` is no way
to do that: the step would wait for the one thread that it runs on itself. So the record is looked
up and written here.
"""

import time
from typing import Any, Protocol

import msgspec

from cachedeval.engine.keys import key_of
from cachedeval.engine.node import Call, node, recipe_of
from cachedeval.engine.resolve import resolve_alone
from cachedeval.engine.resource import Handle, Resource
from cachedeval.engine.store import Store
from cachedeval.evals.generation import EXECUTOR

__all__ = ["BATCH_SIZE", "BatchProof", "Proofs", "batch_proof"]

BATCH_SIZE = 32
"""The most rows that are decoded together unless more are asked for."""


class BatchProof(msgspec.Struct, frozen=True):
    """The result of testing a model's batches."""

    trouble: str
    """How a batch differed from each prompt alone; empty if it did not."""


class Prover(Protocol):
    """A loaded model that can be tested."""

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
        store: where they are stored; None stores nothing.
        model: the model, by its content.
    """

    def __init__(self, store: Store | None, model: Resource[Any]) -> None:
        self._store = store
        self._model = model

    def recall(self, rows: int) -> str | None:
        """Return the result of an earlier test, or None if there is none."""
        if self._store is None:
            return None
        call = self._call(rows)
        outcome = resolve_alone(call, self._store.get).outcomes.get(call)
        if outcome is None or outcome.error is not None:
            return None
        trouble: str = outcome.value.trouble
        return trouble

    def remember(self, rows: int, trouble: str, seconds: float) -> None:
        """Store the result of a test.

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
        """Return the stored result of a model's test, or run the test and store it."""
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
