"""Choosing the next token of one prompt, and telling by how much it was chosen."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, Literal

import xxhash

from cachedeval.engine.errors import CachedevalError
from cachedeval.evals.mlx.runtime import mx

__all__ = ["REPETITION_CONTEXT", "Chooser", "NonFiniteLogitsError", "Penalty", "Perturb"]

REPETITION_CONTEXT = 20
"""How many tokens back a repetition penalty counts, prompt included: mlx_lm's own number."""

Penalty = Callable[[mx.array, mx.array], mx.array]
"""A logits processor of mlx_lm: tokens so far, and logits of shape (1, vocabulary), to logits."""

Perturb = Callable[[mx.array], mx.array]
"""Shape (1, vocabulary) to the same: noise, for tests and benchmarks."""


class NonFiniteLogitsError(CachedevalError):
    """The model computed NaN or infinity where it should say how probable each token is."""

    def __init__(self, where: str) -> None:
        super().__init__(
            f"the logits {where} are NaN or infinite: no answer can be read from them. The weights "
            "of the model or the adapter are damaged, or too large for the type that it computes in"
        )


class Chooser:
    """Chooses the tokens of one prompt, step by step; a sampler for `BatchGenerator`.

    Above temperature 0 it draws by the Gumbel-max trick: the token with the highest
    `log p + temperature * noise` is a draw from `p ** (1 / temperature)` (Gumbel 1954; Maddison
    et al. 2014, "A* sampling"). The noise follows from seed, prompt and step alone. So a draw is,
    like a greedy choice, the best of some scores, and nearly tied where the second is close.

    Args:
        prompt: The prompt's tokens.
        temperature: 0 takes the most probable token.
        top_p: Draw from the smallest set of the most probable tokens that has this probability,
            before the temperature, as mlx_lm does; 1 for all.
        top_k: Draw from so many of the most probable tokens; 0 for all.
        min_p: Draw from the tokens that are at least so probable as a part of the most probable
            one; 0 for all.
        seed: Any integer.
        bound: How far the logits of a batch may be from those of the prompt alone; decides which
            tokens are surely in the sets of `top_p`, `top_k` and `min_p`.
        perturb: Applied to the log-probabilities of each step that `__call__` chooses for.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        *,
        temperature: float,
        top_p: float,
        seed: int,
        bound: float,
        top_k: int = 0,
        min_p: float = 0.0,
        perturb: Perturb | None = None,
    ) -> None:
        self._temperature = temperature
        self._top_p = top_p
        self._top_k = top_k
        self._min_p = min_p
        self._bound = bound
        self._perturb = perturb
        self._identity = f"{seed}:{','.join(map(str, prompt))}".encode()
        self._step = 0
        self._leads: deque[mx.array] = deque()

    def __call__(self, logprobs: mx.array) -> mx.array:
        """Choose for the next step, and keep by how much for `lead`.

        Args:
            logprobs: Shape (1, vocabulary).

        Returns:
            The token, shape (1,), not evaluated. The lead is evaluated along with it.
        """
        if self._perturb is not None:
            logprobs = self._perturb(logprobs)
        token, lead = self.choose(logprobs, self._step)
        self._step += 1
        self._leads.append(lead)
        # So that both are computed in the same asynchronous pass.
        chosen: mx.array = mx.depends(token, lead)
        return chosen

    def lead(self) -> float:
        """Return by how much the oldest token that was not asked for was chosen, in logits.

        Raises:
            NonFiniteLogitsError: the logits that it was chosen by were NaN or infinite.
        """
        step = self._step - len(self._leads)
        lead: Any = self._leads.popleft().item()
        return _number(lead, step)

    def decide(self, logprobs: mx.array, step: int) -> int:
        """Choose for one step, without a memory.

        Args:
            logprobs: Shape (1, vocabulary).
            step: As in `choose`.

        Raises:
            NonFiniteLogitsError: a logit is NaN or infinite.
        """
        token, lead = self.choose(logprobs, step)
        mx.eval(token, lead)
        _number(lead.item(), step)
        chosen: Any = token.item()
        return int(chosen)

    def go_on_at(self, step: int) -> None:
        """Forget what was chosen ahead; the next choice is for this step."""
        self._step = step
        self._leads.clear()

    def choose(self, logprobs: mx.array, step: int) -> tuple[mx.array, mx.array]:
        """Choose for one step, without a memory.

        Args:
            logprobs: Shape (1, vocabulary), any floating type.
            step: Counts the prompt's answer's tokens, from 0.

        Returns:
            Token and lead, of shape (1,) each, not evaluated. The lead is the distance of its score
            from the next best one, in logits; negative where it depends on more than that, and NaN
            where a logit was NaN or plus infinity. (Minus infinity rules a token out.)
        """
        logprobs = logprobs.astype(mx.float32)
        token, lead = self._choose(logprobs, step)
        return token, mx.where(mx.isnan(logprobs).any(axis=-1), mx.nan, lead)

    def _choose(self, logprobs: mx.array, step: int) -> tuple[mx.array, mx.array]:
        if self._temperature == 0:
            return _best_two(logprobs)
        name = self._identity + b"@%d" % step
        noise = mx.random.gumbel(logprobs.shape, key=mx.random.key(xxhash.xxh3_64_intdigest(name)))
        scores = logprobs + self._temperature * noise
        kept = self._kept(logprobs)
        if not kept:
            return _best_two(scores)
        token, _ = _best_two(mx.where(_all(kept), scores, -mx.inf))
        # Logits that are off by less than the bound leave in the set at least the sure tokens, and
        # at most the possible ones.
        sure, possible = _all(self._kept(logprobs, -1)), _all(self._kept(logprobs, 1))
        first, lead = _best_two(mx.where(possible, scores, -mx.inf))
        settled = (first == token) & mx.take_along_axis(sure, token[:, None], axis=-1)[:, 0]
        return token, mx.where(settled, lead, -1.0)

    def _kept(self, logprobs: mx.array, side: Literal[-1, 0, 1] = 0) -> list[mx.array]:
        """Return for each filter which tokens it keeps.

        mlx_lm applies one filter after the other. Each keeps the most probable tokens up to some
        rank, so their order does not matter.

        Args:
            logprobs: Shape (1, vocabulary).
            side: -1 for the tokens that every logits within the bound keep, 1 for those that any
                keep, 0 for those that these keep.
        """
        kept = []
        slack = side * self._bound
        if self._top_p < 1:
            descending = -mx.sort(-logprobs, axis=-1)
            probabilities = mx.exp(descending)
            before = mx.cumsum(probabilities, axis=-1) - probabilities
            inside = mx.where(before < self._top_p + slack, descending, mx.inf)
            kept.append(logprobs >= inside.min(axis=-1, keepdims=True) - slack)
        if 0 < self._top_k < logprobs.shape[-1]:
            # A token is surely kept if it leads the best one that is not by the bound.
            rank = self._top_k if side < 0 else self._top_k - 1
            limit = -mx.sort(-logprobs, axis=-1)[:, rank : rank + 1]
            kept.append(logprobs >= limit - slack)
        if self._min_p > 0:
            limit = logprobs.max(axis=-1, keepdims=True) + math.log(self._min_p)
            kept.append(logprobs >= limit - slack)
        return kept


def _all(kept: Sequence[mx.array]) -> mx.array:
    """Return which tokens all filters keep."""
    return reduce(mx.logical_and, kept)


def _number(lead: Any, step: int) -> float:
    """Return a lead that was computed from numbers."""
    if math.isnan(lead):
        raise NonFiniteLogitsError(f"of token {step + 1} of the answer")
    return float(lead)


def _best_two(scores: mx.array) -> tuple[mx.array, mx.array]:
    """Return the best score's place and its distance from the second, shape (1,) each."""
    token = scores.argmax(axis=-1)
    rest = mx.where(mx.arange(scores.shape[-1]) == token[:, None], -mx.inf, scores)
    return token, scores.max(axis=-1) - rest.max(axis=-1)
