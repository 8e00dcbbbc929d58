"""Progress of a run: one bar for each node, on a terminal and in a notebook.

rich draws the bars. It is imported when the first one is drawn.
"""

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from cachedeval.engine.node import Call
from cachedeval.engine.resolve import graph_of
from cachedeval.engine.result import OnOutcome, Outcome

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Bars", "OnProgress", "reporting"]

OnProgress = Callable[[str, int, int | None], None]
"""Called with a node's name, how many of its calls are done, and how many there are, if known."""

_PAUSE = 0.05
"""Seconds between two reports on one node, at least, except for the last."""


class Bars:
    """A bar for each node; nothing is drawn before the first update.

    Args:
        stream: where to draw; None is standard error, or the output of a notebook's cell.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def show(self, name: str, done: int, total: int | None) -> None:
        """Draw the bar of a node."""
        progress = self._progress
        if progress is None:
            progress = self._progress = self._start()
        if name not in self._tasks:
            self._tasks[name] = progress.add_task(name, total=total)
        progress.update(self._tasks[name], completed=done, total=total)

    def close(self) -> None:
        """Remove the bars."""
        if self._progress is not None:
            self._progress.stop()

    def _start(self) -> "Progress":
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        console = Console(file=self._stream, stderr=self._stream is None)
        progress = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        progress.start()
        return progress


class _Counts:
    """Counts the outcomes of a run by node, and reports them now and then.

    Thread safety: `note` may be called from any thread.
    """

    def __init__(self, totals: Mapping[str, int | None], show: OnProgress) -> None:
        self._totals = totals
        self._show = show
        self._done: Counter[str] = Counter()
        self._next: dict[str, float] = {}
        self._lock = threading.Lock()

    def note(self, outcome: Outcome) -> None:
        """Count an outcome."""
        name = outcome.call.node.name
        with self._lock:
            self._done[name] += 1
            done, total = self._done[name], self._totals.get(name)
            now = time.monotonic()
            if done != total and now < self._next.get(name, 0.0):
                return
            self._next[name] = now + _PAUSE
            self._show(name, done, total)

    def finish(self) -> None:
        """Report the last counts."""
        with self._lock:
            for name, done in self._done.items():
                self._show(name, done, self._totals.get(name))


@contextmanager
def reporting(
    progress: "bool | OnProgress",
    on_outcome: OnOutcome | None,
    calls: Iterable[Call[Any]] | None,
) -> Iterator[OnOutcome | None]:
    """Return a callback that also reports progress.

    Args:
        progress: whether to draw bars, or a function to call instead. Bars are drawn on a terminal
            and in a notebook, and nowhere else.
        on_outcome: the caller's own callback.
        calls: the calls of the run, for their numbers; None if they are not known before.
    """
    bars = Bars() if progress is True and _can_draw() else None
    show: OnProgress | None = bars.show if bars is not None else None
    if not isinstance(progress, bool):
        show = progress
    if show is None:
        yield on_outcome
        return
    graph = graph_of(calls) if calls is not None else []
    totals = Counter(call.node.name for level in graph for call in level)
    counts = _Counts(totals, show)

    def note(outcome: Outcome) -> None:
        counts.note(outcome)
        if on_outcome is not None:
            on_outcome(outcome)

    try:
        yield note
        counts.finish()
    finally:
        if bars is not None:
            bars.close()


def _can_draw() -> bool:
    """Return whether somebody watches: on a terminal, or in a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules
