"""The SQLite file of a store: making it, opening it, knowing it again, and what its errors mean."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from actors.sessions.disk import make_private, store_error
from protocol.errors import StoreError

#: "poly" in ASCII: tells our files from other programs'.
APPLICATION_ID = 0x706F6C79
#: Raised when the tables change in a way that older code cannot read.
SCHEMA_VERSION = 1

# Small pages, because a commit writes each page that it touches whole: with 4096 bytes a turn wrote
# half as much again, with 1024 a restore took half as long again.
_PAGE_SIZE = 2048
_JOURNAL_LIMIT = 16 << 20
_OPEN_PATIENCE = 5.0

_SCHEMA = f"""
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL UNIQUE,
    pod TEXT NOT NULL,
    created_at REAL NOT NULL,
    parent_kind TEXT,
    parent TEXT,
    parent_hash TEXT,
    parent_seq INTEGER,
    generation INTEGER NOT NULL,
    holder TEXT,
    holder_pod TEXT,
    held_since REAL
);
CREATE INDEX sessions_by_pod ON sessions (pod);
CREATE INDEX sessions_by_parent ON sessions (parent) WHERE parent IS NOT NULL;
CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    n INTEGER NOT NULL,
    hash BLOB NOT NULL,
    body BLOB NOT NULL,
    at REAL NOT NULL,
    UNIQUE (session, n)
);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""

_MEANINGS = {
    sqlite3.SQLITE_FULL: ("the disk is full", "free some space; what follows will be written then"),
    sqlite3.SQLITE_BUSY: (
        "another process has locked it",
        "close what holds it open, such as a database browser in a transaction",
    ),
    sqlite3.SQLITE_LOCKED: ("it is locked", "close what holds it open"),
    sqlite3.SQLITE_READONLY: (
        "it may not be written",
        "check the permissions of the file and of its folder",
    ),
    sqlite3.SQLITE_PERM: ("permission denied", "check the permissions of the file and of its folder"),
    sqlite3.SQLITE_CANTOPEN: (
        "it cannot be opened",
        "check that it is a file and that you may write to it and its folder",
    ),
    sqlite3.SQLITE_NOTADB: (
        "it is no SQLite database",
        "name another file, or move this one out of the way",
    ),
    sqlite3.SQLITE_CORRUPT: (
        "it is damaged",
        "restore it from a copy, or save what can be read with: polypod fsck --repair",
    ),
    sqlite3.SQLITE_IOERR: ("the disk failed", "check the disk and the space on it"),
    sqlite3.SQLITE_TOOBIG: ("an entry is too large for it", "keep entries below a gigabyte"),
}


def is_busy(error: sqlite3.Error) -> bool:
    """Whether the same statement may work in a moment."""
    return _code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def needs_reopening(error: sqlite3.Error) -> bool:
    """Whether a connection may not get over the error although its cause goes away."""
    return _code(error) in {
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_IOERR,
    }


def _code(error: sqlite3.Error) -> int:
    """The primary error code; extended codes keep it in their last byte."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


#: Device and inode.
Identity = tuple[int, int]


class SQLiteFile:
    """Where a SQLite store is kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Quoted, since a name may hold what means something in a URI; never made but by ourselves.
        self._uri = f"file:{quote(str(path))}?mode=rw"
        self._made = False

    def connect(self, *, synchronous: str, patience: float) -> sqlite3.Connection:
        """A connection to the file, which is made at first where there is none. Raises StoreError.

        ``synchronous`` is SQLite's; ``patience`` the seconds to wait for another's lock.
        """
        with self.translated():
            if not self._made:
                self._make()
            connection = sqlite3.connect(
                self._uri, uri=True, timeout=_OPEN_PATIENCE, isolation_level=None, check_same_thread=False
            )
            try:
                self._check(connection)
                connection.execute("PRAGMA wal_autocheckpoint = 0")
                connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_LIMIT}")
                connection.execute(f"PRAGMA synchronous = {synchronous}")
                connection.execute(f"PRAGMA busy_timeout = {int(patience * 1000)}")
            except BaseException:
                connection.close()
                raise
        self._made = True
        return connection

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Errors of SQLite and of the system leave as StoreError."""
        try:
            yield
        except sqlite3.Error as error:
            raise self.error(error) from error
        except OSError as error:
            raise store_error(error, self.path) from error

    def may_be_written(self) -> bool:
        """Whether this process may write to the file."""
        return os.access(self.path, os.W_OK, effective_ids=True)

    def identity(self) -> Identity:
        """What tells the file that is there now from one that takes its place.

        Asked before each commit, since SQLite would go on writing into a file that nobody can find any
        more. Raises StoreError where there is none.
        """
        try:
            status = os.stat(self.path)  # noqa: PTH116 - on the path of every commit
        except OSError as error:
            raise StoreError(
                f"cannot write {self.path}: it was moved or deleted ({error.strerror})",
                hint="put it back, or stop and start anew",
            ) from error
        return status.st_dev, status.st_ino

    def error(self, error: sqlite3.Error) -> StoreError:
        """The typed error that says what a SQLite error means and what to do about it."""
        meaning, hint = _MEANINGS.get(_code(error), (str(error), None))
        return StoreError(f"cannot use {self.path}: {meaning}", hint=hint)

    def _make(self) -> None:
        """Make the file, and the folder where it is missing, for their owner alone."""
        make_private(self.path.parent)
        # Only ever opened where it is new: closing any descriptor of a file drops the locks that
        # SQLite holds on it in this process.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))

    def _check(self, connection: sqlite3.Connection) -> None:
        """Make the tables where the file is empty; refuse what is not ours."""
        if not self._is_ours(connection):
            connection.execute(f"PRAGMA page_size = {_PAGE_SIZE}")
            _use_wal(connection)
            self._make_tables(connection)
        version = _pragma(connection, "user_version")
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"cannot use {self.path}: a later version of polypod made it (format {version}, "
                f"this one knows {SCHEMA_VERSION})",
                hint="update polypod",
            )

    def _is_ours(self, connection: sqlite3.Connection) -> bool:
        """Whether the tables are there; not if the file is empty. Refuses another program's."""
        # In this order, since another process may be making the tables between the two.
        if connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None:
            return False
        if _pragma(connection, "application_id") == APPLICATION_ID:
            return True
        raise StoreError(
            f"cannot use {self.path}: it is the database of another program", hint="name another file"
        )

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if not self._is_ours(connection):  # else another process was first
                for statement in _SCHEMA.strip().rstrip(";").split(";\n"):
                    connection.execute(statement)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging; SQLite does not wait for others there, so we do."""
    deadline = time.monotonic() + _OPEN_PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return
