"""Access to the folder for those who write: who is inside the gate, and with which database."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cachedeval_disk import damage, database, forks, locks
from cachedeval_disk.reader import Reader

if TYPE_CHECKING:
    from cachedeval_disk.writer import Writer

__all__ = ["Access"]

_LOCK_NAME = "lock"

_T = TypeVar("_T")


class Access:
    """Opens the database for writing, makes it where there is none, replaces it where damaged.

    Each operation first looks whether the files that it has open are still those in the folder:
    the folder may have been removed, and a damaged database replaced by another process.

    Args:
        folder: the cache's folder, without symbolic links in it; made when it is first needed.
        reader: knows which database was found damaged by reading it.

    Thread safety: every method may be called from any thread; they take turns.
    """

    def __init__(self, folder: Path, reader: Reader) -> None:
        self._folder = folder
        self._path = folder / database.NAME
        self._reader = reader
        self.guard = forks.Guard()
        """Held during each operation."""
        self._writer: Writer | None = None
        self._lock_file: locks.LockFile | None = None
        forks.register(self)

    def write(self, work: "Callable[[Writer], _T]") -> _T:
        """Do the work, with others who write; once more if the database proves damaged.

        Raises:
            BackendError: the database is not ours to write.
            sqlite3.Error, OSError: it could not be done.
        """

        def once() -> _T:
            with self._writing(alone=False) as writer:
                return work(writer)

        try:
            return forks.repeat_if_forked(once)
        except sqlite3.DatabaseError as error:
            if not damage.is_damage(error):
                raise
        return forks.repeat_if_forked(once)

    def alone(self) -> "AbstractContextManager[Writer]":
        """Write while nobody else does.

        Raises:
            BackendError: the database is not ours to write.
            sqlite3.Error, OSError: it cannot be opened for writing.
        """
        return self._writing(alone=True)

    @contextlib.contextmanager
    def gate(self, *, alone: bool) -> Iterator[None]:
        """Stay inside the gate, without the database.

        Raises:
            OSError: the folder cannot be written to.
        """
        with self.guard, self._attached().gate(alone=alone):
            yield

    def attach(self) -> locks.LockFile:
        """Return the lock file, attached for the caller; make the folder if there is none.

        Raises:
            OSError: the folder cannot be written to.
        """
        if not self._folder.is_dir():
            self._folder.mkdir(0o700, parents=True, exist_ok=True)
        return locks.attach(self._folder / _LOCK_NAME)

    def close(self) -> None:
        """Close the database and the lock file."""
        with self.guard:
            lock_file, self._lock_file = self._lock_file, None
            if lock_file is not None:
                with lock_file.gate(alone=False):
                    self._close_writer()
                lock_file.detach()

    def close_before_fork(self) -> None:
        """Close the database; the lock file stays open, as no child can end its locks."""
        if self._writer is None:
            return
        with contextlib.ExitStack() as stack:
            if self._lock_file is not None and not self._lock_file.is_inside():
                # Without the gate, if another process does not leave it.
                with contextlib.suppress(OSError):
                    stack.enter_context(self._lock_file.gate(alone=False, patience=1.0))
            self._close_writer()

    def forget_parent(self) -> None:
        """In a forked child: forget the parent's connection and lock file."""
        self._writer = self._lock_file = None

    @contextlib.contextmanager
    def _writing(self, *, alone: bool) -> "Iterator[Writer]":
        with self.guard:
            while True:
                lock_file = self._attached()
                if not self._current():
                    with lock_file.gate(alone=True):
                        self._open_writer()
                with lock_file.gate(alone=alone):
                    # Inside, nobody replaces it any more; until here, somebody may have.
                    if (writer := self._current()) is None:
                        continue
                    try:
                        yield writer
                    except sqlite3.DatabaseError as error:
                        if damage.is_damage(error):
                            self._reader.damaged = writer.identity
                        raise
                return

    def _current(self) -> "Writer | None":
        writer = self._writer
        if writer is None or writer.identity in (None, self._reader.damaged):
            return None
        return writer if writer.identity == database.find(self._path) else None

    def _open_writer(self) -> None:
        # diskcache is imported for writing only.
        from cachedeval_disk.writer import Writer  # noqa: PLC0415

        self._close_writer()
        found = database.find(self._path)
        if found is None or found != self._reader.damaged:
            try:
                self._writer = Writer(self._folder, self._folder / _LOCK_NAME)
            except sqlite3.DatabaseError as error:
                if not damage.is_damage(error):
                    raise
            else:
                return
        self._replace()

    def _replace(self) -> None:
        from cachedeval_disk import recovery  # noqa: PLC0415  hardly ever needed
        from cachedeval_disk.writer import Writer  # noqa: PLC0415

        aside = recovery.set_aside(self._folder)
        self._writer = Writer(self._folder, self._folder / _LOCK_NAME)
        kept = recovery.carry_over(aside, self._writer.connection)
        damage.warn(
            "%s was damaged: it is set aside as %s, and the %d values that can be read are kept",
            self._path,
            aside.name,
            kept,
        )

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _attached(self) -> locks.LockFile:
        # Kept between calls; the file is another one when the folder was removed and made again.
        kept = self._lock_file
        if kept is not None:
            if kept.identity == database.find(self._folder / _LOCK_NAME):
                return kept
            self._close_writer()
            self._lock_file = None
            kept.detach()
        self._lock_file = self.attach()
        return self._lock_file
