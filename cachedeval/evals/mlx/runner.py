"""The model that the steps run: it answers questions, and it judges answers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cachedeval.engine.node import Computed
from cachedeval.evals.generation import Answered, Decoded, DecodeInputs, ids_of, packed
from cachedeval.evals.judging.nodes import JudgedItem
from cachedeval.evals.judging.verdict import Verdict
from cachedeval.evals.mlx.cpu import Cores
from cachedeval.evals.mlx.decoding import Decoded as Answer
from cachedeval.evals.mlx.decoding import DecodeRequest
from cachedeval.evals.mlx.decoding import decode as decode_batch
from cachedeval.evals.mlx.model import load_model
from cachedeval.evals.mlx.runtime import mx
from cachedeval.evals.mlx.scoring import verdicts
from cachedeval.evals.proofs import BATCH_SIZE, Proofs

from mlx_lm.generate import generation_stream  # isort: skip - after the runtime (BLAS)

__all__ = ["ModelRunner"]


class ModelRunner:
    """One base model on this machine; runs on one thread, one generation or judgement at a time.

    Args:
        path: the model's folder.
        batch_size: how many prompts are decoded together; by memory if None.
        memory_budget: bytes for the weights and the caches of a batch, or None.
        proofs: stores whether the model's batches are right; None tests each time.
        texts: returns the model's tokenizer; None reads it from the folder.

    Raises:
        InputError: the folder is missing or cannot be loaded.
    """

    def __init__(
        self,
        path: Path,
        *,
        batch_size: int | None,
        memory_budget: int | None,
        proofs: Proofs | None = None,
        texts: Callable[[], Any] | None = None,
    ) -> None:
        self._cores = Cores(_settle)
        self._loaded = load_model(path, None if texts is None else lambda: texts().tokenizer)
        self._batch_size = batch_size
        self._budget = None if memory_budget is None else max(memory_budget - self.nbytes, 1)
        self._proofs = proofs
        self._taken = False

    @property
    def loads(self) -> int:
        """How often the weights were read from disk."""
        return self._loaded.loads

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return self._loaded.nbytes

    def generate(
        self, adapter: Path | None, batch: Sequence[DecodeInputs]
    ) -> Iterator[Answered | None]:
        """Answer questions; see `cachedeval.evals.generation.Generator`.

        Raises:
            InputError: the adapter cannot be read, or does not fit.
        """
        yield from self._wait()
        with self._take():
            if len(batch) > 1:
                self._prove()
            self._loaded.use_adapter(adapter)
            requests = [
                DecodeRequest(
                    ids_of(asked.prompt.tokens),
                    asked.max_tokens,
                    asked.temperature,
                    asked.top_p,
                    asked.seed or 0,
                    asked.top_k,
                    asked.min_p,
                    asked.repetition_penalty,
                    frozenset(asked.prompt.ends),
                    asked.stop,
                )
                for asked in batch
            ]
            for event in decode_batch(
                self._loaded, requests, batch_size=self._batch_size, memory_budget=self._budget
            ):
                self._cores.share()
                if event is None:
                    yield None
                    continue
                index, answer = event
                if isinstance(answer, Exception):
                    yield index, answer
                    continue
                yield (
                    index,
                    Computed(
                        _decoded(answer),
                        cost={
                            "prompt_tokens": answer.prompt_tokens,
                            "completion_tokens": len(answer.tokens),
                        },
                        provenance={
                            "near_ties": answer.near_ties,
                            "changed": answer.changed,
                            "alone": answer.alone,
                        },
                    ),
                )

    def judge(
        self, items: Sequence[JudgedItem]
    ) -> Iterator[tuple[int, Verdict | Exception] | None]:
        """Yield each item's index and verdict; the base judges, without an adapter."""
        yield from self._wait()
        with self._take():
            self._loaded.use_adapter(None)
            for event in verdicts(self._loaded, items):
                self._cores.share()
                yield event

    def prove(self, rows: int) -> str:
        """Return how batches of up to so many rows differ from prompts alone; empty if not."""
        self._loaded.use_adapter(None)
        return self._loaded.batch_trouble(rows)

    def _prove(self) -> None:
        """Test once whether batches can be trusted, unless answers are decoded one by one anyway."""
        rows = BATCH_SIZE if self._batch_size is None else self._batch_size
        if rows > 1 and rows not in self._loaded.proven and self._proofs is not None:
            self._loaded.proven[rows] = self._proofs.prove(self, rows)

    def close(self) -> None:
        """Release the memory."""
        self._loaded.close()

    def _wait(self) -> Iterator[None]:
        """Let other steps run until the model is free: it has one adapter at a time."""
        while self._taken:
            yield None

    @contextmanager
    def _take(self) -> Iterator[None]:
        self._taken = True
        try:
            yield
        finally:
            self._taken = False


def _decoded(answer: Answer) -> Decoded:
    ended_by = [] if answer.end is None else [answer.end]
    return Decoded(packed([*answer.tokens, *ended_by]), answer.finish_reason)


def _settle() -> None:
    """Wait until nothing is computed."""
    mx.synchronize()
    mx.synchronize(generation_stream)
