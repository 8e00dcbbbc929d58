"""The disk backend: a folder that several processes read and write at once."""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cachedeval.backend import Backend, Count, Entry, InputError, Label
from cachedeval_disk import database, forks, locks, recovery, usage
from cachedeval_disk.patience import Patience
from cachedeval_disk.reader import Reader, Row

if TYPE_CHECKING:
    from cachedeval_disk.writer import Writer

__all__ = ["DiskBackend", "open_url"]

_LOCK_NAME = "lock"

_BRIEF = 0.5
"""Seconds without a sign of life after which a close or a fork goes on without the lock."""

_T = TypeVar("_T")


class DiskBackend(Backend):
    """Stores values in a folder, for any number of processes.

    Nothing is created before the first write or lease. A corrupt database is replaced at the next
    write, and what can be read of it is carried over. `close` releases what is open; a later call
    opens it again.

    Args:
        path: the folder; `~` is expanded. It is made, for its owner alone, if there is none.

    Raises:
        InputError: the path cannot be a folder.
        BackendError: the folder holds another program's database, or a newer version's.

    Thread safety: every method may be called from any thread. Both sides of a fork may go on: what
    is open is closed before a fork, which waits for operations of other threads.

    Example:
        >>> backend = DiskBackend("./eval_cache")  # doctest: +SKIP
        >>> backend.put_many({b"0123456789abcdef": b"value"})  # doctest: +SKIP
        >>> backend.get_many([b"0123456789abcdef"])  # doctest: +SKIP
        {b'0123456789abcdef': b'value'}
    """

    fails_fast = True

    accepts_pieces = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        given = os.fspath(path)
        if not given or "\0" in given:
            raise InputError(f"cache 'disk:{given}': give a folder, as in disk:./eval_cache")
        # Resolved once: neither `chdir` nor a link set anew moves a cache in the middle of a run.
        try:
            self._folder = Path(given).expanduser().resolve()
        except (OSError, RuntimeError) as error:  # no such user, links in a circle
            raise InputError(f"cache 'disk:{given}': {error}") from error
        if os.path.lexists(self._folder) and not self._folder.is_dir():
            raise InputError(f"cache 'disk:{given}': {self._folder} is not a folder")
        self._path = self._folder / database.NAME
        self._reader = Reader(self._folder)
        self._access = _Access(self._folder, self._reader)
        with contextlib.suppress(sqlite3.Error, OSError):  # raised when something is to be read
            self._reader.open()

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that are stored; no bytes for one that is unreadable.

        Raises:
            BackendError: the database was replaced by one that is not ours.
            sqlite3.Error, OSError: nothing can be read.
        """
        return self._reader.get_many(keys if type(keys) is tuple else list(keys))

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        """Store all the items, or none.

        Raises:
            BackendError: the database was replaced by one that is not ours.
            sqlite3.Error, OSError: none is stored.
        """
        self.put_labelled(items, {})

    def put_labelled(self, items: Mapping[bytes, bytes], labels: Mapping[bytes, Label]) -> None:
        """Store all the items with their labels, or none.

        Raises:
            BackendError: the database was replaced by one that is not ours.
            sqlite3.Error, OSError: none is stored.
        """
        items = dict(items)  # the mapping's own code may wait for a thread that waits for us
        if items:
            self._access.write(lambda writer: writer.put_many(items, labels))

    def delete_many(self, keys: Iterable[bytes]) -> int:
        """Delete the keys and give their space back; return how many were stored.

        Raises:
            BackendError: the database was replaced by one that is not ours.
            sqlite3.Error, OSError: some are still stored.
        """
        wanted = list(dict.fromkeys(keys))
        if not wanted or database.find(self._path) is None:
            return 0
        deleted = self._access.write(lambda writer: writer.delete_many(wanted))
        if deleted:
            # They are deleted. What fails now is done after the next delete, or need not be.
            with contextlib.suppress(sqlite3.Error, OSError), self._access.lock(exclusive=False):
                usage.forget(self._folder, wanted, self._access.patience_for_uses)
            with contextlib.suppress(sqlite3.Error, OSError), self._access.exclusive() as writer:
                writer.give_space_back(deleted)
        return deleted

    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        """Record the use of those keys that are stored.

        Raises:
            sqlite3.Error, OSError: it could not be recorded.
        """
        hits = dict(hits)
        if hits and database.find(self._path) is not None:
            forks.repeat_if_forked(self._touch_many, hits, when)

    def scan(self) -> Iterator[Entry]:
        """Yield an entry for each key stored now, of a corrupt database what can be read.

        Raises:
            BackendError: the database was replaced by one that is not ours.
            sqlite3.Error, OSError: nothing can be read.
        """
        uses = self._reader.uses()
        for row in self._reader.rows():
            yield _entry(row, uses)

    def count(self, *, sizes: bool = True) -> Iterator[Count]:
        """Yield the counts of each label, from the database's index.

        Args:
            sizes: whether more is needed than how many values there are.

        Raises:
            BackendError: the database was replaced by one that is not ours.
            sqlite3.Error, OSError: nothing can be read.
        """
        try:
            counts = self._reader.counts(sizes=sizes)
        except sqlite3.DatabaseError as error:
            if not recovery.is_corruption(error):
                raise
            yield from super().count()  # what can be read
            return
        uses = self._reader.uses() if sizes else usage.Uses()
        hits: dict[str | None, tuple[int, float]] = {}
        for row in self._reader.rows_of(uses.keys()):
            if (use := uses.of(row.key, row.number)) is not None:
                number, seconds = hits.get(row.label, (0, 0.0))
                hits[row.label] = number + use.hits, seconds + use.hits * row.seconds
        for label, values, size in counts:
            yield Count(label, values, size, *hits.get(label, (0, 0.0)))

    def select(
        self, label: str | None, *, newest: int | None = None, used: bool = False
    ) -> Iterator[Entry]:
        """Yield the entries with one label.

        Raises:
            BackendError: the database was replaced by one that is not ours.
            sqlite3.Error, OSError: nothing can be read.
        """
        if label is None:  # also rows that say that they are no bytes, whatever their label
            yield from super().select(label, newest=newest, used=used)
            return
        uses = self._reader.uses()
        if used:
            found = (_entry(row, uses) for row in self._reader.rows_of(uses.keys()))
            yield from (entry for entry in found if entry.label == label and entry.hits)
        elif newest is not None:
            yield from (_entry(row, uses) for row in self._reader.newest(label, newest))
        else:
            yield from (_entry(row, uses) for row in self._reader.rows(label))

    def lease_many(self, keys: Sequence[bytes]) -> set[bytes]:
        """Try to become the only one that computes these keys, among all who use the folder.

        Raises:
            OSError: the folder cannot be written to, or the system has no room for so many locks.
        """
        return self._access.leases.acquire(keys)

    def release_many(self, keys: Iterable[bytes]) -> None:
        """Release leases that `lease_many` granted; ignore keys that are not leased."""
        self._access.leases.release(keys)

    def lease(self, key: bytes) -> AbstractContextManager[bool]:
        """Lease one key within a context; the context's value says whether it was granted.

        Raises:
            OSError: on entering, the folder cannot be written to.
        """
        return locks.Lease(self._access.attach, key)

    def close(self) -> None:
        """Close what is open; closing twice is harmless."""
        self._reader.close()
        self._access.close()

    def _touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        patience = self._access.patience_for_uses
        try:
            with self._access.lock(exclusive=False):
                if not usage.must_be_discarded(self._folder):
                    usage.note(self._folder, hits, when, patience)
                    return
        except sqlite3.DatabaseError as error:
            if not recovery.is_corruption(error):
                raise
        with self._access.lock(exclusive=True):
            usage.discard(self._folder)
            usage.note(self._folder, hits, when, patience)


def _entry(row: Row, uses: usage.Uses) -> Entry:
    from cachedeval_disk.writer import row_size  # noqa: PLC0415  not needed to read

    last, hits = uses.of(row.key, row.number) or (row.created, 0)
    size = row_size(row.size, in_file=row.in_file)
    used = max(last, row.created)
    return Entry(row.key, size, row.created, used, hits, row.label, row.seconds)


class _Access:
    """Opens the database for writing, creates it where there is none, replaces a corrupt one.

    Each operation first looks whether the files that it has open are still those in the folder:
    the folder may have been removed, and a corrupt database replaced by another process.

    Args:
        folder: the cache's folder, without symbolic links in it; made when it is first needed.
        reader: knows which database was found corrupt by reading it.

    Thread safety: every method may be called from any thread; they take turns.
    """

    def __init__(self, folder: Path, reader: Reader) -> None:
        self._folder = folder
        self._path = folder / database.NAME
        self._lock_path = folder / _LOCK_NAME
        self._reader = reader
        self.guard = forks.Guard()
        """Held during each operation."""
        signs = database.signs(folder)
        self._patience = Patience(folder, signs, lambda: self.guard)
        self._patience_for_lock = Patience(folder, signs, lambda: self.guard)
        self.patience_for_uses = Patience(folder, usage.paths(folder), lambda: self.guard)
        self.attach = partial(_attach, folder)
        """Returns the folder's lock file, attached for the caller."""
        self.leases = locks.Leases(self.attach)
        self._writer: Writer | None = None
        self._lock_file: locks.LockFile | None = None
        forks.register(self)

    def write(self, work: "Callable[[Writer], _T]") -> _T:
        """Do the work, with others who write; once more if the database proves corrupt.

        Raises:
            BackendError: the database is not ours to write.
            sqlite3.Error, OSError: it could not be done.
        """

        def once() -> _T:
            with self._writing(exclusive=False) as writer:
                return work(writer)

        try:
            return forks.repeat_if_forked(once)
        except sqlite3.DatabaseError as error:
            if not recovery.is_corruption(error):
                raise
        return forks.repeat_if_forked(once)

    def exclusive(self) -> "AbstractContextManager[Writer]":
        """Write while nobody else does.

        Raises:
            BackendError: the database is not ours to write.
            sqlite3.Error, OSError: it cannot be opened for writing.
        """
        return self._writing(exclusive=True)

    @contextlib.contextmanager
    def lock(self, *, exclusive: bool) -> Iterator[None]:
        """Hold the folder's write lock, without the database.

        Raises:
            OSError: the folder cannot be written to.
        """
        patience = self._patience_for_lock
        with self.guard, self._attached().writing(patience, exclusive=exclusive):
            yield

    def close(self) -> None:
        """Close the database and the lock file; an operation that waits for others goes later."""
        with self.guard.first():
            self.close_before_fork()
            lock_file, self._lock_file = self._lock_file, None
            if lock_file is not None:
                lock_file.detach()

    def close_before_fork(self) -> None:
        """Close the database; the lock file stays open, as no child can end its locks."""
        if self._writer is None:
            return
        with contextlib.ExitStack() as stack:
            if self._lock_file is not None and not self._lock_file.is_writing():
                # Without the lock, if another process does not release it.
                with contextlib.suppress(OSError):
                    lock = self._lock_file.writing(
                        self._patience_for_lock, exclusive=False, silence=_BRIEF
                    )
                    stack.enter_context(lock)
            self._close_writer()

    def forget_parent(self) -> None:
        """In a forked child: forget the parent's connection, lock file and leases."""
        self._writer = self._lock_file = None
        self.leases = locks.Leases(self.attach)

    @contextlib.contextmanager
    def _writing(self, *, exclusive: bool) -> "Iterator[Writer]":
        with self.guard:
            while True:
                lock_file = self._attached()
                with lock_file.writing(self._patience_for_lock, exclusive=exclusive):
                    # With the lock held, nobody replaces the database.
                    if (writer := self._current()) is not None:
                        try:
                            yield writer
                        except sqlite3.DatabaseError as error:
                            if recovery.is_corruption(error):
                                self._reader.corrupt = writer.identity
                            raise
                        return
                with lock_file.writing(self._patience_for_lock, exclusive=True):
                    if self._current() is None:
                        self._open_writer()

    def _current(self) -> "Writer | None":
        writer = self._writer
        if writer is None or writer.identity in (None, self._reader.corrupt):
            return None
        return writer if writer.identity == database.find(self._path) else None

    def _open_writer(self) -> None:
        from cachedeval_disk.writer import Writer  # noqa: PLC0415  not needed to read

        self._close_writer()
        found = database.find(self._path)
        if found is None or found != self._reader.corrupt:
            try:
                self._writer = Writer(self._folder, self._lock_path, self._patience)
            except sqlite3.DatabaseError as error:
                if not recovery.is_corruption(error):
                    raise
            else:
                return
        self._reader.corrupt = found  # not to be read any more either
        aside = recovery.set_aside(self._folder)
        self._writer = Writer(self._folder, self._lock_path, self._patience)
        kept = recovery.carry_over(aside, self._writer.connection, self._patience)
        recovery.warn(
            "%s was corrupt: it is set aside as %s, and the %d values that can be read are kept",
            self._path,
            aside.name,
            kept,
        )

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _attached(self) -> locks.LockFile:
        # Open between calls; the file is another one when the folder was removed and made again.
        opened = self._lock_file
        if opened is not None:
            if opened.identity == database.find(self._lock_path):
                return opened
            self._close_writer()
            self._lock_file = None
            opened.detach()
        self._lock_file = self.attach()
        return self._lock_file


def _attach(folder: Path) -> locks.LockFile:
    """Return the folder's lock file, attached for the caller; make the folder if there is none."""
    if not folder.is_dir():
        folder.mkdir(0o700, parents=True, exist_ok=True)
    return locks.attach(folder / _LOCK_NAME)


def open_url(rest: str) -> DiskBackend:
    """Open a folder: the URL `disk:PATH`.

    Args:
        rest: what follows the colon of the URL; must not be empty.

    Raises:
        InputError: the path cannot be a folder.
        BackendError: the folder holds another program's database, or a newer version's.
    """
    if rest.startswith("//"):
        path = rest.lstrip("/")
        raise InputError(
            f"cache 'disk:{rest}': a folder follows the colon, without `//`; give disk:/{path} or "
            f"disk:./{path}"
        )
    return DiskBackend(rest)
