"""Reading prompts: in pieces that depend on the prompt alone, so that beginnings can be shared.

What a forward pass computes for a token depends, in its last bits, on how many tokens go through
together. So a prompt is cut at places that follow from its own length (`cuts`), and each piece is
read alone, never beside another prompt's. The key-value cache of a beginning is then the same, bit
by bit, whether this prompt was read from its start or continues from what another prompt left: to
share a prefix changes nothing but the time.
"""

import copy
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import xxhash

from cachedeval.evals.mlx.runtime import mx

from mlx_lm.models.cache import KVCache, make_prompt_cache  # isort: skip - after the runtime (BLAS)
from mlx_lm.models.cache import CacheList  # isort: skip

__all__ = [
    "PIECE",
    "Cache",
    "SharedPrefix",
    "can_batch",
    "can_shorten",
    "cuts",
    "feed",
    "prefill",
    "read_to_last_piece",
]

PIECE = 64
"""Tokens in a piece: all have so many, but the last, which has up to twice as many less one.

With SmolLM2-135M on two cores, a token costs 4.6 ms in a piece of 128 or more, 5.4 in one of 64,
6.5 in one of 32, 10 in one of 16. A smaller piece would share a little more of a prefix."""

Cache = list[Any]
"""A layer's key-value cache each, as `mlx_lm.models.cache` makes them for a model."""


def cuts(length: int) -> range:
    """Return the places, in tokens from the start, where the reading of a prompt is cut.

    Args:
        length: How many tokens are read.

    Returns:
        The multiples of `PIECE` that leave at least one `PIECE` after them.
    """
    return range(PIECE, length - PIECE + 1, PIECE)


def feed(model: Any, cache: Cache, tokens: Sequence[int]) -> None:
    """Read tokens in one forward pass, for the cache alone: no logits are computed.

    Args:
        model: The model.
        cache: Extended in place by so many tokens.
        tokens: At least one.
    """
    model(mx.array([tokens]), cache=cache)
    mx.eval([layer.state for layer in cache])


def prefill(model: Any, tokens: Sequence[int], shared: "SharedPrefix | None" = None) -> Cache:
    """Read the beginning of a sequence, alone.

    Args:
        model: The model.
        tokens: What to read; may be empty.
        shared: A prefix to continue from, where it fits.

    Returns:
        The cache that holds these tokens; its content follows from model and tokens alone.
    """
    start, cache = read_to_last_piece(model, tokens, shared)
    if tokens:
        feed(model, cache, tokens[start:])
    mx.clear_cache()
    return cache


def read_to_last_piece(
    model: Any, tokens: Sequence[int], shared: "SharedPrefix | None" = None
) -> tuple[int, Cache]:
    """Read a sequence up to its last cut, alone.

    Args:
        model: The model.
        tokens: The whole sequence.
        shared: A prefix to continue from, where it fits.

    Returns:
        Where the last piece begins, and the cache up to there.
    """
    start, cache = shared.fork(tokens) if shared else (0, make_prompt_cache(model))
    for cut in cuts(len(tokens)):
        if cut > start:
            feed(model, cache, tokens[start:cut])
            start = cut
    return start, cache


class SharedPrefix:
    """The beginning whose sharing saves most, read once for a model and its adapter.

    Attributes:
        saved: How many tokens fewer were read so far.
    """

    def __init__(self, model: Any) -> None:
        self.saved = 0
        self._model = model
        self._seen: Counter[bytes] = Counter()
        self._tokens: list[int] = []
        self._cache: Cache | None = None

    def expect(self, prompts: Iterable[Sequence[int]]) -> None:
        """Choose the prefix for prompts that are to come, given also those that came before.

        Args:
            prompts: What `fork` will be called with. Where none of them begins like another, or
                like one before, the prefix does not change.
        """
        best: list[int] = []
        most = 0
        shortens = can_shorten(make_prompt_cache(self._model))
        for tokens in prompts:
            hasher = xxhash.xxh3_128()
            start = 0
            for cut in range(PIECE, len(tokens) + 1, PIECE) if shortens else cuts(len(tokens)):
                hasher.update(array("q", tokens[start:cut]))
                start = cut
                saved = cut * self._seen[hasher.digest()]
                self._seen[hasher.digest()] += 1
                if saved > most:
                    best, most = list(tokens[:cut]), saved
        if best and best != self._tokens:
            self._tokens, self._cache = best, None

    def fork(self, tokens: Sequence[int]) -> tuple[int, Cache]:
        """Begin to read a sequence.

        Args:
            tokens: The whole of what will be read.

        Returns:
            How many tokens the cache holds already, and the cache, which is the caller's own.
        """
        most = min(len(self._tokens), len(tokens))
        common = next((i for i in range(most) if tokens[i] != self._tokens[i]), most)
        start = max((cut for cut in cuts(len(tokens)) if cut <= common), default=0)
        # A prompt that leaves the prefix early, or ends soon after it, takes what it can use.
        surplus = len(self._tokens) - start
        if start == 0 or (surplus and not can_shorten(make_prompt_cache(self._model))):
            return 0, make_prompt_cache(self._model)
        cache = copy.deepcopy(self._whole())
        if surplus:
            for layer in cache:
                layer.trim(surplus)
        self.saved += start
        return start, cache

    def _whole(self) -> Cache:
        if self._cache is None:
            self._cache = make_prompt_cache(self._model)
            for start in range(0, len(self._tokens), PIECE):
                feed(self._model, self._cache, self._tokens[start : start + PIECE])
            self.saved -= len(self._tokens)
        return self._cache


def can_shorten(cache: Cache) -> bool:
    """Tell whether the last tokens can be taken off again, as if they had never been read.

    Others than the plain kind say that they can, and keep what they were to forget
    (`ConcatenateKVCache` of mlx_lm 0.32), or cannot once they have turned over.
    """
    return all(type(layer) is KVCache for layer in cache)


def can_batch(cache: Iterable[Any]) -> bool:
    """Tell whether prompts with such caches can be decoded together."""
    return all(
        can_batch(layer.caches) if isinstance(layer, CacheList) else hasattr(layer, "merge")
        for layer in cache
    )
