"""``CheckedConnection``: one user's connection to a store's file, while that is the file which was opened."""

from __future__ import annotations

import sqlite3

from actors.sessions.sqlite.file import SQLiteFile
from protocol.errors import StoreError


class CheckedConnection:
    """Opened when it is first needed, and anew after it was closed. For one thread at a time."""

    __slots__ = ("_connection", "_file", "_patience", "_synchronous")

    def __init__(self, file: SQLiteFile, *, synchronous: str, patience: float) -> None:
        """``synchronous`` is SQLite's; ``patience`` the seconds to wait for another's lock."""
        self._file = file
        self._synchronous = synchronous
        self._patience = patience
        self._connection: sqlite3.Connection | None = None

    def get(self, *, to_write: bool = False) -> sqlite3.Connection:
        """The connection. Raises StoreError where the files are not those that were opened, and closes it
        then, unless they are gone and may come back; ``to_write`` as of ``SQLiteFile.check``.
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
        """Close it; idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._file.disconnect(connection)
