"""The work that cannot be avoided, measured with mlx_lm's own batched decoding and nothing else.

    python -m benchmarks.ideal MODEL ADAPTER MAX_TOKENS SETS.json

Prints the seconds of: importing mlx_lm, importing the judge's SDK, loading model and adapter, and
decoding each set of prompts, all of its prompts together.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from cachedeval.evals.mlx.blas import open_blas


def main() -> None:
    """Measure, and print JSON."""
    model_path, adapter_path, max_tokens, sets = sys.argv[1:]
    seconds: dict[str, float] = {}
    begun = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal begun
        now = time.perf_counter()
        seconds[name] = now - begun
        begun = time.perf_counter()

    open_blas()
    from mlx_lm import load  # noqa: PLC0415  after the BLAS, and timed
    from mlx_lm.generate import batch_generate  # noqa: PLC0415

    lap("import")
    import cerebras.cloud.sdk  # noqa: F401, PLC0415  what is timed

    lap("sdk")
    loaded: Any = load(model_path, adapter_path=adapter_path or None)
    model, tokenizer = loaded[:2]
    lap("load")
    for name, messages in json.loads(Path(sets).read_text("utf-8")).items():
        prompts = [
            tokenizer.apply_chat_template(chat, add_generation_prompt=True) for chat in messages
        ]
        batch_generate(model, tokenizer, prompts, max_tokens=int(max_tokens))
        lap(f"decode {name}")
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
