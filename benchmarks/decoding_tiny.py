"""Batches, orders and types of number on tiny models: `python -m benchmarks.decoding_tiny`.

For float32, float16, bfloat16 and 4-bit weights: 200 prompts of mixed length, one by one and in
batches, in three orders; then with noise of half the near-tie bound on the batch's logits, another
draw for each batch, with the rule and without. The exit status is 1 where tokens differ that
should not.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.decoding import decode_all, mixed_prompts, noise  # noqa: E402 -- the path comes first
from support.tiny_model import make_tiny_model  # noqa: E402

from cachedeval.evals.mlx.loading import LoadedModel, load_model  # noqa: E402
from cachedeval.evals.mlx.neartie import near_tie_bound  # noqa: E402
from cachedeval.evals.mlx.requests import DecodeRequest, DecodeStats  # noqa: E402

KINDS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float16": {"dtype": "float16"},
    "bfloat16": {"dtype": "bfloat16"},
    "4 bits, float32 scales": {"quantize_bits": 4},
}


def differing(
    loaded: LoadedModel, requests: list[DecodeRequest], order: int, **options: Any
) -> list[list[int]]:
    """Decode the requests in some order, and return the tokens in the requests' own."""
    places = list(range(len(requests)))
    random.Random(order).shuffle(places)
    decoded = decode_all(loaded, [requests[place] for place in places], **options)
    back = dict(zip(places, decoded, strict=True))
    return [back[place].tokens for place in range(len(requests))]


def measure(name: str, folder: Path, count: int, tokens: int) -> bool:
    """Print the comparison for one kind of model; return whether it holds."""
    loaded = load_model(make_tiny_model(folder, **KINDS[name]))
    requests = [DecodeRequest(prompt, tokens) for prompt in mixed_prompts(loaded, count)]
    begun = time.perf_counter()
    expected = differing(loaded, requests, 0, batch_size=1)
    wrong = 0
    for order, size in enumerate((4, 16, 32)):
        found = differing(loaded, requests, order, batch_size=size)
        wrong += sum(one != other for one, other in zip(expected, found, strict=True))
    print(
        f"{name}: {wrong} of {3 * count} answers differ from one by one; "
        f"{time.perf_counter() - begun:.0f} s",
        flush=True,
    )
    bound = near_tie_bound(loaded.model)
    some = requests[: count // 2]
    differ = {}
    for rule in (bound, 0.0):
        stats = DecodeStats()
        one, other = (
            differing(
                loaded,
                some,
                draw,
                batch_size=(8, 32)[draw],
                bound=rule,
                perturb=noise(bound / 2, draw),
                stats=stats,
            )
            for draw in (0, 1)
        )
        differ[rule] = sum(a != b for a, b in zip(one, other, strict=True))
        print(
            f"  noise of {bound / 2:g}, bound {rule:g}: {differ[rule]} of {len(some)} answers "
            f"differ; {stats.step_tokens} tokens in {stats.steps} passes, "
            f"{stats.canonical_passes} canonical passes, which changed {stats.changed}",
            flush=True,
        )
    return wrong == 0 and differ[bound] == 0


def main() -> None:
    """Measure all kinds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoding_tiny", description=__doc__)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=24)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        holds = [measure(name, Path(folder, name), given.prompts, given.tokens) for name in KINDS]
    sys.exit(0 if all(holds) else 1)


if __name__ == "__main__":
    main()
