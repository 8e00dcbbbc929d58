"""The disk backend: a folder that several processes read and write at once."""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from cachedeval.backend import Backend, Entry, InputError
from cachedeval_disk import damage, database, forks, locks, usage
from cachedeval_disk.access import Access
from cachedeval_disk.reader import Reader

__all__ = ["DiskBackend", "open_url"]


class DiskBackend(Backend):
    """Keeps values in a folder, for any number of processes.

    Nothing is created before the first write or lease. A damaged database is replaced at the next
    write, and what can be read of it is kept. `close` gives back what is open; a later call opens
    it again.

    Args:
        path: the folder; `~` is expanded. It is made, for its owner alone, if there is none.

    Raises:
        InputError: the path cannot be a folder.
        BackendError: the folder holds another program's database, or a newer version's.

    Thread safety: every method may be called from any thread. Both sides of a fork may go on: what
    is open is closed before a fork, which waits for operations of other threads.
    """

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
        self._access = Access(self._folder, self._reader)
        with contextlib.suppress(sqlite3.Error, OSError):  # told when something is to be read
            self._reader.open()

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that are held; no bytes for one that cannot be read.

        Raises:
            BackendError: the database was replaced by one that is not ours.
            sqlite3.Error, OSError: nothing can be read.
        """
        return self._reader.get_many(keys if type(keys) is tuple else list(keys))

    def put_many(self, items: Mapping[bytes, bytes]) -> None:
        """Keep all the items, or none.

        Raises:
            BackendError: the database was replaced by one that is not ours.
            sqlite3.Error, OSError: none is kept.
        """
        items = dict(items)  # the mapping's own code may wait for a thread that waits for us
        if items:
            self._access.write(lambda writer: writer.put_many(items))

    def delete_many(self, keys: Iterable[bytes]) -> int:
        """Forget the keys and give their room back; return how many were held.

        Raises:
            BackendError: the database was replaced by one that is not ours.
            sqlite3.Error, OSError: some are still held.
        """
        wanted = list(dict.fromkeys(keys))
        if not wanted or database.find(self._path) is None:
            return 0
        deleted = self._access.write(lambda writer: writer.delete_many(wanted))
        if deleted:
            # They are deleted. What fails now is done after the next delete, or need not be.
            with contextlib.suppress(sqlite3.Error, OSError), self._access.gate(alone=False):
                usage.forget(self._folder, wanted)
            with contextlib.suppress(sqlite3.Error, OSError), self._access.alone() as writer:
                writer.give_room_back(deleted)
        return deleted

    def touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        """Note the use of those keys that are held.

        Raises:
            sqlite3.Error, OSError: it could not be noted.
        """
        hits = dict(hits)
        if hits and database.find(self._path) is not None:
            forks.repeat_if_forked(self._touch_many, hits, when)

    def _touch_many(self, hits: Mapping[bytes, int], when: float) -> None:
        try:
            with self._access.gate(alone=False):
                usage.note(self._folder, hits, when)
        except sqlite3.DatabaseError as error:
            if not damage.is_damage(error):
                raise
            with self._access.gate(alone=True):
                usage.discard(self._folder)
                usage.note(self._folder, hits, when)

    def scan(self) -> Iterator[Entry]:
        """Yield an entry for each key held now, of a damaged database what can be read.

        Raises:
            BackendError: the database was replaced by one that is not ours.
            sqlite3.Error, OSError: nothing can be read.
        """
        from cachedeval_disk.upkeep import row_size  # noqa: PLC0415  not needed to read

        rows = self._reader.rows()
        with self._reader.guard:  # no fork while the other database is open
            used = usage.read(self._folder, {row.key: row.number for row in rows})
        for row in rows:
            last, hits = used.get(row.key, (row.created, 0))
            size = row_size(row.size, in_file=row.in_file)
            yield Entry(row.key, size, row.created, max(last, row.created), hits)

    def lease(self, key: bytes) -> AbstractContextManager[bool]:
        """Try to be the only one that computes `key`, among all who use the folder.

        Raises:
            OSError: on entering, the folder cannot be written to.
        """
        return locks.Lease(self._access.attach, key)

    def close(self) -> None:
        """Close what is open."""
        self._reader.close()
        self._access.close()


def open_url(rest: str) -> DiskBackend:
    """Open a folder: the URL `disk:PATH`.

    Args:
        rest: what follows the colon of the URL; must not be empty.

    Raises:
        InputError: the path cannot be a folder.
        BackendError: the folder holds another program's database, or a newer version's.
    """
    return DiskBackend(rest)
