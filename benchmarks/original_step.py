"""One question as the old script asked it: import mlx_lm, load model and adapter, generate, exit.

    python -m benchmarks.original_step MODEL ADAPTER MAX_TOKENS  < QUESTION

On Linux the fast BLAS is opened for it as for ours; without that it would be 20 times slower.
"""

import sys
from typing import Any

from cachedeval.evals.mlx.blas import open_blas


def main() -> None:
    """Answer the question on standard input."""
    open_blas()
    from mlx_lm import generate, load  # noqa: PLC0415  after the BLAS

    model_path, adapter_path, max_tokens = sys.argv[1:]
    loaded: Any = load(model_path, adapter_path=adapter_path or None)
    model, tokenizer = loaded[:2]
    messages = [{"role": "user", "content": sys.stdin.read()}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    sys.stdout.write(generate(model, tokenizer, prompt, max_tokens=int(max_tokens)))


if __name__ == "__main__":
    main()
