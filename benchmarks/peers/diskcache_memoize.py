"""`diskcache.Cache.memoize`, with eviction off, as it must be for results that were paid for."""

from pathlib import Path

import diskcache

from benchmarks.peers import plain
from benchmarks.peers.harness import Steps, main


def open_cache(folder: Path) -> Steps:
    """Decorate the steps."""
    cache = diskcache.Cache(str(folder), eviction_policy="none", cull_limit=0)
    memoize = cache.memoize()
    return Steps(memoize(plain.generation), memoize(plain.judge), memoize(plain.mean))


if __name__ == "__main__":
    main(open_cache)
