"""`joblib.Memory`."""

from pathlib import Path

import joblib

from benchmarks.peers import plain
from benchmarks.peers.harness import Steps, main


def open_cache(folder: Path) -> Steps:
    """Decorate the steps."""
    cache = joblib.Memory(str(folder), verbose=0).cache
    return Steps(cache(plain.generation), cache(plain.judge), cache(plain.mean))


if __name__ == "__main__":
    main(open_cache)
