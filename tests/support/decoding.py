"""Prompts of mixed length for tiny models, decoding them, and noise that a batch could have."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

from cachedeval.evals.mlx.decoding import Decoded, DecodeRequest, decode
from cachedeval.evals.mlx.model import LoadedModel
from cachedeval.evals.mlx.prompts import render_prompt
from cachedeval.evals.mlx.runtime import mx
from cachedeval.evals.mlx.sampling import Perturb

__all__ = ["decode_all", "mixed_prompts", "noise"]

_WORDS = [
    "the",
    "river",
    "question",
    "score",
    "12",
    "🙂",
    "tea",
    "rain,",
    "read!",
    "é",
    "x\n",
    "answer",
    "of",
]


def mixed_prompts(loaded: LoadedModel, count: int, *, seed: int = 0) -> list[list[int]]:
    """Return chats of 1 to 100 words, as tokens."""
    rng = random.Random(seed)
    texts = [
        " ".join(rng.choices(_WORDS, k=rng.choice([1, 3, 8, 20, 50, 100]))) for _ in range(count)
    ]
    return [render_prompt(loaded.tokenizer, [{"role": "user", "content": text}]) for text in texts]


def decode_all(
    loaded: LoadedModel, requests: Sequence[DecodeRequest], **options: Any
) -> list[Decoded]:
    """Decode to the end, and return the answers in the order of the requests."""
    answers: dict[int, Decoded] = {}
    for event in decode(loaded, requests, **options):
        if event is not None:
            index, answer = event
            assert index not in answers
            assert isinstance(answer, Decoded), answer
            answers[index] = answer
    return [answers[index] for index in range(len(requests))]


def noise(size: float, draw: int) -> Perturb:
    """Return noise of at most this size on each logit, another one at each call."""
    calls = itertools.count(draw * 1_000_003)

    def perturb(logprobs: mx.array) -> mx.array:
        key = mx.random.key(next(calls))
        return logprobs.astype(mx.float32) + mx.random.uniform(-size, size, logprobs.shape, key=key)

    return perturb
