import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.decoding import decode_all, mixed_prompts, noise

from cachedeval.engine.errors import InputError
from cachedeval.evals.mlx.decoding import Decoded, DecodeRequest, DecodeStats, decode
from cachedeval.evals.mlx.model import LoadedModel, load_model
from cachedeval.evals.mlx.near_ties import BOUNDS, near_tie_bound
from cachedeval.evals.mlx.runtime import mx

import mlx_lm  # isort: skip - after the runtime, which opens the BLAS
from mlx_lm.models.cache import ConcatenateKVCache  # isort: skip

pytestmark = pytest.mark.slow

Make = Callable[..., Path]
KINDS: list[dict[str, Any]] = [
    {},
    {"dtype": "float16"},
    {"dtype": "bfloat16"},
    {"quantize_bits": 4},
]


def greedy(prompts: list[list[int]], max_tokens: int = 10) -> list[DecodeRequest]:
    return [DecodeRequest(prompt, max_tokens) for prompt in prompts]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_neither_batch_nor_order_changes_a_token(tiny_folder: Make, kind: dict[str, Any]) -> None:
    loaded = load_model(tiny_folder(**kind))
    requests = greedy(mixed_prompts(loaded, 16))
    first = decode_all(loaded, requests, batch_size=1)
    for batch_size in (4, 16):
        order = list(range(len(requests)))
        random.Random(batch_size).shuffle(order)
        shuffled = [requests[index] for index in order]
        answers = decode_all(loaded, shuffled, batch_size=batch_size)
        assert [a.tokens for a in answers] == [first[index].tokens for index in order]
        assert [a.text for a in answers] == [first[index].text for index in order]


def test_the_text_is_that_of_mlx_lm(tiny_folder: Make) -> None:
    loaded = load_model(tiny_folder())
    prompts = mixed_prompts(loaded, 12)
    # Tokens that the model says now and then, so that answers end by themselves.
    said = decode_all(loaded, greedy(prompts, 16))
    loaded.tokenizer.eos_token_ids = {a.tokens[9] for a in said[:3]} | {2}
    expected = [
        mlx_lm.generate(loaded.model, loaded.tokenizer, prompt, max_tokens=16) for prompt in prompts
    ]
    answers = decode_all(loaded, greedy(prompts, 16), batch_size=5)
    assert [a.text for a in answers] == expected
    reasons = {a.finish_reason for a in answers}
    assert reasons == {"stop", "length"}
    for answer, prompt in zip(answers, prompts, strict=True):
        assert answer.prompt_tokens == len(prompt)
        assert (len(answer.tokens) == 16) == (answer.finish_reason == "length")


@pytest.mark.parametrize("kind", KINDS[:3], ids=str)
def test_noise_of_half_the_bound_changes_nothing(tiny_folder: Make, kind: dict[str, Any]) -> None:
    loaded = load_model(tiny_folder(**kind))
    # float32's bound is too small for ties to happen in so few steps.
    bound = near_tie_bound(loaded.model) if kind else 0.3
    prompts = mixed_prompts(loaded, 12)
    said = decode_all(loaded, greedy(prompts, 8))
    loaded.tokenizer.eos_token_ids = {a.tokens[-1] for a in said[:3]} | {2}

    def texts(bound: float, draw: int, stats: DecodeStats | None = None) -> list[list[int]]:
        answers = decode_all(
            loaded,
            greedy(prompts),
            batch_size=(1, 5, 12)[draw],
            bound=bound,
            perturb=noise(near / 2, draw),
            stats=stats,
        )
        if stats is not None:
            assert sum(a.near_ties for a in answers) == stats.canonical_passes
            assert sum(a.changed for a in answers) == stats.changed
        return [a.tokens for a in answers]

    near = bound
    stats = [DecodeStats() for _ in range(3)]
    with_rule = [texts(bound, draw, stats[draw]) for draw in range(3)]
    assert with_rule[0] == with_rule[1] == with_rule[2]
    assert all(s.changed > 0 for s in stats)
    without = [texts(0, draw) for draw in range(3)]
    assert without[0] != without[1]


@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_a_drawn_answer_does_not_depend_on_its_neighbours(tiny_folder: Make, top_p: float) -> None:
    loaded = load_model(tiny_folder())
    requests = [
        DecodeRequest(prompt, 10, temperature=0.9, top_p=top_p, seed=seed)
        for prompt in mixed_prompts(loaded, 5)
        for seed in (0, 1, -7)
    ]
    alone = decode_all(loaded, requests, batch_size=1)
    together = decode_all(loaded, requests[::-1], batch_size=16)[::-1]
    assert [a.tokens for a in alone] == [a.tokens for a in together]
    for first in range(0, len(alone), 3):
        assert len({tuple(a.tokens) for a in alone[first : first + 3]}) == 3, "seeds differ"


@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_noise_changes_no_draw_either(tiny_folder: Make, top_p: float) -> None:
    loaded = load_model(tiny_folder())
    requests = [
        DecodeRequest(prompt, 8, temperature=0.9, top_p=top_p, seed=3)
        for prompt in mixed_prompts(loaded, 12)
    ]

    def texts(bound: float, draw: int) -> list[list[int]]:
        answers = decode_all(loaded, requests, batch_size=6, bound=bound, perturb=noise(0.05, draw))
        return [a.tokens for a in answers]

    assert texts(0.1, 1) == texts(0.1, 2)
    assert texts(0, 1) != texts(0, 2)


def test_a_shared_prefix_is_read_once_and_changes_nothing(tiny_folder: Make) -> None:
    loaded = load_model(tiny_folder())
    system = mixed_prompts(loaded, 1, seed=8)[0] * 40
    system = system[:200]
    tails = mixed_prompts(loaded, 6, seed=9)
    odd = [[5, 6, 7], *mixed_prompts(loaded, 2, seed=10)]
    requests = greedy([*[system + tail for tail in tails], *odd])
    separately = [decode_all(load_model(loaded.path), [request])[0] for request in requests]
    stats = DecodeStats()
    together = decode_all(loaded, requests, stats=stats)
    assert [a.tokens for a in together] == [a.tokens for a in separately]
    total = sum(len(r.tokens) - 1 for r in requests)
    assert stats.shared_tokens + stats.prefill_tokens == total
    assert stats.shared_tokens >= 5 * 128
    # The same model and adapter go on with the same prefix.
    again = DecodeStats()
    decode_all(loaded, requests[:1], stats=again)
    assert again.shared_tokens >= 128


def test_an_undecodable_value_is_harmless(tiny_folder: Make) -> None:
    loaded = load_model(tiny_folder(context=128))
    good = mixed_prompts(loaded, 2)[0][:20]
    requests = [
        DecodeRequest([], 4),
        DecodeRequest(good, 4),
        DecodeRequest([7] * 128, 4),
        DecodeRequest(good, 0),
        DecodeRequest(good, 4, temperature=float("nan")),
        DecodeRequest(good, 4, temperature=-1),
        DecodeRequest(good, 4, temperature=1, top_p=0),
        DecodeRequest([7] * 127, 4),
    ]
    results = dict(event for event in decode(loaded, requests) if event is not None)
    assert sorted(results) == list(range(8))
    told = {index: str(r) for index, r in results.items() if isinstance(r, InputError)}
    assert sorted(told) == [0, 2, 3, 4, 5, 6]
    assert "empty" in told[0]
    assert "128 tokens" in told[2]
    assert "max_tokens is 0" in told[3]
    assert "temperature is nan" in told[4]
    assert "temperature is -1" in told[5]
    assert "top_p is 0" in told[6]
    answer, last = results[1], results[7]
    assert isinstance(answer, Decoded)
    assert len(answer.tokens) == 4
    assert isinstance(last, Decoded)
    assert (len(last.tokens), last.finish_reason) == (1, "context")


def test_no_request_is_no_work(tiny_folder: Make) -> None:
    loaded = load_model(tiny_folder())
    assert list(decode(loaded, [])) == []


def test_answers_come_as_they_are_finished(tiny_folder: Make) -> None:
    loaded = load_model(tiny_folder())
    prompt = mixed_prompts(loaded, 1)[0]
    events = list(decode(loaded, [DecodeRequest(prompt, 9), DecodeRequest(prompt, 3)]))
    places = {event[0]: place for place, event in enumerate(events) if event is not None}
    assert places[1] < places[0] == len(events) - 1
    assert events.count(None) >= 6


def test_closing_early_gives_the_memory_back(tiny_folder: Make) -> None:
    loaded = load_model(tiny_folder())
    requests = greedy(mixed_prompts(loaded, 8), 400)
    before = mx.get_active_memory()
    events = decode(loaded, requests)
    for _ in range(20):
        next(events)
    held = mx.get_active_memory() - before
    assert held > 100_000
    events.close()  # type: ignore[attr-defined]
    assert mx.get_active_memory() - before < held / 10
    assert len(decode_all(loaded, requests[:1])[0].tokens) > 0


def test_memory_bounds_the_batch(tiny_folder: Make) -> None:
    loaded = load_model(tiny_folder())
    requests = greedy(mixed_prompts(loaded, 12), 6)
    row = 2 * 2 * 2 * 16 * 4 * 256  # layers, keys and values, heads, size, bytes, tokens
    sizes = {}
    for rows in (1, 4, 100):
        stats = DecodeStats()
        decode_all(loaded, requests, memory_budget=4 * rows * row, stats=stats)
        sizes[rows] = stats.step_tokens / stats.steps
    assert sizes[1] <= 2
    assert sizes[1] < sizes[4] <= 8
    assert sizes[100] == 12


def test_a_swap_forgets_what_was_read(tiny_folder: Make) -> None:
    loaded = load_model(tiny_folder())
    prefix = loaded.shared_prefix("decoding")
    loaded.use_adapter(None)
    assert loaded.shared_prefix("decoding") is prefix
    with pytest.raises(InputError):
        loaded.use_adapter(Path("nowhere"))
    assert loaded.shared_prefix("decoding") is not prefix


def changed_copy(model: Path, folder: Path, **config: object) -> LoadedModel:
    folder.mkdir()
    for source in model.iterdir():
        (folder / source.name).write_bytes(source.read_bytes())
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return load_model(folder)


def test_sliding_windows(tiny_folder: Make, tmp_path: Path) -> None:
    loaded = changed_copy(
        tiny_folder(),
        tmp_path / "sliding",
        layer_types=["full_attention", "sliding_attention"],
        sliding_window=24,
    )
    requests = greedy(mixed_prompts(loaded, 10), 10)
    answers = [
        decode_all(loaded, requests, batch_size=size, bound=0.3, perturb=noise(0.15, size))
        for size in (1, 4, 10)
    ]
    assert sum(a.changed for a in answers[2]) > 0
    assert [a.tokens for a in answers[0]] == [a.tokens for a in answers[1]]
    assert [a.tokens for a in answers[0]] == [a.tokens for a in answers[2]]


def test_caches_that_cannot_stand_in_a_batch(
    tiny_folder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(tiny_folder())
    requests = greedy(mixed_prompts(loaded, 6), 10)
    expected = decode_all(loaded, requests, bound=0.3)
    kind: Any = ConcatenateKVCache
    monkeypatch.setattr(type(loaded.model), "make_cache", lambda _: [kind(), kind()])
    stats = DecodeStats()
    answers = decode_all(
        loaded, requests, batch_size=4, bound=0.3, perturb=noise(0.15, 1), stats=stats
    )
    assert stats.changed > 0
    assert stats.steps == stats.step_tokens
    assert [(a.text, a.finish_reason) for a in answers] == [
        (a.text, a.finish_reason) for a in expected
    ]


def test_the_bound_is_that_of_the_least_precise_type(tiny_folder: Make) -> None:
    for dtype, bound in (("float32", 1e-3), ("float16", 0.1), ("bfloat16", 0.75)):
        assert near_tie_bound(load_model(tiny_folder(dtype=dtype)).model) == bound
        assert BOUNDS[getattr(mx, dtype)] == bound
    assert near_tie_bound(load_model(tiny_folder(quantize_bits=4)).model) == 1e-3
