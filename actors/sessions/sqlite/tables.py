"""``StoreTables``: tables that others keep in the file of a SQLite store, by a connection of their own."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from actors.sessions.lock import WriterLock
from actors.sessions.sqlite.checkpoint import Checkpointer
from actors.sessions.sqlite.file import SQLiteFile
from actors.sessions.store import Durability
from protocol.errors import StoreError

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
        self._synchronous = "OFF" if durability == "process" else "FULL"
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._checkpointer = Checkpointer(file, self._lock)
        self._seen: int | None = None

    @property
    def lock_descriptor(self) -> int:
        """What has that lock. Raises StoreError."""
        with self._file.translated():
            return self.writer.descriptor

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is done in it, or nothing, is durable once it is left. Raises StoreError."""
        with self._lock, self._file.translated():
            db = self._connected(to_write=True)
            before = db.total_changes
            with self._file.transaction(db):
                yield db
            self._checkpointer.grown((db.total_changes - before) * self._file.page_size)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection for statements that read. Raises StoreError."""
        with self._lock, self._file.translated():
            yield self._connected()

    def has_changed(self) -> bool:
        """Whether anybody else has written to the file since this was asked last. Raises StoreError."""
        with self.reading() as db:
            version: int = db.execute("PRAGMA data_version").fetchone()[0]
        changed, self._seen = version != self._seen, version
        return changed

    def _connected(self, *, to_write: bool = False) -> sqlite3.Connection:
        if self._connection is not None:
            try:
                self._file.check(to_write=to_write)
            except StoreError:
                if self._file.change is not None:
                    self._disconnect()
                raise
        if self._connection is None:
            self._connection = self._file.connect(synchronous=self._synchronous, patience=_PATIENCE)
        return self._connection

    def let_go(self) -> None:
        """Close what is open of a file that is another now; where it is in use, its user does so."""
        if self._lock.acquire(blocking=False):
            try:
                self._disconnect()
            finally:
                self._lock.release()
            self._checkpointer.let_go(_MERGE_PATIENCE)

    def _disconnect(self) -> None:
        connection, self._connection, self._seen = self._connection, None, None
        if connection is not None:
            self._file.disconnect(connection)

    def close(self) -> None:
        """Let go of the connection and of the lock; idempotent."""
        self._checkpointer.close()
        with self._lock:
            self._disconnect()
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
