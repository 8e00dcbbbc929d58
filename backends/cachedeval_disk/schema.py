"""The statements that make our tables, and the refusal of any other.

SQLite runs what a schema says: a view in a table's place may hold a query without an end, and a
trigger, a check, a generated column or an index on an expression runs at each write.
"""

import sqlite3
from collections.abc import Mapping
from typing import Any

from cachedeval_disk import database

__all__ = ["CACHE", "USAGE", "check"]

CACHE = {
    "Settings": "CREATE TABLE Settings (key TEXT NOT NULL UNIQUE, value)",
    "Cache": "CREATE TABLE Cache (rowid INTEGER PRIMARY KEY, key BLOB, raw INTEGER, "
    "store_time REAL, expire_time REAL, access_time REAL, access_count INTEGER DEFAULT 0, "
    "tag BLOB, size INTEGER DEFAULT 0, mode INTEGER DEFAULT 0, filename TEXT, value BLOB)",
    "Cache_key_raw": "CREATE UNIQUE INDEX Cache_key_raw ON Cache(key, raw)",
    "Cache_expire_time": "CREATE INDEX Cache_expire_time ON Cache (expire_time)",
    "Cache_store_time": "CREATE INDEX Cache_store_time ON Cache (store_time)",
    "Cache_access_time": "CREATE INDEX Cache_access_time ON Cache (access_time)",
    "Cache_access_count": "CREATE INDEX Cache_access_count ON Cache (access_count)",
    "Cache_tag_rowid": "CREATE INDEX Cache_tag_rowid ON Cache(tag, rowid)",
    "Settings_count_insert": "CREATE TRIGGER Settings_count_insert AFTER INSERT ON Cache "
    'FOR EACH ROW BEGIN UPDATE Settings SET value = value + 1 WHERE key = "count"; END',
    "Settings_count_delete": "CREATE TRIGGER Settings_count_delete AFTER DELETE ON Cache "
    'FOR EACH ROW BEGIN UPDATE Settings SET value = value - 1 WHERE key = "count"; END',
    "Settings_size_insert": "CREATE TRIGGER Settings_size_insert AFTER INSERT ON Cache "
    'FOR EACH ROW BEGIN UPDATE Settings SET value = value + NEW.size WHERE key = "size"; END',
    "Settings_size_update": "CREATE TRIGGER Settings_size_update AFTER UPDATE ON Cache "
    "FOR EACH ROW BEGIN UPDATE Settings SET value = value + NEW.size - OLD.size "
    'WHERE key = "size"; END',
    "Settings_size_delete": "CREATE TRIGGER Settings_size_delete AFTER DELETE ON Cache "
    'FOR EACH ROW BEGIN UPDATE Settings SET value = value - OLD.size WHERE key = "size"; END',
}
"""All that diskcache makes, with any of its settings."""

USAGE = {
    "usage": "CREATE TABLE usage "
    "(key BLOB PRIMARY KEY, used REAL NOT NULL, hits INTEGER NOT NULL) WITHOUT ROWID",
    "notes": "CREATE TABLE notes (digest BLOB NOT NULL, upto INTEGER NOT NULL, used REAL NOT NULL, "
    "times INTEGER NOT NULL, hits BLOB NOT NULL, UNIQUE (digest, upto))",
}


def check(
    connection: sqlite3.Connection, known: Mapping[str, str], *, table: str | None = None
) -> None:
    """Refuse a schema with anything in it that is not known.

    Args:
        connection: to the database.
        known: the statements that may have made it, by the names of what they make.
        table: look at this table only, which is all that matters to one who only reads it.

    Raises:
        sqlite3.DatabaseError: the schema counts as corrupt.
    """
    for row in connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall():
        kind, name, made = map(_as_text, row)
        if table is not None and name != table:
            continue
        if kind == "index" and made is None:  # SQLite's own, of a UNIQUE
            continue
        if made is None or _packed(made) != _packed(known.get(name, "")):
            raise database.corruption(f"its schema holds a {kind} {name!r} that is not ours")


def _packed(statement: str) -> str:
    return "".join(statement.split())


def _as_text(value: Any) -> Any:
    return value.decode("latin-1") if isinstance(value, bytes | bytearray) else value
