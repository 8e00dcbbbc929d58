"""The disk backend: a folder that several processes read and write at once."""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from cachedeval.engine.backend import Entry
from cachedeval.engine.errors import InputError
from cachedeval_disk import database, locks, usage
from cachedeval_disk.reader import Reader

if TYPE_CHECKING:
    from cachedeval_disk.writer import Writer

__all__ = ["DiskBackend", "open_url"]

_LOCK_NAME = "lock"

_ROW = 120
"""Bytes that a value's row takes beside the value: its other columns and its place in indexes."""

_BLOCK = 4096
"""Bytes by which files grow on nearly every file system."""


class DiskBackend:
    """Keeps values in a folder, for any number of processes.

    Nothing is created before the first write or lease. `close` gives back what is open; a later
    call opens it again.

    Args:
        path: the folder; `~` is expanded. It is made, for its owner alone, if there is none.

    Raises:
        InputError: the path cannot be a folder.
        BackendError: the folder holds another program's database, or a newer version's.

    Thread safety: every method may be called from any thread. A forked child may go on using it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        given = os.fspath(path)
        if not given or "\0" in given:
            raise InputError(f"cache 'disk:{given}': give a folder, as in disk:./eval_cache")
        # Resolved once: neither `chdir` nor a link set anew moves a cache in the middle of a run.
        self._folder = os.path.realpath(os.path.expanduser(given))
        if os.path.lexists(self._folder) and not os.path.isdir(self._folder):
            raise InputError(f"cache 'disk:{given}': {self._folder!r} is not a folder")
        database.check_format(os.path.join(self._folder, database.NAME))
        self._reader = Reader(self._folder)
        self._lock = threading.RLock()
        self._writer: Writer | None = None
        self._lock_file: locks.LockFile | None = None

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that are held and can be read.

        Raises:
            BackendError: the database was replaced by one that is not ours.
            sqlite3.Error, OSError: nothing can be read.
        """
        return self._reader.get_many(keys)

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        """Keep all the items, or none.

        Raises:
            BackendError: the database was replaced by one that is not ours.
            sqlite3.Error, OSError: none is kept.
        """
        if items:
            with self._writing() as writer:
                writer.put_many(items)

    def delete_many(self, keys: Iterable[bytes]) -> int:
        """Forget the keys and give their room back; return how many were held.

        Raises:
            sqlite3.Error, OSError: some are still held.
        """
        wanted = list(dict.fromkeys(keys))
        if not wanted or not self._exists():
            return 0
        with self._writing() as writer:
            deleted = writer.delete_many(wanted)
            usage.forget(self._folder)
        return deleted

    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        """Note the use of those keys that are held.

        Raises:
            sqlite3.Error, OSError: it could not be noted.
        """
        if not hits or not self._exists():
            return
        with self._lock, self._attached().gate(alone=False):
            usage.note(self._folder, hits, when)

    def scan(self) -> Iterator[Entry]:
        """Yield an entry for each key held now.

        Raises:
            BackendError: the database was replaced by one that is not ours.
            sqlite3.Error, OSError: it cannot be read.
        """
        used = usage.read(self._folder)
        for key, created, size, filename in self._reader.rows():
            if type(created) is not float or type(size) is not int:
                continue
            last, hits = used.get(key, (created, 0))
            if last < created:  # of an earlier value under this key
                last, hits = created, 0
            taken = size if filename is None else -(-size // _BLOCK) * _BLOCK
            yield Entry(key, taken + _ROW, created, last, hits)

    def lease(self, key: bytes) -> AbstractContextManager[bool]:
        """Try to be the only one that computes `key`, among all who use the folder.

        Raises:
            OSError: on entering, the folder cannot be written to.
        """
        return locks.Lease(self._attach, key)

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            self._reader.close()
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            if self._lock_file is not None:
                self._lock_file.detach()
                self._lock_file = None

    def _exists(self) -> bool:
        return os.path.exists(os.path.join(self._folder, database.NAME))

    @contextmanager
    def _writing(self) -> Iterator["Writer"]:
        with self._lock:
            path = os.path.join(self._folder, database.NAME)
            while True:
                gate = self._attached()
                if self._writer is None or self._writer.identity != database.identity(path):
                    with gate.gate(alone=True):
                        self._open_writer()
                with gate.gate(alone=False):
                    if self._writer is None or self._writer.identity != database.identity(path):
                        continue
                    yield self._writer
                return

    def _open_writer(self) -> None:
        from cachedeval_disk.writer import Writer  # noqa: PLC0415  diskcache: for writing only

        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._writer = Writer(self._folder)

    def _attached(self) -> locks.LockFile:
        # Kept between calls; the file is another one when the folder was removed and made again.
        kept = self._lock_file
        if kept is not None and not kept.forked:
            if kept.identity == database.identity(os.path.join(self._folder, _LOCK_NAME)):
                return kept
            kept.detach()
        self._lock_file = None
        self._lock_file = self._attach()
        return self._lock_file

    def _attach(self) -> locks.LockFile:
        if not os.path.isdir(self._folder):
            os.makedirs(self._folder, 0o700, exist_ok=True)
        return locks.attach(os.path.join(self._folder, _LOCK_NAME))


def open_url(rest: str) -> DiskBackend:
    """Open a folder: the URL `disk:PATH`.

    Args:
        rest: what follows the colon of the URL; must not be empty.

    Raises:
        InputError: the path cannot be a folder.
        BackendError: the folder holds another program's database, or a newer version's.
    """
    return DiskBackend(rest)
