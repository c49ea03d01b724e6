"""Creates the tables of a SQLite store in an empty file, and refuses files of other programs or newer
versions.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from actors.sessions.sqlite.errors import is_busy, is_read_only
from protocol.errors import NewerVersion, StoreError

#: "poly" in ASCII: distinguishes our files from other programs'.
APPLICATION_ID = 0x706F6C79
#: Raised when the tables change so that older code cannot read them. In the first format each entry has a
#: row; since the second the entries of a commit share one; since the third not each row is in an index
#: (``runs.py``). A file keeps its format, for older versions.
SCHEMA_VERSION = 3

# Small pages, because a commit writes each page that it touches whole, and a merge writes it again: a turn of
# a single session writes 7.5 KB with these, and 11.3 with 1,024. Each page takes two writes to the log, so an
# entry of 50 KB takes 15 % longer to commit, one of 300 KB 25 %, and a restore 4 %. A file keeps its page
# size.
_PAGE_SIZE = 512
#: Seconds to wait for others when a file is opened.
OPEN_PATIENCE = 5.0

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
    follows INTEGER NOT NULL DEFAULT 0,
    at REAL NOT NULL,
    hash BLOB NOT NULL,
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX runs ON entries (session, n, follows) WHERE follows = 0;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""


def prepare(connection: sqlite3.Connection, path: Path) -> int:
    """Create the tables if the file is empty, and refuse a file that is not ours. Returns the version of its
    format.
    """
    if not _is_ours(connection, path):
        connection.execute(f"PRAGMA page_size = {_PAGE_SIZE}")
        _use_wal(connection)
        _make_tables(connection, path)
    elif not is_logged(connection):
        _use_wal_again(connection)
    version = _pragma(connection, "user_version")
    if version > SCHEMA_VERSION:
        raise NewerVersion(str(path), f"format {version}; this version supports {SCHEMA_VERSION}")
    return version


def is_logged(connection: sqlite3.Connection) -> bool:
    """Whether the database has a write-ahead log."""
    mode: str = connection.execute("PRAGMA journal_mode").fetchone()[0]
    return mode == "wal"


def _is_ours(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the tables exist; False for an empty file. Refuses another program's file."""
    # In this order, since another process may create the tables between the two.
    if connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None:
        return False
    if _pragma(connection, "application_id") == APPLICATION_ID:
        return True
    raise StoreError(f"cannot use {path}: it is the database of another program", hint="choose another file")


def _make_tables(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _is_ours(connection, path):  # otherwise another process was first
            for statement in _SCHEMA.strip().rstrip(";").split(";\n"):
                connection.execute(statement)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _use_wal_again(connection: sqlite3.Connection) -> None:
    """Switch a backup in the file's place to write-ahead logging: ``VACUUM INTO`` and ``.backup`` make files
    without it, and all checks of a store's file assume that SQLite writes to it only to merge a log.
    """
    try:
        _use_wal(connection)
    except sqlite3.OperationalError as error:
        if not is_read_only(error):
            raise


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging. SQLite does not wait for others there, so this function does."""
    deadline = time.monotonic() + OPEN_PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return


def data_version(connection: sqlite3.Connection) -> int:
    """A number that changes whenever another connection has written to the file. Raises sqlite3.Error."""
    version: int = connection.execute("PRAGMA data_version").fetchone()[0]
    return version
