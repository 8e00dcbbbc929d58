"""The old script, faithfully: a process for each question, then one judge call after another.

    python -m benchmarks.peers.original MODEL ADAPTER DATA QUESTIONS PART MAX_TOKENS
    python -m benchmarks.peers.original step MODEL ADAPTER MAX_TOKENS  < QUESTION

For each question a new Python process (`step`) imports mlx_lm, loads model and adapter, generates
and exits. Then the judge is called for each answer in turn. The questions are drawn without a seed.
Of long evaluations it runs a part of the questions, and prints how long each took.

On Linux the fast BLAS is opened for it as for cachedeval; without that it would be 20 times slower.
"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

__all__: list[str] = []

_PROMPT = """Score the response on each criterion from 0 to 10.
Criteria: accuracy, relevance, completeness, clarity.
Question: {question}
Reference: {reference}
Response: {response}
Reply with JSON like {{"scores": {{"accuracy": 5}}}} only."""


def main() -> None:
    """Evaluate and print the score and the seconds of each part."""
    begun = time.perf_counter()
    model, adapter, data, count, part, max_tokens = sys.argv[1:]
    rows = [json.loads(line) for line in Path(data).read_text("utf-8").splitlines()]
    drawn = random.sample(rows, min(int(count), len(rows)))[: int(part)]
    from cerebras.cloud.sdk import Cerebras  # noqa: PLC0415  timed with the rest

    client = Cerebras(
        api_key=os.environ["CEREBRAS_API_KEY"], base_url=os.environ["CEREBRAS_BASE_URL"]
    )
    answers, generating, judging, scores = [], [], [], []
    for row in drawn:
        start = time.perf_counter()
        words = [sys.executable, "-m", "benchmarks.peers.original", "step"]
        done = subprocess.run(
            [*words, model, adapter, max_tokens],
            input=row["question"],
            capture_output=True,
            text=True,
            check=True,
        )
        answers.append(done.stdout)
        generating.append(time.perf_counter() - start)
    for row, answer in zip(drawn, answers, strict=True):
        start = time.perf_counter()
        asked = _PROMPT.format(question=row["question"], reference=row["answer"], response=answer)
        reply: Any = client.chat.completions.create(
            model="judge", messages=[{"role": "user", "content": asked}], temperature=0.3
        )
        judging.append(time.perf_counter() - start)
        verdict = json.loads(str(reply.choices[0].message.content))["scores"].values()
        scores.append(10 * sum(verdict) / len(verdict))
    parts = sum(generating) + sum(judging)
    result = {
        "score": sum(scores) / len(scores),
        "generating": generating,
        "judging": judging,
        "rest": time.perf_counter() - begun - parts,
    }
    print(json.dumps(result))


def _step(model_path: str, adapter_path: str, max_tokens: str) -> None:
    """Answer the question on standard input."""
    from cachedeval.evals.mlx.cpu import open_blas  # noqa: PLC0415  the step's alone

    open_blas()
    from mlx_lm import generate, load  # noqa: PLC0415  after the BLAS

    loaded: Any = load(model_path, adapter_path=adapter_path or None)
    model, tokenizer = loaded[:2]
    messages = [{"role": "user", "content": sys.stdin.read()}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    sys.stdout.write(generate(model, tokenizer, prompt, max_tokens=int(max_tokens)))


if __name__ == "__main__":
    if sys.argv[1] == "step":
        _step(*sys.argv[2:])
    else:
        main()
