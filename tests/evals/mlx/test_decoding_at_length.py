"""Many prompts in batches and orders of all kinds, on tiny models of each type of number."""

import random
from pathlib import Path
from typing import Any

import pytest
from support.decoding import decode_all, mixed_prompts, noise
from support.tiny_model import make_tiny_model

from cachedeval.evals.mlx.decoding import DecodeRequest
from cachedeval.evals.mlx.model import LoadedModel, load_model
from cachedeval.evals.mlx.near_ties import near_tie_bound

pytestmark = pytest.mark.thorough

KINDS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float16": {"dtype": "float16"},
    "bfloat16": {"dtype": "bfloat16"},
    "4 bits, float32 scales": {"quantize_bits": 4},
}
PROMPTS, TOKENS = 200, 24


@pytest.fixture(params=KINDS)
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> LoadedModel:
    return load_model(make_tiny_model(tmp_path / "model", **KINDS[request.param]))


def decoded(
    loaded: LoadedModel, requests: list[DecodeRequest], order: int, **options: Any
) -> list[list[int]]:
    """Decode the requests in some order, and return the tokens in the requests' own order."""
    places = list(range(len(requests)))
    random.Random(order).shuffle(places)
    answers = decode_all(loaded, [requests[place] for place in places], **options)
    back = dict(zip(places, answers, strict=True))
    return [back[place].tokens for place in range(len(requests))]


def test_batches_and_orders_give_the_tokens_of_one_by_one(loaded: LoadedModel) -> None:
    requests = [DecodeRequest(prompt, TOKENS) for prompt in mixed_prompts(loaded, PROMPTS)]
    expected = decoded(loaded, requests, 0, batch_size=1)
    for order, size in enumerate((4, 16, 32)):
        assert decoded(loaded, requests, order, batch_size=size) == expected


def test_noise_below_the_bound_changes_no_token(loaded: LoadedModel) -> None:
    requests = [DecodeRequest(prompt, TOKENS) for prompt in mixed_prompts(loaded, PROMPTS // 2)]
    bound = near_tie_bound(loaded.model)
    one, other = (
        decoded(
            loaded, requests, draw, batch_size=size, bound=bound, perturb=noise(bound / 2, draw)
        )
        for draw, size in ((0, 8), (1, 32))
    )
    assert one == other
