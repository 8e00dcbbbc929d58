"""The model that the steps run: it answers questions, and it judges answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cachedeval.engine.errors import InputError
from cachedeval.engine.node import Computed
from cachedeval.evals.generation import Answered, Generation, GenerationInputs
from cachedeval.evals.judging.nodes import JudgedItem
from cachedeval.evals.judging.verdict import Verdict
from cachedeval.evals.mlx.cpu import Cores
from cachedeval.evals.mlx.decoding import DecodeRequest, decode
from cachedeval.evals.mlx.model import load_model
from cachedeval.evals.mlx.prompts import render_prompt
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
    ) -> None:
        self._cores = Cores(_settle)
        self._loaded = load_model(path)
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
        self, adapter: Path | None, batch: Sequence[GenerationInputs]
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
            requests: list[DecodeRequest] = []
            places: list[int] = []
            for index, asked in enumerate(batch):
                try:
                    tokens = render_prompt(
                        self._loaded.tokenizer, [dict(message) for message in asked.messages]
                    )
                except InputError as error:
                    yield index, error
                    continue
                places.append(index)
                requests.append(
                    DecodeRequest(
                        tokens,
                        asked.max_tokens,
                        asked.temperature,
                        asked.top_p,
                        asked.seed or 0,
                    )
                )
            for event in decode(
                self._loaded, requests, batch_size=self._batch_size, memory_budget=self._budget
            ):
                self._cores.share()
                if event is None:
                    yield None
                    continue
                index, answer = event
                if isinstance(answer, Exception):
                    yield places[index], answer
                    continue
                yield (
                    places[index],
                    Computed(
                        Generation(answer.text, answer.finish_reason),
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


def _settle() -> None:
    """Wait until nothing is computed."""
    mx.synchronize()
    mx.synchronize(generation_stream)
