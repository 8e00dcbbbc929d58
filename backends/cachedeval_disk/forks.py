"""Forks: no open database crosses one.

SQLite records in the process which locks it holds. A child that inherits a connection inherits
those records without the locks. It then shares the files with its parent by rules that neither
keeps: results are lost, and the database breaks. Nothing in the child repairs that, not even
closing the connection. (https://www.sqlite.org/howtocorrupt.html, section 2.6)

So a fork waits until no thread is inside an operation, closes every connection, and lets operations
go on afterwards. Parent and child each open the files again when they next need them.
"""

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

__all__ = [
    "Guard",
    "GuardWantedError",
    "Part",
    "is_inherited",
    "register",
    "repeat_if_forked",
    "track",
]

_PATIENCE = 30.0
"""Seconds for which a fork waits for the operations of other threads."""

_T = TypeVar("_T")


class GuardWantedError(TimeoutError):
    """An operation stopped waiting for another process, to let a fork or a close go first."""


class Guard:
    """A lock for the operations of one object. Threads take turns, and a fork waits for its turn.

    Reentrant, because a signal handler may fork in the middle of an operation.
    """

    __slots__ = ("_held", "_turn", "wanted")

    def __init__(self) -> None:
        self.wanted = False
        """Whether a fork or a close waits: an operation that waits for another process gives up."""
        self._turn = threading.RLock()
        """All pass here on the way in, so that a busy thread cannot keep a fork out."""
        self._held = threading.RLock()

    def __enter__(self) -> None:
        with self._turn:
            self._held.acquire()

    def __exit__(self, *_: object) -> None:
        self._held.release()

    def stop(self, deadline: float) -> bool:
        """Let nobody in until `resume`. False if a thread does not leave before the deadline."""
        self.wanted = True
        try:
            if not self._turn.acquire(timeout=max(0.0, deadline - time.monotonic())):
                return False
            if not self._held.acquire(timeout=max(0.0, deadline - time.monotonic())):
                self._turn.release()
                return False
        finally:
            self.wanted = False
        return True

    @contextlib.contextmanager
    def first(self) -> Iterator[None]:
        """Hold the guard, before those who hold it only to wait for another process."""
        self.wanted = True
        try:
            self.__enter__()
        finally:
            self.wanted = False
        try:
            yield
        finally:
            self.__exit__()

    def resume(self) -> None:
        """Let operations in again."""
        self._held.release()
        self._turn.release()


class Part(Protocol):
    """An object that keeps connections open between its operations."""

    guard: Guard
    """Held during each operation."""

    def close_before_fork(self) -> None:
        """Close what is open; the next operation opens it again."""

    def forget_parent(self) -> None:
        """In the child: forget all that belongs to the parent, without closing it."""


class _State:
    """What this process knows about its forks."""

    def __init__(self) -> None:
        self.count = 0
        """How many forks were behind this process or before it."""
        self.forking = threading.RLock()
        """One thread forks at a time."""
        self.registry = threading.RLock()
        """Guards the two tables. Nobody waits for a guard while holding it."""
        self.parts: weakref.WeakSet[Part] = weakref.WeakSet()
        self.connections: weakref.WeakKeyDictionary[sqlite3.Connection, Path] = (
            weakref.WeakKeyDictionary()
        )
        """The connections that may be open, and the path of each one's database."""
        self.stopped: list[list[Part]] = []
        """What each fork under way has stopped; more than one if a signal handler forks."""
        self.inherited: list[sqlite3.Connection] = []
        """Connections of the parent that could not be closed. Destroying one would close it."""
        self.inherited_paths: set[Path] = set()


_state = _State()


def register(part: Part) -> None:
    """Close the part's connections before each fork."""
    with _state.registry:
        _state.parts.add(part)


def track(connection: sqlite3.Connection, path: Path) -> None:
    """Close the connection before each fork, even in the middle of an operation of this thread."""
    with _state.registry:
        _state.connections[connection] = path


def is_inherited(path: Path) -> bool:
    """Say whether this process inherited an open connection to a database, so must not use it."""
    return path in _state.inherited_paths


def repeat_if_forked(operation: Callable[..., _T], *args: Any) -> _T:
    """Return what the operation returns; repeat it if a fork or a close came in between.

    Only a signal handler can fork in the middle of an operation: all other threads are waited for.
    """
    while True:
        count = _state.count
        try:
            return operation(*args)
        except GuardWantedError:
            continue  # it waits for the guard now
        except (sqlite3.Error, OSError):
            if count == _state.count:
                raise


def _before() -> None:
    state = _state
    state.forking.acquire()
    deadline = time.monotonic() + _PATIENCE
    stopped: list[Part] = []
    tried: list[Part] = []
    state.registry.acquire()
    while new := [part for part in state.parts if part not in tried]:
        state.registry.release()
        stopped += [part for part in new if part.guard.stop(deadline)]
        tried += new
        state.registry.acquire()
    # The registry stays locked over the fork, so nobody opens a connection now.
    state.stopped.append(stopped)
    for part in stopped:
        with contextlib.suppress(sqlite3.Error, OSError):
            part.close_before_fork()
    if len(stopped) == len(tried):
        # What is still open belongs to an operation that this very thread has interrupted.
        for connection in list(state.connections):
            connection.close()
        state.connections.clear()


def _after_in_parent() -> None:
    state = _state
    if not state.stopped:
        return  # the hook before the fork did not run
    state.count += 1
    for part in reversed(state.stopped.pop()):
        part.guard.resume()
    state.registry.release()
    state.forking.release()


def _after_in_child() -> None:
    parent, state = _state, _State()
    state.count = parent.count + 1
    state.parts, state.inherited = parent.parts, parent.inherited
    # A thread did not leave its operation, or the fork was not Python's.
    state.inherited += parent.connections
    state.inherited_paths = {*parent.inherited_paths, *parent.connections.values()}
    globals()["_state"] = state
    for part in list(state.parts):
        part.guard = Guard()
        part.forget_parent()


os.register_at_fork(
    before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
