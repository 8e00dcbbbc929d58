"""A progress bar on a terminal; nothing in a pipe."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from cachedeval.engine.progress import Bars, OnProgress

__all__ = ["OnProgress", "progress_of"]


@contextmanager
def progress_of(stream: TextIO) -> Iterator[OnProgress | None]:
    """Give a function that shows progress on the stream; None if the stream is no terminal."""
    if not stream.isatty():
        yield None
        return
    bars = Bars(stream)
    try:
        yield bars.show
    finally:
        bars.close()
