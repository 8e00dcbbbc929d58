"""What batched decoding gives and costs, on a real model: `python -m benchmarks.decoding`.

- `same`: real questions, greedy, at several batch sizes: the same tokens.
- `text`: the same questions: the text of `mlx_lm.generate`, prompt by prompt.
- `speed`: tokens a second, one by one, in a batch, and of `mlx_lm.batch_generate` on the same
  prompts; in turns, so that a busy machine slows all alike; medians of the rounds' ratios.
- `noise`: half the bound's size of noise on the batch's logits, another draw for each batch: with
  the near-tie rule the texts are equal, without it they are not; and what the rule costs.
- `prefix`: a beginning of 512 tokens before 20 questions, against reading it once by hand.
- `swap`: putting on one adapter after another.

`python -m benchmarks.decoding_tiny` compares batches, orders and types of number on tiny models.
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.questions import questions
from cachedeval.evals.mlx.blas import blas_in_use
from cachedeval.evals.mlx.decoding import decode
from cachedeval.evals.mlx.loading import LoadedModel, load_model
from cachedeval.evals.mlx.neartie import near_tie_bound
from cachedeval.evals.mlx.prefix import SharedPrefix, feed, prefill
from cachedeval.evals.mlx.requests import Decoded, DecodeRequest, DecodeStats, render_prompt
from cachedeval.evals.mlx.runtime import mx
from cachedeval.evals.mlx.sampling import Perturb

import mlx_lm  # isort: skip - after the runtime, which opens the BLAS
from mlx_lm.models.cache import make_prompt_cache  # isort: skip

ROOT = Path(__file__).parents[1]
SECTIONS = ("same", "text", "speed", "noise", "prefix", "swap")


def chats(loaded: LoadedModel, count: int) -> list[list[int]]:
    """Return the questions as prompts."""
    return [
        render_prompt(loaded.tokenizer, [{"role": "user", "content": question}])
        for question in questions(count)
    ]


def answers(
    loaded: LoadedModel, prompts: Sequence[list[int]], tokens: int, **options: Any
) -> tuple[list[Decoded], float]:
    """Decode greedily; return the answers in order, and the seconds that they took."""
    found: dict[int, Decoded] = {}
    begun = time.perf_counter()
    for event in decode(loaded, [DecodeRequest(prompt, tokens) for prompt in prompts], **options):
        if event is not None and isinstance(event[1], Decoded):
            found[event[0]] = event[1]
    seconds = time.perf_counter() - begun
    return [found[index] for index in range(len(prompts))], seconds


def noise(size: float, draw: int) -> Perturb:
    """Return noise of at most this size on each logit, another one at each call."""
    calls = iter(range(draw * 10**6, (draw + 1) * 10**6))

    def perturb(logprobs: mx.array) -> mx.array:
        key = mx.random.key(next(calls))
        return logprobs.astype(mx.float32) + mx.random.uniform(-size, size, logprobs.shape, key=key)

    return perturb


def same(loaded: LoadedModel, given: argparse.Namespace) -> Iterator[str]:
    """Compare batch sizes with each other."""
    prompts = chats(loaded, given.questions)
    first: list[list[int]] = []
    for size in given.sizes:
        stats = DecodeStats()
        decoded, seconds = answers(loaded, prompts, given.tokens, batch_size=size, stats=stats)
        said = [answer.tokens for answer in decoded]
        first = first or said
        equal = sum(one == other for one, other in zip(first, said, strict=True))
        yield (
            f"batch of {size}: {equal} of {len(prompts)} answers have the tokens of a batch of "
            f"{given.sizes[0]}; {seconds:.0f} s; {stats.canonical_passes} near ties in "
            f"{stats.step_tokens} tokens, {stats.changed} changed"
        )


def text(loaded: LoadedModel, given: argparse.Namespace) -> Iterator[str]:
    """Compare with the text of `mlx_lm.generate`."""
    prompts = chats(loaded, given.questions)
    decoded, _ = answers(loaded, prompts, given.tokens)
    equal = 0
    for prompt, answer in zip(prompts, decoded, strict=True):
        expected = mlx_lm.generate(loaded.model, loaded.tokenizer, prompt, max_tokens=given.tokens)
        equal += answer.text == expected
    yield f"{equal} of {len(prompts)} texts are those of mlx_lm.generate"


def speed(loaded: LoadedModel, given: argparse.Namespace) -> Iterator[str]:
    """Compare tokens a second: one by one, in a batch, and of mlx_lm's own batch."""
    prompts = chats(loaded, given.questions)
    batch, few = prompts[:16], prompts[4:16:6]
    rates: dict[str, list[float]] = {"ours": [], "plain": [], "single": [], "mlx_lm single": []}
    for _ in range(given.rounds):
        decoded, seconds = answers(loaded, batch, given.tokens, batch_size=16)
        rates["ours"].append(sum(len(answer.tokens) for answer in decoded) / seconds)
        begun = time.perf_counter()
        plain: Any = mlx_lm.batch_generate(
            loaded.model,
            loaded.tokenizer,
            batch,
            max_tokens=given.tokens,
            completion_batch_size=16,
            prefill_batch_size=16,
            return_token_ids=True,
        )
        seconds = time.perf_counter() - begun
        rates["plain"].append(sum(map(len, plain.token_ids)) / seconds)
        decoded, seconds = answers(loaded, few, given.tokens, batch_size=1)
        produced = sum(len(answer.tokens) for answer in decoded)
        rates["single"].append(produced / seconds)
        begun = time.perf_counter()
        for prompt in few:
            mlx_lm.generate(loaded.model, loaded.tokenizer, prompt, max_tokens=given.tokens)
        rates["mlx_lm single"].append(produced / (time.perf_counter() - begun))
    for name, samples in rates.items():
        yield f"{name}: {statistics.median(samples):.1f} tokens/s (of {_told(samples)})"
    for name, wanted in (("plain", 0.9), ("single", 4.0), ("mlx_lm single", 4.0)):
        ratios = [a / b for a, b in zip(rates["ours"], rates[name], strict=True)]
        yield (
            f"batch of 16 against {name}: {statistics.median(ratios):.2f} times "
            f"(of {_told(ratios)}; wanted: {wanted})"
        )


def ties(loaded: LoadedModel, given: argparse.Namespace) -> Iterator[str]:
    """Show that the rule holds under noise, and what it costs."""
    prompts = chats(loaded, given.questions)[: max(4, given.questions // 2)]
    own = near_tie_bound(loaded.model)
    for bound in (own, 0.1):
        for rule in (bound, 0.0):
            texts = []
            stats = DecodeStats()
            for draw, size in enumerate((4, 16)):
                decoded, _ = answers(
                    loaded,
                    prompts,
                    given.tokens,
                    batch_size=size,
                    bound=rule,
                    perturb=noise(bound / 2, draw),
                    stats=stats,
                )
                texts.append([answer.tokens for answer in decoded])
            differ = sum(one != other for one, other in zip(*texts, strict=True))
            yield (
                f"noise of {bound / 2:g}, bound {rule:g}: {differ} of {len(prompts)} texts differ; "
                f"{stats.step_tokens} tokens in {stats.steps} passes of the batch, and "
                f"{stats.canonical_passes} canonical passes over {stats.canonical_tokens} tokens, "
                f"which changed {stats.changed}"
            )


def prefix(loaded: LoadedModel, given: argparse.Namespace) -> Iterator[str]:
    """Compare reading 20 prompts that begin alike with one prefix and the tails."""
    words = [token for prompt in chats(loaded, 40) for token in prompt]
    tails = chats(loaded, 20)
    prompts = [words[: given.prefix] + tail for tail in tails]
    ratios = []
    for _ in range(given.rounds):
        begun = time.perf_counter()
        shared = SharedPrefix(loaded.model)
        shared.expect(prompts)
        for prompt in prompts:
            prefill(loaded.model, prompt, shared)
        ours = time.perf_counter() - begun
        begun = time.perf_counter()
        cache = make_prompt_cache(loaded.model)
        feed(loaded.model, cache, words[: given.prefix])
        for tail in tails:
            feed(loaded.model, copy.deepcopy(cache), tail)
        ideal = time.perf_counter() - begun
        ratios.append(ours / ideal)
    yield (
        f"{given.prefix} tokens shared by {len(prompts)} prompts: {statistics.median(ratios):.2f} times "
        f"one prefix and the tails, each in one pass (of {_told(ratios)}; wanted: 1.3)"
    )
    yield f"without sharing, {sum(map(len, prompts)) / (given.prefix + sum(map(len, tails))):.1f} times as many tokens"


def swap(loaded: LoadedModel, given: argparse.Namespace) -> Iterator[str]:
    """Time the swap of adapters."""
    adapters = sorted(path.parent for path in given.adapters.glob("*/adapter_config.json"))
    samples = []
    for _ in range(given.rounds):
        for adapter in [*adapters, None]:
            begun = time.perf_counter()
            loaded.use_adapter(adapter)
            samples.append((time.perf_counter() - begun) * 1e3)
    yield (
        f"{len(samples)} swaps between {len(adapters)} adapters and none: median "
        f"{statistics.median(samples):.0f} ms, at most {max(samples):.0f}; {loaded.loads} load"
    )


def _told(samples: Sequence[float]) -> str:
    return ", ".join(f"{sample:.2f}" for sample in samples)


def main() -> None:
    """Measure what is asked for, and print it as it comes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoding", description=__doc__)
    parser.add_argument("--model", type=Path, help="a folder; else the demo's model")
    parser.add_argument("--adapters", type=Path, default=ROOT / "examples" / "adapters")
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--sizes", nargs="+", type=int, default=(1, 4, 16, 32))
    parser.add_argument("--prefix", type=int, default=512, help="tokens that prompts begin with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    given = parser.parse_args()
    if given.model is None:
        from cachedeval.evals.demo import ensure_demo_model  # noqa: PLC0415  only then

        given.model = ensure_demo_model(progress=lambda said: print(said, file=sys.stderr))
    loaded = load_model(given.model)
    print(
        f"{given.model.name}, {loaded.nbytes / 2**20:.0f} MiB, on {mx.default_device()}, "
        f"BLAS {Path(blas_in_use() or 'none').name}; near-tie bound {near_tie_bound(loaded.model)}"
    )
    parts: dict[str, Callable[[LoadedModel, argparse.Namespace], Iterator[str]]]
    parts = {
        "same": same,
        "text": text,
        "speed": speed,
        "noise": ties,
        "prefix": prefix,
        "swap": swap,
    }
    for name in given.only:
        print(f"\n{name}")
        for line in parts[name](loaded, given):
            print(f"  {line}", flush=True)


if __name__ == "__main__":
    main()
