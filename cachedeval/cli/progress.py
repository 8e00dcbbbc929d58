"""A progress bar on a terminal; nothing in a pipe."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

__all__ = ["OnProgress", "progress_of"]

OnProgress = Callable[[str, int, int], None]
"""Called with a step's name, how many of its calls are done, and how many there are."""


@contextmanager
def progress_of(stream: TextIO) -> Iterator[OnProgress | None]:
    """Give a function that shows progress on the stream; None if the stream is no terminal."""
    if not stream.isatty():
        yield None
        return
    bars = _Bars(stream)
    try:
        yield bars.show
    finally:
        bars.close()


class _Bars:
    """A bar for each step; nothing is drawn, and rich not imported, before the first update."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._progress: object | None = None
        self._tasks: dict[str, int] = {}

    def show(self, step: str, done: int, total: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        if self._progress is None:
            progress = Progress(
                TextColumn("{task.description:>10}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=Console(file=self._stream),
                transient=True,
            )
            progress.start()
            self._progress = progress
        assert isinstance(self._progress, Progress)  # noqa: S101  for the type checker
        if step not in self._tasks:
            self._tasks[step] = self._progress.add_task(step, total=total)
        self._progress.update(self._tasks[step], completed=done, total=total)  # type: ignore[arg-type]

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()  # type: ignore[attr-defined]
