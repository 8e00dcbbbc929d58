"""Trying out whether a model's batches can be trusted.

Some architectures of mlx_lm do not decode rows of a batch as they decode each prompt alone: a mask
meets the wrong axis and is broadcast, or the batch is refused. Such faults show in one token or
not at all, so each model is tried before its first batch, with its own weights: a few rows of
different lengths in batches of several sizes. Rows leave and join as they do when answers are
decoded, and one continues alone as at a near tie. Each step's logits must agree with those of the
same tokens read alone, to within the near-tie bound: smaller differences are resolved by canonical
passes (`near_ties`).

A model is tried without an adapter. The layers of an adapter act on each row and token by itself,
and what mixes rows up is what the architecture does with masks, positions and caches.

What it costs, once for a model: with SmolLM2-135M on a CPU, about 2% of the time in which it answers
20 questions with 256 tokens each (1.3 s of 65 s of one core). So the prompts are short, and a fault
that needs thousands of tokens, as where a sliding window or sparse attention begins, is not seen
unless the model is small.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from cachedeval.evals.mlx.near_ties import CanonicalRow, near_tie_bound
from cachedeval.evals.mlx.prefix import PIECE, Cache, can_shorten, prefill
from cachedeval.evals.mlx.runtime import mx

from mlx.utils import tree_flatten  # isort: skip - after the runtime, which opens the BLAS
from mlx_lm.generate import BatchGenerator, generation_stream  # isort: skip - after the runtime
from mlx_lm.models.cache import make_prompt_cache, trim_prompt_cache  # isort: skip

__all__ = ["batch_trouble"]

_TEXT = "The river runs to the sea: 12 towns live by it, and each asks the others for water."
_LENGTHS = (2, 5)
"""Tokens of the prompts. Short, since each pass costs as much as a token of an answer."""
_LONG = (2, 45, 23)
"""The same for a model of at most `_SMALL` bytes, where it costs nothing to see more."""
_SMALL = 2**25
_STEPS = (5, 3, 3)
"""Passes that a row of each of these prompts takes part in, at the most: rows leave at the end."""
_WINDOW = 128
"""The longest sliding window, in tokens, that a prompt of the trial goes beyond."""
_BEST = 10
"""Tokens whose logits are compared: the best ones of both."""


def batch_trouble(model: Any, tokenizer: Any, rows: int) -> str:
    """Decode a few tokens in batches, and compare them with what the model computes alone.

    Args:
        model: The model, wearing no adapter.
        tokenizer: mlx_lm's wrapper, for a prompt's tokens.
        rows: The most rows that will be decoded together, at least 2.

    Returns:
        How they differ, in one line; empty if they do not.
    """
    with mx.stream(generation_stream):
        try:
            return _trouble(model, tokenizer, rows)
        except Exception as error:  # noqa: BLE001 - an architecture refuses a batch as it likes
            reason = next(iter(str(error).splitlines()), "")
            return f"a batch is refused with {type(error).__name__}: {reason}"
        finally:
            mx.clear_cache()


def _trouble(model: Any, tokenizer: Any, rows: int) -> str:
    bound = near_tie_bound(model)
    samples = [_Sample(model, tokens, length) for tokens, length in _prompts(model, tokenizer)]
    counts = {3, *_heads(samples[0].cache), rows}
    sizes = sorted((size for size in counts if 2 <= size <= rows), reverse=True)  # noqa: PLR2004
    for batch in _decode(model, samples, sizes):
        for off in (row.difference(bound) for row in batch):
            if not off < bound:  # NaN is not
                return (
                    f"in a batch of {len(batch)}, logits are off by {off:.2g} from those of the "
                    f"same prompt alone, where rounding explains less than {bound:g}"
                )
    return ""


class _Sample:
    """A prompt and how it goes on, and what the model computes for it alone."""

    def __init__(self, model: Any, tokens: Sequence[int], length: int) -> None:
        self.prompt = list(tokens[:length])
        self.after = list(tokens[length:])
        if length > PIECE or not can_shorten(make_prompt_cache(model)):
            self.cache = prefill(model, self.prompt[:-1])
            read = copy.deepcopy(self.cache)
            logits = model(mx.array([tokens[length - 1 :]]), cache=read)[0]
        else:  # the same in one pass
            self.cache = make_prompt_cache(model)
            logits = model(mx.array([tokens]), cache=self.cache)[0, length - 1 :]
            trim_prompt_cache(self.cache, len(self.after) + 1)
        logits = logits.astype(mx.float32)
        self.logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        mx.eval(self.logprobs)


class _Row:
    """A row of the trial: its sampler keeps the logits, and takes the token that is to come."""

    def __init__(self, sample: _Sample) -> None:
        self.sample = sample
        self.seen: list[mx.array] = []

    def __call__(self, logprobs: mx.array) -> mx.array:
        self.seen.append(logprobs[0].astype(mx.float32))
        return mx.array([self.sample.after[len(self.seen) - 1]])

    def go_on_alone(self, model: Any, cache: Cache) -> None:
        """Compute the last pass again as a near tie is decided, from the row's part of the batch.

        Args:
            model: The model.
            cache: The row's own, out of the batch.
        """
        prompt, passes = self.sample.prompt, len(self.seen)
        row = CanonicalRow.out_of_batch(model, prompt, cache, len(prompt) - 1 + passes)
        logprobs, _, _ = row.next_logprobs(self.sample.after[: passes - 1])
        self.seen[-1] = logprobs[0].astype(mx.float32)

    def difference(self, bound: float) -> float:
        """Return by how much, in the last pass, one of the best tokens led another by more.

        Args:
            bound: Where no token at all is off by as much, the best ones are not picked out.
        """
        alone, here = self.sample.logprobs[len(self.seen) - 1], self.seen[-1]
        error = here - alone
        spread: Any = (error.max() - error.min()).item()
        if not spread < bound:
            best = [mx.argpartition(-each, _BEST)[:_BEST] for each in (alone, here)]
            error = error[mx.concatenate(best)]
            spread = (error.max() - error.min()).item()
        return float(spread)


def _decode(model: Any, samples: Sequence[_Sample], sizes: Sequence[int]) -> Iterator[list[_Row]]:
    """Decode in a batch that shrinks from size to size, to one row, and is joined by another.

    Yields:
        The rows of the batch, after each pass.
    """
    generator: Any = BatchGenerator(
        model, completion_batch_size=sizes[0], prefill_batch_size=sizes[0]
    )
    rows: dict[int, _Row] = {}

    def join(count: int) -> None:
        # Caches that are merged are copied; one that stands alone may be taken as it is.
        for _ in range(count):
            row = _Row(samples[len(rows) % len(samples)])
            (uid,) = generator.insert(
                [row.sample.prompt[-1:]],
                max_tokens=[_STEPS[0] + 2],
                caches=[copy.deepcopy(row.sample.cache) if count == 1 else row.sample.cache],
                samplers=[row],
            )
            rows[uid] = row

    try:
        join(sizes[0])
        for size in sizes:
            leaving = list(rows)[size:]
            generator.remove(leaving)
            for uid in leaving:
                del rows[uid]
            generator.next()
            yield list(rows.values())
        generator.remove(list(rows)[1:])
        rows = dict([*rows.items()][:1])
        join(1)
        generator.next()  # one row, then the other
        yield list(rows.values())[:1]
        yield list(rows.values())[1:]
        generator.next()
        yield list(rows.values())
        uid, row = [*rows.items()][-1]
        row.go_on_alone(model, generator.extract_cache([uid])[uid][0])
        yield [row]
    finally:
        mx.synchronize(generation_stream)
        generator.close()


def _prompts(model: Any, tokenizer: Any) -> Iterator[tuple[list[int], int]]:
    """Yield tokens, and how many of them are the prompt."""
    text = [int(token) for token in tokenizer.encode(_TEXT)] or [0]
    parameters: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    small = sum(array.nbytes for array in parameters.values()) <= _SMALL
    lengths = list(_LONG if small else _LENGTHS)
    windows = {getattr(layer, "max_size", None) or 0 for layer in make_prompt_cache(model)}
    window = max(windows)
    if 0 < window <= _WINDOW:
        lengths[1] = window + 2
    for start, (length, steps) in enumerate(zip(lengths, _STEPS, strict=False)):
        needed = length + steps
        turned = text[start:] + text[:start]
        yield (turned * (needed // len(turned) + 1))[:needed], length


def _heads(cache: Cache) -> set[int]:
    """Return how many heads the keys have, of each kind of layer."""
    layers = [inner for layer in cache for inner in getattr(layer, "caches", (layer,))]
    keys = [getattr(layer, "keys", None) for layer in layers]
    return {int(each.shape[1]) for each in keys if each is not None and each.ndim > 1}
