"""How long to wait for others who hold the cache: for as long as they show signs of life.

Healthy writers hold a lock for milliseconds, and each of their commits changes a file. Who is
stopped in the middle of a write, or keeps a transaction open, changes nothing. So a wait ends when
nothing has changed for some seconds. Until something changes, later attempts do not wait at all,
and the first one that succeeds ends this state.

SQLite's own waiting is not used: it happens in C, where neither Ctrl-C nor a fork can end it.
"""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

from cachedeval.backend import interrupted
from cachedeval_disk import forks

__all__ = ["Patience"]

_SILENCE = 5.0
"""Seconds without a sign of life after which the others are left alone."""

_AT_MOST = 60.0
"""Seconds of waiting for others who are alive."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.02
"""Seconds between two attempts."""

_Signs = tuple[tuple[int, int] | None, ...]


class Patience:
    """Waits for one kind of lock.

    Args:
        folder: the cache's, as the error names it.
        paths: the files that change while others work.
        guard: the guard that is held during a wait. The wait ends when a fork or `close` wants it.

    Thread safety: one thread at a time, the one that holds the guard.
    """

    def __init__(
        self,
        folder: Path,
        paths: tuple[Path, ...],
        guard: Callable[[], "forks.Guard"],
    ) -> None:
        self._folder = folder
        self._paths = paths
        self._guard = guard
        self._stuck: _Signs | None = None
        """How the files looked when a wait failed."""

    def wait(self, attempt: Callable[[], bool], silence: float | None = None) -> None:
        """Repeat the attempt until it succeeds; the caller has tried once.

        Args:
            attempt: returns whether it succeeded.
            silence: seconds without a sign of life, at most; 5 by default.

        Raises:
            TimeoutError: the others show no sign of life, or Ctrl-C was pressed meanwhile.
            GuardWantedError: a fork or `close` does not want to wait for this.
        """
        silence = _SILENCE if silence is None else silence
        signs = self._signs()
        if signs == self._stuck:
            raise self._error()
        start = since = time.monotonic()
        pause = _FIRST_PAUSE
        while not self._guard().wanted:
            try:
                time.sleep(pause)
                if attempt():
                    self._stuck = None
                    return
            except KeyboardInterrupt:
                self._stuck = signs  # nobody wants to wait again
                raise
            pause = min(2 * pause, _LONGEST_PAUSE)
            now = time.monotonic()
            if (found := self._signs()) != signs:
                signs, since = found, now
            if interrupted() or now - since > silence or now - start > _AT_MOST:
                self._stuck = signs
                raise self._error()
        raise forks.GuardWantedError

    def _error(self) -> TimeoutError:
        return TimeoutError(
            errno.ETIMEDOUT,
            "it is locked by another program that does not go on",
            str(self._folder),
        )

    def _signs(self) -> _Signs:
        return tuple(map(_changed, self._paths))


def _changed(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116  `Path.stat` takes twice as long
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
