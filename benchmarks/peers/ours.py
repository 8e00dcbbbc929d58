"""Ours, as a peer among peers: on disk, in memory (single hits), and diskcache's own bytes.

    python -m benchmarks.peers.ours disk|memory|bytes pipeline|point FOLDER [QUESTIONS]

`bytes` is what a hit on disk is measured against: the same key, then diskcache's `get` and `set` of
the same record as bytes, with nothing verified.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import pipeline
from benchmarks.peers import plain
from benchmarks.peers.harness import Steps, main
from cachedeval import Engine


def _engine(kind: str) -> Callable[[Path], Steps]:
    def open_cache(folder: Path) -> Steps:
        engine = Engine(cache="memory:" if kind == "memory" else f"disk:{folder}")

        def run(questions: int) -> float:
            result = pipeline.run_on(engine, questions)
            engine.close()
            return result

        return Steps(
            lambda model, question, bound: engine.run(
                pipeline.generation(model, question, max_tokens=bound)
            ),
            lambda model, question, answer: engine.run(pipeline.judge(model, question, answer)),
            run=run,
        )

    return open_cache


def _bytes(folder: Path) -> Steps:
    import diskcache  # noqa: PLC0415  for this measurement alone

    from cachedeval.engine.call import recipe_of  # noqa: PLC0415
    from cachedeval.engine.recipe import key_of  # noqa: PLC0415

    cache = diskcache.Cache(str(folder), eviction_policy="none", cull_limit=0)

    def generation(model: str, question: str, bound: int) -> Any:
        call = pipeline.generation(model, question, max_tokens=bound)
        recipe = recipe_of(call, lambda _: "")
        key = key_of(recipe)
        found = cache.get(key)
        if found is None:
            found = plain.generation(model, question, bound).encode()
            cache.set(key, found + recipe)
        return found

    return Steps(generation, plain.judge)


if __name__ == "__main__":
    chosen = sys.argv.pop(1)
    main(_bytes if chosen == "bytes" else _engine(chosen))
