"""A progress bar on a terminal; nothing in a pipe."""

from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachedeval.engine.progress import OnProgress

__all__ = ["progress_of"]


@contextmanager
def progress_of(stream: TextIO) -> "Iterator[OnProgress | None]":
    """Give a function that shows progress on the stream; None if the stream is no terminal."""
    if not stream.isatty():
        yield None
        return
    from cachedeval.engine.progress import Bars

    bars = Bars(stream)
    try:
        yield bars.show
    finally:
        bars.close()
