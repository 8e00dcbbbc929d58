"""inspect_ai's model cache: `cache_fetch` and `cache_store`, as a model call uses them."""

import json
import os
from pathlib import Path
from typing import Any

from benchmarks.peers import plain
from benchmarks.peers.harness import Steps, main


def open_cache(folder: Path) -> Steps:
    """Put the cache around the steps."""
    os.environ["INSPECT_CACHE_DIR"] = str(folder)
    from inspect_ai.model import (  # noqa: PLC0415  after the folder is known
        CachePolicy,
        ChatMessageUser,
        GenerateConfig,
        ModelOutput,
    )
    from inspect_ai.model._cache import CacheEntry, cache_fetch, cache_store  # noqa: PLC0415

    def kept(model: str, prompt: str, compute: Any) -> str:
        entry = CacheEntry(
            base_url=None,
            config=GenerateConfig(max_tokens=150),
            input=[ChatMessageUser(content=prompt)],
            model=model,
            policy=CachePolicy(expiry=None),
            tool_choice=None,
            tools=[],
        )
        output = cache_fetch(entry)
        if output is None:
            output = ModelOutput.from_content(model, compute())
            cache_store(entry, output)
        return str(output.completion)

    def generation(model: str, question: str, max_tokens: int) -> str:
        return kept(model, question, lambda: plain.generation(model, question, max_tokens))

    def judge(model: str, question: str, answer: str) -> Any:
        asked = question + "\n" + answer
        return json.loads(
            kept(model, asked, lambda: json.dumps(plain.judge(model, question, answer)))
        )

    return Steps(generation, judge)


if __name__ == "__main__":
    main(open_cache)
