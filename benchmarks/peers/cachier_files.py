"""cachier's pickle core, with a file for each entry: with one for all it is quadratic."""

from pathlib import Path

from cachier import cachier

from benchmarks.peers import plain
from benchmarks.peers.harness import Steps, main


def open_cache(folder: Path) -> Steps:
    """Decorate the steps."""
    cache = cachier(cache_dir=str(folder), separate_files=True)
    return Steps(cache(plain.generation), cache(plain.judge), cache(plain.mean))


if __name__ == "__main__":
    main(open_cache)
