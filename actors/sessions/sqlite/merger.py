"""Merges a write-ahead log that lost its name or its index, once, whoever notices the loss."""

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

#: Seconds that the merge of a log without a name waits for others' reads.
MERGE_PATIENCE = 0.5


class Merger:
    """A connection for this alone, which waits for no lock: those that are given out are on other threads,
    and one that is opened later has another log. ``gate`` keeps other processes from opening the file, or
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
        """Merge the log and have the names free for a new one. False where another process has gone on with
        one: then nothing that comes into ours is for the database any more. Raises StoreError, sqlite3.Error
        and OSError.

        A log that only lost its index goes as well: two processes with an index each would write over
        each other in one log.
        """
        with self._gate():
            if is_superseded(self._watch, self._path):
                return False
            self.merge()
            there = free_names(self._watch)
            self.merge()  # what came before they were; whoever begins to write now sees that they are
            note_retired(self._watch, self._path, there)
        return True

    def merge(self) -> None:
        """Merge all of the log. Raises StoreError, sqlite3.Error."""
        deadline = time.monotonic() + MERGE_PATIENCE
        while True:  # others may just be merging it, which SQLite does not wait for
            busy, pages, merged = self._connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
            if not busy and pages == merged:
                return
            if time.monotonic() > deadline:
                break
            time.sleep(0.002)
        raise StoreError(
            f"cannot write {self._path}: its write-ahead log was deleted, and another process reads it",
            hint="end what has the file open; what was committed is merged with the next commit then",
        )

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
