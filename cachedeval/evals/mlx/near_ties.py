"""Near ties, resolved in one way at every batch size.

A batch computes a prompt's logits with slightly other rounding than the prompt alone. Where the two
best tokens are closer than that, the batch would decide. So there, and only there, the token is the
best one of a *canonical* forward pass: of that prompt and its answer so far, alone, in pieces
that follow from their lengths (`prefix.cuts` for the prompt, then `ANSWER_PIECE` tokens each).

The bound must exceed the difference of two logits' errors: any token whose lead is larger is the
canonical one too, so that it does not matter on which side of the bound a rounding puts it. What was
measured (SmolLM2-135M, logits up to 25, errors of the difference of two of the ten best):

- float32, a batch of 16 against canonical passes: at most 6e-5 in 384 steps (a random Llama of 256
  by 8 layers: 1e-4, also with 4-bit weights and float32 scales). 0.3% of the steps are nearly tied.
- float16 and bfloat16: on the CPU mlx computes these without any difference between batch and
  alone. So it was estimated, from what reordered sums do where each product is rounded to half
  precision (noise of 1e-6 before the rounding), at 2,618 places: the error of the lead has a
  standard deviation of 0.016 with float16 and 0.135 with bfloat16, which has three bits less; no
  token changed whose lead was over 0.016, and 0.32. 6% and 35% of the steps are under the bounds.

Weights of 4 bits make no more error than what they are multiplied with; their scales' type counts.
A mixture of experts can take another expert at a near tie within the model; no bound sees that.
"""

import copy
from collections.abc import Sequence
from typing import Any

from cachedeval.evals.mlx.prefix import Cache, SharedPrefix, feed, prefill
from cachedeval.evals.mlx.runtime import mx
from cachedeval.evals.mlx.sampling import REPETITION_CONTEXT, Penalty

from mlx.utils import tree_flatten  # isort: skip - after the runtime, which opens the BLAS
from mlx_lm.models.cache import can_trim_prompt_cache, trim_prompt_cache  # isort: skip

__all__ = ["BOUNDS", "CanonicalRow", "near_tie_bound"]

BOUNDS = {mx.float32: 1e-3, mx.float16: 0.1, mx.bfloat16: 0.75}
"""In logits, by the type that the model computes in."""

ANSWER_PIECE = 32
"""Tokens of an answer that go through the canonical pass together."""


def near_tie_bound(model: Any) -> float:
    """Return the bound for a model: the one of the least precise type among its parameters."""
    parameters: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    types = {array.dtype for array in parameters.values()}
    return max(bound for dtype, bound in BOUNDS.items() if dtype in types)


class CanonicalRow:
    """One prompt and its answer so far, computed alone.

    Args:
        model: The model.
        prompt: At least one token.
        cache: Holds the prompt but its last token; it becomes this object's.
        penalty: Applied to the logits; None leaves them as they are.
    """

    def __init__(
        self,
        model: Any,
        prompt: Sequence[int],
        cache: Cache,
        penalty: Penalty | None = None,
    ) -> None:
        self._model = model
        self._penalty = penalty
        self._prompt = list(prompt)
        self._cache = cache
        self._read = len(self._prompt) - 1

    @classmethod
    def out_of_batch(
        cls,
        model: Any,
        prompt: Sequence[int],
        decoded: Cache | None,
        fed: int,
        *,
        shared: SharedPrefix | None = None,
        penalty: Penalty | None = None,
    ) -> "CanonicalRow":
        """Begin with what a batch holds of the prompt, or by reading it again.

        Args:
            model: The model.
            prompt: The row's prompt.
            decoded: The row's own cache out of the batch. Its part for the prompt was computed
                alone (`prefill`) and copied since, so it is canonical; the rest is cut off. `None`,
                or a cache that cannot be cut: the prompt is read again.
            fed: How many tokens that cache holds.
            shared: A prefix to continue from if the prompt is read again.
            penalty: As for the constructor.
        """
        if decoded is None or not can_trim_prompt_cache(decoded):
            return cls(model, prompt, prefill(model, prompt[:-1], shared), penalty)
        trim_prompt_cache(decoded, fed - (len(prompt) - 1))
        return cls(model, prompt, decoded, penalty)

    def next_logprobs(self, answer: Sequence[int]) -> tuple[mx.array, Cache, int]:
        """Compute what comes next.

        Args:
            answer: The answer so far, as it was decided.

        Returns:
            The log-probabilities, of shape (1, vocabulary) and not evaluated; a cache of the
            caller's own that holds all of prompt and answer; how many tokens were read.
        """
        tokens = [*self._prompt, *answer][self._read :]
        read = len(tokens)
        while len(tokens) > ANSWER_PIECE:
            feed(self._model, self._cache, tokens[:ANSWER_PIECE])
            self._read += ANSWER_PIECE
            tokens = tokens[ANSWER_PIECE:]
        cache = copy.deepcopy(self._cache)
        logits = self._model(mx.array([tokens]), cache=cache)[:, -1, :]
        if self._penalty is not None:
            context = [*self._prompt, *answer][-REPETITION_CONTEXT:]
            logits = self._penalty(mx.array(context), logits)
        return logits - mx.logsumexp(logits, axis=-1, keepdims=True), cache, read
