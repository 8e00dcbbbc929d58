"""How many prompts are decoded together, by the memory that their caches take."""

import os
from typing import Any

from cachedeval.evals.mlx.prefix import Cache
from cachedeval.evals.proofs import BATCH_SIZE

__all__ = ["BATCH_SIZE", "Room"]

_BLOCK = 256  # tokens by which mlx_lm's caches grow
_COPIES = 2  # of a batch's caches are in memory while a row joins or leaves it


class Room:
    """Tells whether one more row fits beside others.

    Args:
        batch_size: So many and no more, whatever the memory; ``None``: up to `BATCH_SIZE`.
        memory_budget: Bytes for a batch's caches; ``None``: a quarter of the machine's memory.
    """

    def __init__(self, batch_size: int | None, memory_budget: int | None) -> None:
        self.most = batch_size or BATCH_SIZE
        self._budget: int | None = None
        if batch_size is None:
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            self._budget = memory // 4 if memory_budget is None else memory_budget
        self._block_nbytes = 0

    def learn(self, cache: Cache, tokens: int) -> None:
        """Learn from a cache that holds so many tokens what others will take."""
        layers: list[Any] = [layer for layer in cache if not layer.empty()]
        nbytes = sum(layer.nbytes for layer in layers) // max(1, _blocks(tokens))
        self._block_nbytes = max(self._block_nbytes, nbytes)

    def fits(self, rows: int, tokens: int) -> bool:
        """Tell whether there is room for one more row.

        Args:
            rows: How many there are; the first always fits.
            tokens: Of the longest row, the answer included; a batch pads all others to it.
        """
        if rows == 0:
            return True
        if rows >= self.most:
            return False
        needed = (rows + 1) * _blocks(tokens) * self._block_nbytes * _COPIES
        return self._budget is None or needed <= self._budget


def _blocks(tokens: int) -> int:
    return -(-tokens // _BLOCK)
