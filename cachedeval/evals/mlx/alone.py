"""One prompt after the other: where only one waits, and for models whose batches are not right."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cachedeval.evals.mlx.prefix import Cache, can_shorten
from cachedeval.evals.mlx.runtime import mx
from cachedeval.evals.mlx.sampling import Chooser

from mlx_lm.generate import GenerationBatch, generate_step  # isort: skip - after the runtime (BLAS)
from mlx_lm.models.cache import CacheList  # isort: skip

__all__ = ["OneByOne", "can_batch"]


def can_batch(cache: Iterable[Any]) -> bool:
    """Tell whether prompts with such caches can be decoded together."""
    return all(
        can_batch(layer.caches) if isinstance(layer, CacheList) else hasattr(layer, "merge")
        for layer in cache
    )


class OneByOne:
    """The part of `BatchGenerator` that decoding needs, over `generate_step` and one row.

    Args:
        model: The model.
        stop: The tokens that end an answer.
    """

    def __init__(self, model: Any, stop: set[int]) -> None:
        self._model = model
        self._stop = stop
        self._uid = -1
        self._left = 0
        self._cache: Cache | None = None
        self._steps: Iterator[tuple[Any, mx.array]] | None = None

    def insert(
        self,
        prompts: Sequence[Sequence[int]],
        max_tokens: Sequence[int],
        caches: Sequence[Cache],
        samplers: Sequence[Chooser],
    ) -> list[int]:
        """Begin the one row that there can be."""
        self._uid += 1
        self._left = max_tokens[0]
        self._cache = caches[0]
        self._steps = generate_step(
            mx.array(list(prompts[0])),
            self._model,
            max_tokens=max_tokens[0],
            sampler=samplers[0],
            prompt_cache=caches[0],
        )
        return [self._uid]

    def next(self) -> tuple[list[Any], list[Any]]:
        """Return nothing, and the row's next token as `BatchGenerator` returns a batch's."""
        if self._steps is None:
            return [], []
        token, logprobs = next(self._steps)
        self._left -= 1
        reason = "stop" if token in self._stop else "length" if self._left == 0 else None
        if reason is not None:
            self._steps = None
        return [], [GenerationBatch.Response(self._uid, token, logprobs, reason, None, None)]

    def remove(self, uids: Sequence[int]) -> None:  # noqa: ARG002 - as BatchGenerator's
        """End the row."""
        self._steps = None

    def extract_cache(self, uids: Sequence[int]) -> dict[int, tuple[Cache | None, None]]:
        """Return a copy of the row's cache, which holds the token that `next` returned last.

        A cache that cannot be cut is of no use to the caller, so there is none then.
        """
        cache = self._cache
        whole = copy.deepcopy(cache) if cache is not None and can_shorten(cache) else None
        return dict.fromkeys(uids, (whole, None))

    def close(self) -> None:
        """Let go of the row."""
        self._steps = self._cache = None
