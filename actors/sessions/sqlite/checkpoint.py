"""``Checkpointer``: keeps a SQLite store's write-ahead log short, in a thread with a connection of
its own.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading

from actors.sessions.sqlite.file import SQLiteFile
from protocol.errors import StoreError


class Checkpointer:
    """Merges the log into the database once it has grown, while commits continue.

    ``write_lock`` is the lock that the process's commits hold. A merge beside commits never catches up with
    them, so under constant load the log would grow without bound. Past a hard limit the rest is therefore
    merged while commits wait (in process mode: while they are answered with futures).
    """

    #: Bytes of log at which a merge starts, and those that are never exceeded for long.
    START = 4 << 20
    HARD = 16 << 20

    def __init__(self, file: SQLiteFile, write_lock: threading.Lock) -> None:
        self._file = file
        self._write_lock = write_lock
        self._unmerged = 0
        #: Whether the write lock is held, or about to be, for longer than a commit takes.
        self.merging = False
        self._due = threading.Event()
        self._ending = self._leaving = False
        self._thread: threading.Thread | None = None
        self._connection: sqlite3.Connection | None = None
        #: Set while there is no connection, or it is to be closed.
        self._closed = threading.Event()
        self._closed.set()

    def note_growth(self, size: int) -> None:
        """Note that the log has grown by about ``size`` bytes. Call it with the write lock held."""
        self._unmerged += size
        if self._unmerged < self.START:
            return
        if self._thread is None:
            name = f"checkpoint {self._file.path}"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads can be started: the next commit tries again
                return
            self._thread = thread
        self._unmerged = 0
        self._due.set()

    def close(self) -> None:
        """End the thread. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._ending = True
            self._due.set()
            thread.join()
            self._ending = False

    def let_go(self, patience: float) -> None:
        """Have the thread close its connection, because another file is taking the place of this one; wait
        for that at most ``patience`` seconds.

        Must not be called with the write lock held, since the thread may be waiting for it.
        """
        connection = self._connection
        if connection is not None:
            self._leaving = True
            with contextlib.suppress(sqlite3.Error):  # closed at this moment
                connection.interrupt()
            self._due.set()
            self._closed.wait(patience)

    def _run(self) -> None:
        while True:
            self._due.wait()
            self._due.clear()
            if self._ending:
                break
            # A failed merge is tried again when the log has grown some more.
            with contextlib.suppress(sqlite3.Error, StoreError, OSError):
                if self._leaving or self._file.has_changed():
                    self._leaving = False
                    self._disconnect()
                    continue
                self._merge(self._connect())
                self._file.note_merge()
        self._disconnect()

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            self._closed.clear()
            try:
                self._connection = self._file.connect(synchronous="NORMAL", patience=1.0)
            finally:
                if self._connection is None:
                    self._closed.set()
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._file.disconnect(connection)
        self._closed.set()

    def _merge(self, connection: sqlite3.Connection) -> None:
        _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if pages * self._file.page_size > self.HARD:
            self.merging = True
            try:
                with self._write_lock:
                    if self._file.has_changed():
                        return
                    connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
            finally:
                self.merging = False
