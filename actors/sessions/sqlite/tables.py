"""``StoreTables``: tables that others keep in the file of a SQLite store, by a connection of their own."""

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
#: Seconds that the end of a merge is waited for where the file is another now.
_MERGE_PATIENCE = 1.0


class StoreTables:
    """A connection to the store's file for one user of it, on one thread at a time. What a transaction has
    written survives what commits of the store survive.

    Versions of polypod that do not know the tables pass them over. ``close`` comes before the store's.
    """

    def __init__(self, file: SQLiteFile, durability: Durability, folder: Path, url: str) -> None:
        self.url = url
        #: The lock by which others know whether who writes here lives.
        self.writer = WriterLock(folder)
        self._file = file
        self._lock = threading.Lock()
        self._connection = CheckedConnection(
            file, synchronous="OFF" if durability == "process" else "FULL", patience=_PATIENCE
        )
        self._checkpointer = Checkpointer(file, self._lock)
        #: The connection that was asked last whether others have written, and what it said.
        self._seen: tuple[sqlite3.Connection, int] | None = None

    @property
    def lock_descriptor(self) -> int:
        """What has that lock. Raises StoreError."""
        with self._file.translated():
            return self.writer.descriptor

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is done in it, or nothing, is durable once it is left. Raises StoreError."""
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
        """Whether anybody else has written to the file since this was asked last. Raises StoreError."""
        with self.reading() as db:
            now = db, data_version(db)
        changed, self._seen = now != self._seen, now
        return changed

    def let_go(self) -> None:
        """Close what is open of a file that is another now; where it is in use, its user does so."""
        if self._lock.acquire(blocking=False):
            try:
                self._connection.close()
            finally:
                self._lock.release()
            self._checkpointer.let_go(_MERGE_PATIENCE)

    def close(self) -> None:
        """Let go of the connection and of the lock; idempotent."""
        self._checkpointer.close()
        with self._lock:
            self._connection.close()
        self.writer.release()


def have_tables(db: sqlite3.Connection, tables: Tables, indexes: Mapping[str, str]) -> bool:
    """Whether ``make_tables`` has nothing to do: who only reads need not wait then for who writes."""
    names = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    return indexes.keys() <= names and all(
        columns.keys() <= _columns(db, table) for table, columns in tables.items()
    )


def _columns(db: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in db.execute(f"PRAGMA table_info({table})")}


def make_tables(db: sqlite3.Connection, tables: Tables, indexes: Mapping[str, str]) -> None:
    """Make tables that are not there, and give those of earlier versions the columns that came since, within
    a transaction. ``tables`` has the definition of each column by its name, ``indexes`` what each is on; what
    a later version has added is let be. The columns of an index are there before it is made.
    """
    for table, columns in tables.items():
        listed = ", ".join(f"{name} {definition}" for name, definition in columns.items())
        db.execute(f"CREATE TABLE IF NOT EXISTS {table} ({listed})")
        for name in columns.keys() - _columns(db, table):
            db.execute(f"ALTER TABLE {table} ADD COLUMN {name} {columns[name]}")
    for name, place in indexes.items():
        db.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {place}")
