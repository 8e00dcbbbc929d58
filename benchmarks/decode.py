"""`python -m benchmarks decode`: what decoding costs beside mlx_lm, and whether tokens are equal.

On real questions with a model such as SmolLM2-135M-Instruct, in turns, so that a busy machine slows
all alike; medians of the rounds' ratios. In this process:

- `same`: the questions decoded greedily at several batch sizes: the same tokens.
- `text`: the same questions: the text of `mlx_lm.generate`, prompt by prompt.
- `speed`: tokens a second, one by one, in a batch, and of `mlx_lm.batch_generate`.
- `noise`: half the bound's size of noise on the batch's logits, another draw for each batch: with
  the near-tie rule the texts are equal, without it they are not; and what the rule costs.
- `prefix`: a beginning of 512 tokens before 20 questions, against reading it once by hand.
- `swap`: putting on one adapter after another.

As whole commands:

- `cold`: an evaluation into an empty cache, with a judge that takes a second for each of its calls,
  against importing mlx_lm, loading the model, and `mlx_lm.batch_generate` of the same prompts.
- `sweep`: adapters over one base, against `batch_generate` with each of them and one load; and
  whether the answers are those of as many runs of one adapter each, on caches of their own.
"""

import argparse
import copy
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.judge import JUDGE, JudgeProcess
from benchmarks.measure import CLI, REPOSITORY, command
from benchmarks.workplace import questions, write_questions
from cachedeval.evals.data import read_questions
from cachedeval.evals.demo import ensure_demo_model
from cachedeval.evals.mlx.cpu import blas_in_use
from cachedeval.evals.mlx.decoding import Decoded, DecodeRequest, DecodeStats, decode
from cachedeval.evals.mlx.model import LoadedModel, load_model
from cachedeval.evals.mlx.near_ties import near_tie_bound
from cachedeval.evals.mlx.prefix import SharedPrefix, feed, prefill
from cachedeval.evals.mlx.prompts import render_prompt
from cachedeval.evals.mlx.runtime import mx
from cachedeval.evals.mlx.sampling import Perturb
from cachedeval.evals.sample import draw

import mlx_lm  # isort: skip - after the runtime, which opens the BLAS
from mlx_lm.models.cache import make_prompt_cache  # isort: skip

__all__ = ["main"]

_COLD, _SWEEP = 1.15, 1.1
"""The ratios that are wanted."""


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
        yield f"{name}: {statistics.median(samples):.1f} tokens/s (of {_listed(samples)})"
    for name, wanted in (("plain", 0.9), ("single", 4.0), ("mlx_lm single", 4.0)):
        ratios = [a / b for a, b in zip(rates["ours"], rates[name], strict=True)]
        yield (
            f"batch of 16 against {name}: {statistics.median(ratios):.2f} times "
            f"(of {_listed(ratios)}; wanted: {wanted})"
        )


def ties(loaded: LoadedModel, given: argparse.Namespace) -> Iterator[str]:
    """Show that the rule holds under noise, and what it costs."""
    prompts = chats(loaded, given.questions)[: max(4, given.questions // 2)]
    own = near_tie_bound(loaded.model)
    for bound in (own, 0.1):
        for rule in (bound, 0.0):
            texts = []
            stats = DecodeStats()
            for number, size in enumerate((4, 16)):
                decoded, _ = answers(
                    loaded,
                    prompts,
                    given.tokens,
                    batch_size=size,
                    bound=rule,
                    perturb=noise(bound / 2, number),
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
        f"one prefix and the tails, each in one pass (of {_listed(ratios)}; wanted: 1.3)"
    )
    yield f"without sharing, {sum(map(len, prompts)) / (given.prefix + sum(map(len, tails))):.1f} times as many tokens"


def swap(loaded: LoadedModel, given: argparse.Namespace) -> Iterator[str]:
    """Time the swap of adapters."""
    adapters = sorted(path.parent for path in given.examples.glob("*/adapter_config.json"))
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


class Commands:
    """A model and questions, and the two ways to answer them.

    Args:
        root: an empty folder.
        given: the command line.
    """

    def __init__(self, root: Path, given: argparse.Namespace) -> None:
        root.mkdir()
        self.root = root
        self.given = given
        self.model: Path = given.model
        self.data = write_questions(root / "questions.jsonl", given.questions)
        drawn = draw(read_questions(self.data), given.questions, seed=42)
        self._sets = root / "sets.json"
        chats = [[dict(message) for message in question.messages] for question in drawn]
        self._sets.write_text(json.dumps({"all": chats}), encoding="utf-8")

    def plain(self, adapter: Path | None) -> dict[str, float]:
        """Return the seconds of mlx_lm alone: `import`, `load` and `decode all`."""
        ran = command(
            [
                *(
                    sys.executable,
                    "-m",
                    "benchmarks.peers.lower_bound",
                    "evaluation",
                    self.model,
                    adapter or "",
                ),
                *(str(self.given.tokens), self._sets),
            ]
        )
        found: dict[str, float] = json.loads(ran.out.splitlines()[-1])
        return found

    def ours(
        self, adapters: Sequence[Path], judge: str, env: dict[str, str]
    ) -> tuple[float, dict[str, Any]]:
        """Evaluate into an empty cache; return the command's seconds and its JSON."""
        cache = self.root / "cache"
        ran = command(
            [
                *(CLI, "run", "--json", "--model", self.model, "--data", self.data),
                *(word for adapter in adapters for word in ("--adapter", adapter)),
                *("--num-questions", str(self.given.questions), "--judge", judge),
                *("--max-tokens", str(self.given.tokens), "--cache", f"disk:{cache}"),
            ],
            env=env,
        )
        shutil.rmtree(cache)
        found: dict[str, Any] = json.loads(ran.out)
        return ran.seconds, found


def cold(commands: Commands) -> Iterator[str]:
    """Compare a cold evaluation with what must be done."""
    ratios = []
    with JudgeProcess(1.0) as judge:
        for _ in range(commands.given.rounds):
            plain = commands.plain(None)
            bound = plain["import"] + plain["load"] + plain["decode all"]
            seconds, found = commands.ours([], JUDGE, judge.env)
            if found["report"]["scored"] != commands.given.questions:
                raise RuntimeError(f"not all were scored: {found['run']}")
            ratios.append(seconds / bound)
            yield (
                f"{seconds:.2f} s, against import {plain['import']:.2f} + load {plain['load']:.2f} "
                f"+ decode {plain['decode all']:.2f} = {bound:.2f} s"
            )
    yield f"cold: {_times(ratios)}; wanted: at most {_COLD}"


def sweep(commands: Commands) -> Iterator[str]:
    """Compare a sweep with decoding as often, and its answers with separate runs."""
    count = commands.given.adapters
    folder = commands.root / "adapters"
    command(
        [sys.executable, "-m", "benchmarks.models", "adapters", commands.model, folder, str(count)]
    )
    adapters = [folder / f"adapter-{number}" for number in range(count)]
    ratios = []
    answers: list[Any] = []
    for _ in range(commands.given.rounds):
        plain = [commands.plain(adapter) for adapter in adapters]
        decode = sum(each["decode all"] for each in plain)
        once = statistics.median(each["import"] + each["load"] for each in plain)
        seconds, found = commands.ours(adapters, "exact", {})
        answers = [_answers(report) for report in found["reports"]]
        ratios.append((seconds - once) / decode)
        yield (
            f"{seconds:.2f} s with {found['run']['loads']} load and "
            f"{found['run']['near_ties']['met']} near ties, against {count} times decoding "
            f"= {decode:.2f} s, and import and load once = {once:.2f} s"
        )
    yield f"sweep, less import and load: {_times(ratios)}; wanted: at most {_SWEEP}"
    if not commands.given.separately:
        return
    separate = [_answers(commands.ours([one], "exact", {})[1]["report"]) for one in adapters]
    pairs = zip(answers, separate, strict=True)
    equal = sum(a == b for one, other in pairs for a, b in zip(one, other, strict=True))
    different = len({json.dumps(each) for each in answers})
    yield (
        f"{equal} of {sum(map(len, answers))} answers are those of {count} separate runs; "
        f"{different} of {count} adapters answer differently"
    )


def _answers(report: dict[str, Any]) -> list[str]:
    return [item["response"] for item in report["items"]]


def _times(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} times (of {_listed(ratios)})"


def _listed(samples: Sequence[float]) -> str:
    return ", ".join(f"{sample:.2f}" for sample in samples)


_LOADED: dict[str, Callable[[LoadedModel, argparse.Namespace], Iterator[str]]] = {
    "same": same,
    "text": text,
    "speed": speed,
    "noise": ties,
    "prefix": prefix,
    "swap": swap,
}
_COMMANDS: dict[str, Callable[[Commands], Iterator[str]]] = {"cold": cold, "sweep": sweep}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for, and print it as it comes."""
    names = (*_LOADED, *_COMMANDS)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks decode",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=Path, help="a folder; else the demo's model")
    parser.add_argument("--examples", type=Path, default=REPOSITORY / "examples" / "adapters")
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--sizes", nargs="+", type=int, default=(1, 4, 16, 32))
    parser.add_argument("--prefix", type=int, default=512, help="tokens that prompts begin with")
    parser.add_argument("--adapters", type=int, default=5, help="of the sweep")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--separately",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run each adapter of the sweep by itself, too",
    )
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    given = parser.parse_args(arguments)
    if given.model is None:
        given.model = ensure_demo_model(progress=lambda text: print(text, file=sys.stderr))
    loaded: LoadedModel | None = None
    with tempfile.TemporaryDirectory(prefix="cachedeval-decode-") as folder:
        for name in given.only:
            if name in _COMMANDS:
                loaded = None  # it takes memory and would slow the commands
                lines = _COMMANDS[name](Commands(Path(folder, name), given))
            else:
                loaded = loaded or _load(given.model)
                lines = _LOADED[name](loaded, given)
            print(f"\n{name}")
            for line in lines:
                print(f"  {line}", flush=True)
    return 0


def _load(folder: Path) -> LoadedModel:
    loaded = load_model(folder)
    print(
        f"{folder.name}, {loaded.nbytes / 2**20:.0f} MiB, on {mx.default_device()}, "
        f"BLAS {Path(blas_in_use() or 'none').name}; near-tie bound {near_tie_bound(loaded.model)}"
    )
    return loaded
