"""Top-k, min-p, repetition penalty and stop texts, held against mlx_lm's own."""

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import pytest
import xxhash
from evals.mlx.conftest import Make
from mlx_lm import stream_generate
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p, make_logits_processors
from support.decoding import decode_all, mixed_prompts, noise

from cachedeval.evals.generation import Decoded, packed
from cachedeval.evals.generation import _within as within
from cachedeval.evals.mlx.decoding import DecodeRequest
from cachedeval.evals.mlx.model import LoadedModel, load_model
from cachedeval.evals.mlx.sampling import Chooser

TOKENS = 12


@pytest.fixture(autouse=True)
def no_compiler() -> Iterator[None]:
    """Run mlx_lm's compiled filters as they are: compiling them takes most of the time."""
    mx.disable_compile()
    yield
    mx.enable_compile()


KINDS: list[dict[str, Any]] = [
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.8},
    {"temperature": 0.9, "top_k": 5},
    {"temperature": 0.9, "min_p": 0.3},
    {"temperature": 0.8, "top_p": 0.9, "top_k": 20, "min_p": 0.05, "repetition_penalty": 1.2},
]


LONG = [pytest.param(kind, marks=pytest.mark.thorough) for kind in KINDS[1:-1]]
"""Those that the first and the last, which has all filters, leave to a long run."""


def of_mlx_lm(loaded: LoadedModel, request: DecodeRequest) -> list[int]:
    """Return the tokens of `stream_generate` with mlx_lm's filters and penalty, and our noise."""
    identity = f"{request.seed}:{','.join(map(str, request.tokens))}".encode()
    step = 0

    def sampler(logprobs: mx.array) -> mx.array:
        nonlocal step
        name = identity + b"@%d" % step
        step += 1
        logprobs = logprobs.astype(mx.float32)
        if request.temperature == 0:
            return mx.argmax(logprobs, axis=-1)
        if request.top_p < 1:
            logprobs = apply_top_p(logprobs, request.top_p)
        if request.min_p:
            logprobs = apply_min_p(logprobs, request.min_p)
        if request.top_k:
            logprobs = apply_top_k(logprobs, request.top_k)
        key = mx.random.key(xxhash.xxh3_64_intdigest(name))
        drawn = logprobs + request.temperature * mx.random.gumbel(logprobs.shape, key=key)
        return mx.argmax(drawn, axis=-1)

    said = [
        response.token
        for response in stream_generate(
            loaded.model,
            loaded.tokenizer,
            list(request.tokens),
            max_tokens=request.max_tokens,
            sampler=sampler,
            logits_processors=make_logits_processors(repetition_penalty=request.repetition_penalty),
        )
    ]
    ends = [n for n, token in enumerate(said) if token in loaded.tokenizer.eos_token_ids]
    return said[: ends[0]] if ends else said


@pytest.mark.parametrize("kind", [KINDS[0], *LONG, KINDS[-1]], ids=str)
def test_answers_are_those_of_mlx_lm_alone_and_in_batches(
    tiny_folder: Make, kind: dict[str, Any]
) -> None:
    loaded = load_model(tiny_folder())
    requests = [DecodeRequest(p, TOKENS, seed=3, **kind) for p in mixed_prompts(loaded, 7)]
    wanted = [of_mlx_lm(loaded, request) for request in requests]
    plain = [
        a.tokens for a in decode_all(loaded, [DecodeRequest(r.tokens, TOKENS) for r in requests])
    ]
    assert wanted != plain, "the setting changes something"
    for size in (1, 3, 7):
        assert [a.tokens for a in decode_all(loaded, requests, batch_size=size)] == wanted


@pytest.mark.parametrize("kind", [KINDS[0], *LONG, KINDS[-1]], ids=str)
def test_noise_of_a_batch_changes_no_answer(tiny_folder: Make, kind: dict[str, Any]) -> None:
    loaded = load_model(tiny_folder())
    requests = [DecodeRequest(p, 8, seed=3, **kind) for p in mixed_prompts(loaded, 4)]

    def said(bound: float, draw: int) -> list[list[int]]:
        answers = decode_all(loaded, requests, batch_size=4, bound=bound, perturb=noise(0.03, draw))
        return [a.tokens for a in answers]

    assert said(0.1, 1) == said(0.1, 2) == [of_mlx_lm(loaded, each) for each in requests]


@pytest.mark.parametrize(
    "filters", [{"top_k": 4}, {"min_p": 0.2}, {"top_p": 0.6, "top_k": 9}], ids=str
)
def test_the_filters_keep_what_those_of_mlx_lm_keep(filters: dict[str, Any]) -> None:
    for draw in range(20):
        logits = 3 * mx.random.normal((1, 64), key=mx.random.key(draw))
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        options: dict[str, Any] = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, **filters}
        chooser = Chooser([1], temperature=1.0, seed=0, bound=1e-3, **options)
        kept = mx.stack(chooser._kept(logprobs)).all(axis=0)
        wanted = logprobs
        if options["top_p"] < 1:
            wanted = apply_top_p(wanted, options["top_p"])
        if options["min_p"]:
            wanted = apply_min_p(wanted, options["min_p"])
        if options["top_k"]:
            wanted = apply_top_k(wanted, options["top_k"])
        assert kept.tolist() == mx.isfinite(wanted).tolist()


def test_a_stop_text_ends_its_own_answer_and_no_other(tiny_folder: Make) -> None:
    loaded = load_model(tiny_folder())
    prompts = mixed_prompts(loaded, 6)
    whole = decode_all(loaded, [DecodeRequest(prompt, TOKENS) for prompt in prompts])
    stop = whole[0].text[len(whole[0].text) // 3 :][:2]
    stopped = decode_all(loaded, [DecodeRequest(p, TOKENS, stop=(stop,)) for p in prompts])
    for one, other in zip(whole, stopped, strict=True):
        assert other.tokens == one.tokens[: len(other.tokens)]
        if stop in one.text:
            assert other.finish_reason == "stop"
            assert stop in other.text
        else:
            assert (other.text, other.finish_reason) == (one.text, one.finish_reason)
    alone = decode_all(
        loaded, [DecodeRequest(p, TOKENS, stop=(stop,)) for p in prompts], batch_size=1
    )
    assert [a.tokens for a in alone] == [a.tokens for a in stopped]
    assert len(stopped[0].tokens) < TOKENS


def test_every_bound_serves_what_decoding_with_it_gives(tiny_folder: Make) -> None:
    """A stored answer within a bound is the answer of a run with that bound, also at the context."""
    loaded = load_model(tiny_folder(context=48))
    (prompt,) = [prompt for prompt in mixed_prompts(loaded, 9) if 10 < len(prompt) < 40][:1]
    ends = frozenset({decode_all(loaded, [DecodeRequest(prompt, 9)])[0].tokens[5]})

    def decoded(bound: int, **options: Any) -> Decoded:
        (answer,) = decode_all(loaded, [DecodeRequest(prompt, bound, **options)])
        last = [] if answer.end is None else [answer.end]
        return Decoded(packed([*answer.tokens, *last]), answer.finish_reason)

    for options in ({}, {"ends": ends}, {"seed": 1, "temperature": 1.0}):
        fresh = {bound: decoded(bound, **options) for bound in range(1, 44)}
        for stored in (3, 5, 6, 7, 20, 43):
            for bound, wanted in fresh.items():
                found = within(fresh[stored], bound)
                assert found in (None, wanted)
                if bound <= stored or fresh[stored].finish != "length":
                    assert found == wanted
