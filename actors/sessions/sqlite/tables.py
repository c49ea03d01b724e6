"""``StoreTables``: lets other parts of polypod keep tables in a SQLite store's file, by a connection of their
own.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from actors.sessions.lock import WriterLock
from actors.sessions.sqlite.checkpoint import Checkpointer
from actors.sessions.sqlite.connection import CheckedConnection
from actors.sessions.sqlite.file import SQLiteFile
from actors.sessions.sqlite.schema import data_version
from actors.sessions.store import Durability

#: The definition of each column, by table and name.
Tables = Mapping[str, Mapping[str, str]]
#: Seconds that a transaction waits for those of other processes.
_PATIENCE = 10.0
#: Seconds to wait for a merge to end when the file has been replaced.
_MERGE_PATIENCE = 1.0


class StoreTables:
    """A connection to the store's file for one user, on one thread at a time. A transaction survives what the
    store's commits survive.

    Versions of polypod that do not know the tables ignore them. Call ``close`` before the store's.
    """

    def __init__(self, file: SQLiteFile, durability: Durability, folder: Path, url: str) -> None:
        self.url = url
        #: The lock that shows others whether the process that writes here lives.
        self.writer = WriterLock(folder)
        self._file = file
        self._lock = threading.Lock()
        self._connection = CheckedConnection(
            file, synchronous="OFF" if durability == "process" else "FULL", patience=_PATIENCE
        )
        self._checkpointer = Checkpointer(file, self._lock)
        #: The connection last asked for changes of others, and its answer.
        self._seen: tuple[sqlite3.Connection, int] | None = None

    @property
    def lock_descriptor(self) -> int:
        """The descriptor that holds that lock. Raises StoreError."""
        with self._file.translated():
            return self.writer.descriptor

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all or nothing, durable once the context is left. Raises StoreError."""
        with self._lock, self._file.translated():
            db = self._connection.get(to_write=True)
            before = db.total_changes
            with self._file.transaction(db):
                yield db
            self._checkpointer.note_growth((db.total_changes - before) * self._file.page_size)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection for statements that read. Raises StoreError."""
        with self._lock, self._file.translated():
            yield self._connection.get()

    def has_changed(self) -> bool:
        """Whether anybody else has written to the file since the last call. Raises StoreError."""
        with self.reading() as db:
            now = db, data_version(db)
        changed, self._seen = now != self._seen, now
        return changed

    def let_go(self) -> None:
        """Close what is open of a file that has been replaced; if it is in use, its user closes it."""
        if self._lock.acquire(blocking=False):
            try:
                self._connection.close()
            finally:
                self._lock.release()
            self._checkpointer.let_go(_MERGE_PATIENCE)

    def close(self) -> None:
        """Close the connection and release the lock. Idempotent."""
        self._checkpointer.close()
        with self._lock:
            self._connection.close()
        self.writer.release()


def have_tables(db: sqlite3.Connection, tables: Tables, indexes: Mapping[str, str]) -> bool:
    """Whether ``make_tables`` has nothing to do: then a reader need not wait for writers."""
    names = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    return indexes.keys() <= names and all(
        columns.keys() <= _columns(db, table) for table, columns in tables.items()
    )


def _columns(db: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in db.execute(f"PRAGMA table_info({table})")}


def make_tables(db: sqlite3.Connection, tables: Tables, indexes: Mapping[str, str]) -> None:
    """Create missing tables, and add missing columns to those of earlier versions, within a transaction.

    ``tables`` has the definition of each column by its name, ``indexes`` the columns of each index. What a
    later version has added is left alone. Columns are created before the indexes on them.
    """
    for table, columns in tables.items():
        listed = ", ".join(f"{name} {definition}" for name, definition in columns.items())
        db.execute(f"CREATE TABLE IF NOT EXISTS {table} ({listed})")
        for name in columns.keys() - _columns(db, table):
            db.execute(f"ALTER TABLE {table} ADD COLUMN {name} {columns[name]}")
    for name, place in indexes.items():
        db.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {place}")
