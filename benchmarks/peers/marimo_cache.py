"""`marimo.persistent_cache` on functions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import marimo

from benchmarks.peers import plain
from benchmarks.peers.harness import Steps, main


def open_cache(folder: Path) -> Steps:
    """Decorate the steps."""

    def kept(function: Callable[..., Any]) -> Callable[..., Any]:
        decorated: Callable[..., Any] = marimo.persistent_cache(save_path=str(folder))(function)
        return decorated

    return Steps(kept(plain.generation), kept(plain.judge), kept(plain.mean))


if __name__ == "__main__":
    main(open_cache)
