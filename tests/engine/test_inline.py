"""A single synchronous miss: how much of the engine it crosses."""

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import cachedeval.engine
from cachedeval import Engine, node

if TYPE_CHECKING:
    from types import FrameType

ENGINE = str(Path(cachedeval.engine.__file__).parent)

crossed: list[str] = []


@node(version="1")
def look(x: int) -> int:
    """Note the files of the engine between `Engine.run` and here."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(ENGINE) and name not in crossed:
            crossed.append(name)
        frame = frame.f_back
    return x


@pytest.mark.parametrize("scheme", ["memory", "disk"])
def test_it_crosses_at_most_five_files_and_starts_no_thread(tmp_path: Path, scheme: str) -> None:
    crossed.clear()
    before = set(threading.enumerate())
    with Engine("memory:" if scheme == "memory" else f"disk:{tmp_path / 'cache'}") as engine:
        assert engine.run(look(1)) == 1
        assert set(threading.enumerate()) <= before
    assert len(crossed) <= 5, crossed
