"""What a good engineer writes in an hour: one load, one batch, concurrent judging, JSON files.

    python -m benchmarks.peers.script MODEL ADAPTER DATA QUESTIONS MAX_TOKENS FOLDER [CRITERIA [AT_ONCE]]

It loads the model once, answers all new questions with `mlx_lm.batch_generate`, asks the judge for
all new verdicts at once, and keeps both in a file for each. It imports mlx_lm, asyncio and the SDK
only when something is new. On Linux it opens the same fast BLAS as cachedeval.

What it leaves out: it digests the adapter and trusts the name of the model; it writes the answers
when all of them exist; it checks no file that it reads; it takes any score for a verdict.
"""

import hashlib
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

__all__: list[str] = []

_CRITERIA = "accuracy, relevance, completeness, clarity"
_PROMPT = """Score the response on each criterion from 0 to 10.
Criteria: {criteria}.
Question: {question}
Reference: {reference}
Response: {response}
Reply with JSON like {{"scores": {{"accuracy": 5}}}} only."""
_AT_ONCE = 32


def main() -> None:
    """Evaluate, and print the score and what was new as JSON."""
    model, adapter, data, count, max_tokens, folder, *further = sys.argv[1:]
    rows = [json.loads(line) for line in Path(data).read_text("utf-8").splitlines()]
    rows = random.Random(42).sample(rows, min(int(count), len(rows)))
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    tensors = Path(adapter, "adapters.safetensors")
    weights = hashlib.sha256(tensors.read_bytes()).hexdigest()
    files = [root / _name(model, weights, max_tokens, row["question"]) for row in rows]
    new = [number for number, file in enumerate(files) if not file.exists()]
    if new:
        asked = [rows[number]["question"] for number in new]
        for number, text in zip(new, _generate(model, adapter, asked, max_tokens), strict=True):
            _save(files[number], text)
    prompts = [
        _PROMPT.format(
            criteria=further[0] if further else _CRITERIA,
            question=row["question"],
            reference=row["answer"],
            response=json.loads(file.read_text("utf-8")),
        )
        for row, file in zip(rows, files, strict=True)
    ]
    verdicts = [root / _name("judge", prompt) for prompt in prompts]
    missing = [number for number, file in enumerate(verdicts) if not file.exists()]
    if missing:
        at_once = int(further[1]) if further[1:] else _AT_ONCE
        _judge([(prompts[number], verdicts[number]) for number in missing], at_once)
    scores = [json.loads(file.read_text("utf-8")) for file in verdicts]
    score = sum(10 * sum(one.values()) / len(one) for one in scores) / len(scores)
    print(json.dumps({"score": score, "generated": len(new), "judged": len(missing)}))


def _name(*inputs: str) -> str:
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest() + ".json"


def _save(file: Path, value: Any) -> None:
    new = file.with_suffix(".new")
    new.write_text(json.dumps(value), encoding="utf-8")
    new.replace(file)


def _generate(model_path: str, adapter: str, questions: list[str], max_tokens: str) -> list[str]:
    from cachedeval.evals.mlx.cpu import open_blas  # noqa: PLC0415  only for new answers

    open_blas()
    from mlx_lm import load  # noqa: PLC0415
    from mlx_lm.generate import batch_generate  # noqa: PLC0415

    loaded: Any = load(model_path, adapter_path=adapter)
    model, tokenizer = loaded[:2]
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True
        )
        for question in questions
    ]
    answers: list[str] = batch_generate(model, tokenizer, prompts, max_tokens=int(max_tokens)).texts
    return answers


def _judge(new: list[tuple[str, Path]], at_once: int) -> None:
    import asyncio  # noqa: PLC0415  only for new verdicts

    from cerebras.cloud.sdk import AsyncCerebras  # noqa: PLC0415

    async def all_at_once() -> None:
        client = AsyncCerebras(
            api_key=os.environ["CEREBRAS_API_KEY"], base_url=os.environ["CEREBRAS_BASE_URL"]
        )
        places = asyncio.Semaphore(at_once)

        async def one(prompt: str, file: Path) -> None:
            async with places:
                reply: Any = await client.chat.completions.create(
                    model="judge", messages=[{"role": "user", "content": prompt}], temperature=0
                )
            _save(file, json.loads(reply.choices[0].message.content)["scores"])

        await asyncio.gather(*(one(prompt, file) for prompt, file in new))
        await client.close()

    asyncio.run(all_at_once())


if __name__ == "__main__":
    main()
