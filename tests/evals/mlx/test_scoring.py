import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.decoding import mixed_prompts

from cachedeval.engine.errors import InputError
from cachedeval.evals.mlx.model import load_model
from cachedeval.evals.mlx.runtime import mx
from cachedeval.evals.mlx.scoring import ExpectedScore, digit_tokens, expected_scores


def test_the_digits_have_a_token_each(tiny_folder: Callable[..., Path]) -> None:
    tokenizer = load_model(tiny_folder()).tokenizer
    tokens = digit_tokens(tokenizer)
    assert [tokenizer.decode([token]) for token in tokens] == list("0123456789")


def test_a_tokenizer_without_digits_is_an_error() -> None:
    tokenizer = SimpleNamespace(encode=lambda text, **_: [0 if text.isdigit() else 1])
    with pytest.raises(InputError, match="take another model"):
        digit_tokens(tokenizer)


def test_the_score_is_the_mean_over_the_digits(tiny_folder: Callable[..., Path]) -> None:
    loaded = load_model(tiny_folder())
    digits = digit_tokens(loaded.tokenizer)
    prompt = mixed_prompts(loaded, 1)[0]
    [(index, score)] = expected_scores(loaded, [prompt], digits)
    assert index == 0
    assert isinstance(score, ExpectedScore)
    logits = loaded.model(mx.array([prompt]))[0, -1]
    probabilities: Any = mx.softmax(logits)[mx.array(digits)].tolist()
    assert score.mass == pytest.approx(sum(probabilities), rel=1e-4)
    mean = sum(i * p for i, p in enumerate(probabilities)) / sum(probabilities)
    assert score.expected == pytest.approx(mean, rel=1e-4)
    assert math.fsum(score.probabilities) == pytest.approx(1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_score_does_not_depend_on_its_neighbours(
    tiny_folder: Callable[..., Path], dtype: str
) -> None:
    folder = tiny_folder(dtype=dtype)
    loaded = load_model(folder)
    digits = digit_tokens(loaded.tokenizer)
    rubric = [token for prompt in mixed_prompts(loaded, 20, seed=1) for token in prompt][:270]
    prompts = [rubric + tail for tail in mixed_prompts(loaded, 6)] + mixed_prompts(loaded, 2)
    together = dict(expected_scores(loaded, prompts, digits))
    assert loaded.shared_prefix("scoring").saved >= 5 * 192
    backwards = dict(expected_scores(load_model(folder), prompts[::-1], digits))
    for index, prompt in enumerate(prompts):
        [(_, alone)] = expected_scores(load_model(folder), [prompt], digits)
        assert together[index] == alone == backwards[len(prompts) - 1 - index]


def test_an_adapter_that_does_not_fit_is_reported_and_harmless(
    tiny_folder: Callable[..., Path],
) -> None:
    loaded = load_model(tiny_folder(context=128))
    digits = digit_tokens(loaded.tokenizer)
    results = dict(expected_scores(loaded, [[], [5] * 128, [5] * 127], digits))
    assert isinstance(results[0], InputError)
    assert isinstance(results[1], InputError)
    assert isinstance(results[2], ExpectedScore)
