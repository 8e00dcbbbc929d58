"""Reading what can be read of a damaged database.

SQLite fails a whole select for one bad page. Asked for less and less at a time, it gives all the
rows that lie on good ones.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

__all__ = ["is_damage", "is_unmade", "read_around", "select_in_parts", "warn"]

_Item = TypeVar("_Item")

_STEP = 256
"""Row numbers to ask for at a time."""

_LIMIT = 10_000_000
"""Row numbers to look at, where damage hides the last one or has made it absurd."""

_GIVE_UP = 20
"""Steps without a row that can be read, after which no more is expected."""


def warn(message: str, *args: object) -> None:
    """Tell the logger `cachedeval`; `logging` is slow to import, and hardly ever needed."""
    import logging  # noqa: PLC0415

    logging.getLogger("cachedeval").warning(message, *args)


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that a file's content is broken, rather than out of reach."""
    code = getattr(error, "sqlite_errorcode", None)
    # An extended code says more in its higher bytes.
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_unmade(error: BaseException) -> bool:
    """Whether SQLite says that the database has no tables yet, so that it holds nothing.

    It is being created, or whoever created it was killed before its first transaction was through.
    """
    code = getattr(error, "sqlite_errorcode", None)
    return code == sqlite3.SQLITE_READONLY_ROLLBACK or "no such table" in str(error)


def read_around(
    items: Sequence[_Item], read: Callable[[Sequence[_Item]], list[Any]]
) -> tuple[list[Any], int]:
    """Return what `read` returns of the items, and the number of items that it failed for.

    Raises:
        sqlite3.Error: reading failed for another reason than damage.
    """
    try:
        return read(items), 0
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
    if len(items) == 1:
        return [], 1
    middle = len(items) // 2
    left, left_lost = read_around(items[:middle], read)
    right, right_lost = read_around(items[middle:], read)
    return left + right, left_lost + right_lost


def select_in_parts(connection: sqlite3.Connection, select: str) -> Iterator[list[Any]]:
    """Yield the rows of a select over `Cache` that can be read, some at a time.

    Args:
        connection: open for reading.
        select: `SELECT … FROM Cache WHERE …`, to which a range of row numbers can be added.

    Raises:
        sqlite3.Error: nothing can be read.
    """

    def read(numbers: Sequence[int]) -> list[Any]:
        if len(numbers) == 1:  # a range of one would look at the next row too
            return connection.execute(f"{select} AND rowid = ?", numbers).fetchall()
        between = (numbers[0], numbers[-1])
        return connection.execute(f"{select} AND rowid BETWEEN ? AND ?", between).fetchall()

    numbers = range(1, _last_number(connection) + 1)
    fruitless = 0
    for start in range(0, len(numbers), _STEP):
        some = numbers[start : start + _STEP]
        rows, lost = read_around(some, read)
        yield rows
        fruitless = fruitless + 1 if lost == len(some) else 0
        if fruitless == _GIVE_UP:
            return


def _last_number(connection: sqlite3.Connection) -> int:
    try:
        ((last,),) = connection.execute("SELECT max(rowid) FROM Cache").fetchall()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return _LIMIT  # the page with the last row is a bad one
    return min(last or 0, _LIMIT)
