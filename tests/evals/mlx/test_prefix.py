from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.decoding import mixed_prompts

from cachedeval.evals.mlx import prefix
from cachedeval.evals.mlx.model import LoadedModel, load_model
from cachedeval.evals.mlx.near_ties import CanonicalRow
from cachedeval.evals.mlx.prefix import PIECE, Cache, SharedPrefix, cuts, prefill
from cachedeval.evals.mlx.runtime import mx

from mlx_lm.models.cache import ConcatenateKVCache, RotatingKVCache, make_prompt_cache  # isort: skip


@pytest.fixture(scope="module")
def loaded(tiny_folder: Callable[..., Path]) -> LoadedModel:
    return load_model(tiny_folder())


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the pieces that are read from here on."""
    sizes: list[int] = []
    original = prefix.feed

    def feed(model: object, cache: Cache, tokens: Sequence[int]) -> None:
        sizes.append(len(tokens))
        original(model, cache, tokens)

    monkeypatch.setattr(prefix, "feed", feed)
    return sizes


def content(cache: Cache) -> list[bytes]:
    """The keys and values of all layers, to the last bit."""
    layers = [layer for layer in cache if not layer.empty()]
    return [bits(part) for layer in layers for part in layer.keys_and_values()]


def whole(cache: Cache) -> list[bytes]:
    """The same for caches of other kinds, which hold no more than that."""
    return [bits(part) for layer in cache for part in (layer.keys, layer.values)]


def bits(array: Any) -> bytes:
    whole: Any = mx.contiguous(array)
    return bytes(memoryview(whole))


@pytest.mark.parametrize("length", [0, 1, 63, 64, 127, 128, 129, 191, 192, 1000])
def test_the_last_piece_is_whole(length: int) -> None:
    ends = [0, *cuts(length), length]
    sizes = [after - before for before, after in pairwise(ends)]
    assert all(size == PIECE for size in sizes[:-1])
    if length >= PIECE:
        assert PIECE <= sizes[-1] < 2 * PIECE


def test_sharing_gives_the_same_bits(loaded: LoadedModel, fed: list[int]) -> None:
    start = mixed_prompts(loaded, 20, seed=1)
    system = [token for prompt in start for token in prompt][:300]
    prompts = [system + tail for tail in mixed_prompts(loaded, 8, seed=2)]
    # Two end soon after the prefix, and one leaves it early.
    prompts += [system[:256] + [9] * 10, [*system[:256], 8], system[:150] + [7] * 80]
    expected = [content(prefill(loaded.model, prompt)) for prompt in prompts]
    alone = sum(fed)
    fed.clear()
    shared = SharedPrefix(loaded.model)
    shared.expect(prompts)
    assert [content(prefill(loaded.model, prompt, shared)) for prompt in prompts] == expected
    assert sum(fed) + shared.saved == alone
    # All but the one that leaves early take 192 at least, and 256 where enough follows.
    assert shared.saved == sum(min(256, max(cuts(len(p)))) for p in prompts[:-1]) + 128 - 256
    # What continues from the prefix does not write into it.
    assert content(prefill(loaded.model, prompts[0], shared)) == expected[0]


@pytest.mark.parametrize("kind", [ConcatenateKVCache, partial(RotatingKVCache, 1024)])
def test_caches_that_cannot_be_shortened_share_what_all_can_use(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    model: Any = type(loaded.model)
    monkeypatch.setattr(model, "make_cache", lambda _: [kind(), kind()])
    system = list(range(3, 203))
    prompts = [system + [7 + tail] * 80 for tail in range(3)] + [system[:150] + [7] * 80]
    expected = [whole(prefill(loaded.model, prompt)) for prompt in prompts]
    shared = SharedPrefix(loaded.model)
    shared.expect(prompts)
    assert [whole(prefill(loaded.model, prompt, shared)) for prompt in prompts] == expected
    assert shared.saved == 2 * 192


def test_one_by_one_a_prefix_is_found_at_the_second(loaded: LoadedModel) -> None:
    shared = SharedPrefix(loaded.model)
    prompts = [list(range(3, 203)) + [7 + tail] * 80 for tail in range(3)]
    for prompt in prompts:
        shared.expect([prompt])
        prefill(loaded.model, prompt, shared)
    assert shared.saved == 192


def test_the_prefix_that_saves_most_is_chosen(loaded: LoadedModel) -> None:
    shared = SharedPrefix(loaded.model)
    common, rare = [3] * 128, [4] * 128
    prompts = [common + [tail] * 70 for tail in range(5, 10)]
    prompts += [rare + [tail] * 70 for tail in range(5, 7)] + [[5, 6]]
    shared.expect(prompts)
    for prompt in prompts:
        prefill(loaded.model, prompt, shared)
    assert shared.saved == 4 * 128
    shared.expect([rare + [11] * 70])  # what is to come decides
    prefill(loaded.model, [*rare, *[11] * 70], shared)
    prefill(loaded.model, [*rare, *[12] * 70], shared)
    assert shared.saved == 5 * 128


def test_a_row_out_of_a_batch_is_as_if_alone(loaded: LoadedModel) -> None:
    prompts = mixed_prompts(loaded, 5, seed=4)
    said = [11, 12, 13] * 20
    caches = [prefill(loaded.model, prompt[:-1]) for prompt in prompts]
    layers: list[Any] = [[cache[layer] for cache in caches] for layer in range(2)]
    batch = [layer[0].merge(layer) for layer in layers]
    for step in range(3):
        tokens = [[(prompt[-1], *said)[step]] for prompt in prompts]
        loaded.model(mx.array(tokens), cache=batch)
    for index, prompt in enumerate(prompts):
        taken = [layer.extract(index) for layer in batch]
        row = CanonicalRow.out_of_batch(loaded.model, prompt, taken, len(prompt) + 2)
        again = CanonicalRow.out_of_batch(loaded.model, prompt, None, 0)
        # At other steps, so that they have read other pieces when they come to the same.
        row.next_logprobs(said[:2])
        row.next_logprobs(said[:50])
        one, cache, read = row.next_logprobs(said)
        two, same, whole = again.next_logprobs(said)
        assert bits(one) == bits(two)
        assert content(cache) == content(same)
        assert (read, whole) == (29, 61)


def test_an_empty_beginning_is_an_empty_cache(loaded: LoadedModel) -> None:
    assert content(prefill(loaded.model, [])) == content(make_prompt_cache(loaded.model)) == []
