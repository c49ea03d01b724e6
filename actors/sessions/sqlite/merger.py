"""``Merger``: merges a write-ahead log that has lost its name or its index, once, whoever notices
the loss.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from actors.sessions.sqlite.quarantine import free_names, is_superseded, note_retired
from actors.sessions.sqlite.watch import FileWatch
from protocol.errors import StoreError

#: Seconds that the merge of a log without a name waits for reads of others.
MERGE_PATIENCE = 0.5


class Merger:
    """A connection reserved for this, which waits for no lock. The connections in use are on other threads,
    and one opened later would have another log. ``gate`` keeps other processes from opening the file, or
    doing the same, meanwhile.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        watch: FileWatch,
        path: Path,
        gate: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self._connection = connection
        self._watch = watch
        self._path = path
        self._gate = gate

    def retire(self) -> bool:
        """Merge the log and free the names for a new one. False if another process already uses a new one:
        then nothing more from our log belongs into the database. Raises StoreError, sqlite3.Error and
        OSError.

        A log that has only lost its index is retired as well: two processes with an index each would
        overwrite each other's pages in one log.
        """
        with self._gate():
            if is_superseded(self._watch, self._path):
                return False
            self.merge()
            there = free_names(self._watch)
            self.merge()  # what was written before they were free; whoever writes now sees that
            note_retired(self._watch, self._path, there)
        return True

    def merge(self) -> None:
        """Merge the whole log. Raises StoreError, sqlite3.Error."""
        deadline = time.monotonic() + MERGE_PATIENCE
        while True:  # others may be merging it right now, which SQLite does not wait for
            busy, pages, merged = self._connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
            if not busy and pages == merged:
                return
            if time.monotonic() > deadline:
                break
            time.sleep(0.002)
        raise StoreError(
            f"cannot write {self._path}: its write-ahead log was deleted while another process reads it",
            hint="stop the process that has the file open; the next commit then merges what was committed",
        )

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
