"""``CheckedConnection``: a connection to a store's file that checks at each use whether the file was
replaced.
"""

from __future__ import annotations

import sqlite3

from actors.sessions.sqlite.file import SQLiteFile
from protocol.errors import StoreError


class CheckedConnection:
    """Opened when it is first needed, and again after it was closed. For one thread at a time."""

    __slots__ = ("_connection", "_file", "_patience", "_synchronous")

    def __init__(self, file: SQLiteFile, *, synchronous: str, patience: float) -> None:
        """``synchronous`` is SQLite's setting; ``patience`` is in seconds, for locks of others."""
        self._file = file
        self._synchronous = synchronous
        self._patience = patience
        self._connection: sqlite3.Connection | None = None

    def get(self, *, to_write: bool = False) -> sqlite3.Connection:
        """The connection. If the files are not those that were opened, raises StoreError, and closes the
        connection unless the files are gone and may come back. ``to_write`` is as for ``SQLiteFile.check``.
        """
        if self._connection is None:
            self._connection = self._file.connect(synchronous=self._synchronous, patience=self._patience)
            return self._connection
        try:
            self._file.check(to_write=to_write)
        except StoreError:
            if self._file.change is not None:
                self.close()
            raise
        return self._connection

    def close(self) -> None:
        """Close it. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._file.disconnect(connection)
