"""DSPy's request cache, memory over disk, as `dspy.LM` uses it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dspy.clients.cache import Cache

from benchmarks.peers import plain
from benchmarks.peers.harness import Steps, main


def open_cache(folder: Path) -> Steps:
    """Put the cache around the steps."""
    cache = Cache(
        enable_disk_cache=True,
        enable_memory_cache=True,
        disk_cache_dir=str(folder),
        disk_size_limit_bytes=2**36,
    )

    def keep(function: Callable[..., Any]) -> Callable[..., Any]:
        def kept(*inputs: Any) -> Any:
            request = {"step": function.__name__, "inputs": list(inputs)}
            found = cache.get(request)
            if found is None:
                found = function(*inputs)
                cache.put(request, found)
            return found

        return kept

    return Steps(keep(plain.generation), keep(plain.judge), keep(plain.mean))


if __name__ == "__main__":
    main(open_cache)
