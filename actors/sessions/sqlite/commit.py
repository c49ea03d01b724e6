"""``SQLiteCommits``: writes to a SQLite file: at once, together at the end of a turn of the loop, or on a
thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable

from actors.runtime.future import AsyncFuture
from actors.sessions.answers import store_failure
from actors.sessions.committer import Committer
from actors.sessions.sqlite.checkpoint import Checkpointer
from actors.sessions.sqlite.connection import CheckedConnection
from actors.sessions.sqlite.errors import is_busy, needs_reopening
from actors.sessions.sqlite.file import SQLiteFile
from actors.sessions.sqlite.jobs import Append, Held
from actors.sessions.sqlite.write import carry_out
from actors.sessions.store import Durability
from protocol.errors import SessionError, StoreError

#: Returns the typed error for a job that broke a constraint.
Explain = Callable[[sqlite3.Connection, sqlite3.IntegrityError, Append], SessionError]

#: The approximate number of pages that a job adds to the write-ahead log besides its bytes.
_PAGES = 3


class SQLiteCommits:
    """The only way to write to a store's file.

    What must survive only the process is written on the caller's thread. The first job in a turn of the event
    loop is written at once. The jobs of other sessions in the same turn follow together at its end: for 64 of
    them that writes half the bytes, because a page that many share is written once.

    ``explain`` turns a broken constraint into a typed error. ``pass_gate`` is called before each commit of
    the writer thread, which would otherwise leave no gap for claims on a busy disk.
    """

    #: Seconds that the writer thread waits for another process's lock.
    patience = 10.0
    _NAP = 0.002
    #: Bytes of a job that would hold up the loop for milliseconds; the writer thread takes it.
    _LARGE = 1 << 20
    #: Gathered jobs that are committed at once before the loop gets its turn, unless they are as long as a
    #: large one: some 3 ms.
    _HANDFUL = 128

    def __init__(
        self,
        file: SQLiteFile,
        durability: Durability,
        *,
        explain: Explain,
        pass_gate: Callable[[], None],
    ) -> None:
        self._file = file
        self._inline = durability == "process"
        self._explain = explain
        self._pass_gate = pass_gate
        self._connection = CheckedConnection(file, synchronous="OFF" if self._inline else "FULL", patience=0)
        self._lock = threading.Lock()
        self._committer: Committer[Append] = Committer(
            str(file.path), self._commit, group=128 if self._inline else 1024
        )
        self._checkpointer = Checkpointer(file, self._lock)
        #: The jobs gathered in this turn of the loop, and the loop; None if nothing was written in it.
        self._gathered: deque[Append] = deque()
        self._turn: asyncio.AbstractEventLoop | None = None
        #: The session with the first job of this turn, and the one that had the turn before to itself.
        self._first: Held | None = None
        self._alone: Held | None = None

    def submit(self, job: Append) -> AsyncFuture[None] | None:
        """Commit now if that needs no waiting, otherwise soon. Raises SessionError."""
        held = job.held
        loop = asyncio._get_running_loop()  # noqa: SLF001 - documented for code that calls it as often
        # A session that was alone in the last turn, and is so far in this one, has nobody to share a page
        # with.
        alone = held is self._alone and not self._gathered
        may_gather = loop is not None and loop is self._turn and job.size < self._LARGE and not alone
        if held.gathered and not may_gather:  # it goes after those, or their loop has ended
            self._commit_all_gathered()
        if self._inline and (held.gathered or held.queued == held.finished) and job.size < self._LARGE:
            if may_gather:
                return self._gather(job)
            # The writer thread holds the lock for a moment, which is worth waiting for; a merge is not.
            if self._lock.acquire(blocking=not self._checkpointer.merging):
                try:
                    error = self._attempt([job])
                finally:
                    self._lock.release()
                if error is None:
                    if loop is not None and self._turn is not loop:
                        self._turn, self._first = loop, held
                        loop.call_soon(self._end_turn)
                    return None
                if isinstance(error, SessionError):
                    raise error
        return self._queue(job)

    def try_alone(self, write: Callable[[sqlite3.Connection], bool], size: int) -> bool:
        """Have ``write`` add about ``size`` bytes by one statement, on the connection that has the last
        commit's pages cached. False if that would have to wait, or failed: then another connection has to do
        it.
        """
        if not self._inline or not self._lock.acquire(blocking=False):
            return False
        try:
            with contextlib.suppress(sqlite3.Error, StoreError):
                if write(self._connection.get(to_write=True)):
                    self._file.note_commit()
                    self._checkpointer.note_growth(size + _PAGES * self._file.page_size)
                    return True
        finally:
            self._lock.release()
        return False

    def _queue(self, job: Append) -> AsyncFuture[None]:
        """Have the writer thread commit the job. Raises StoreError if the disk has fallen behind."""
        future = self._committer.put(job)
        job.held.queued += 1
        return future

    def _gather(self, job: Append) -> AsyncFuture[None]:
        """Have the job committed at the end of this turn of the loop."""
        future = job.future = AsyncFuture()
        job.held.gathered += 1
        self._gathered.append(job)
        return future

    def _end_turn(self) -> None:
        """Commit what was gathered. The loop calls it after the turn in which the first job came."""
        first = self._first
        if self._gathered:
            self._alone = first if all(job.held is first for job in self._gathered) else None
            self._commit_gathered()
        else:
            self._alone = first
        if self._gathered and self._turn is not None:
            self._turn.call_soon(self._end_turn)
        else:
            self._turn = self._first = None

    def _commit_all_gathered(self) -> None:
        while self._gathered:
            self._commit_gathered()

    def _commit_gathered(self) -> None:
        """Commit a handful of the gathered jobs."""
        error: SessionError | sqlite3.Error | None = None
        if acquired := self._lock.acquire(blocking=not self._checkpointer.merging):
            try:  # taken under the lock, because the thread that closes may come now
                jobs = self._take_handful()
                error = self._attempt(jobs) if jobs else None
            except Exception as defect:  # noqa: BLE001 - nobody may be left waiting for ever
                error = store_failure(defect)
            finally:
                self._lock.release()
        else:
            jobs = self._take_handful()
        for job in jobs:
            job.held.gathered -= 1
            if acquired and error is None:
                job.resolve()
            else:  # the writer thread waits for others, and finds out which job is refused
                self._queue_gathered(job)

    def _take_handful(self) -> list[Append]:
        """Take the oldest gathered jobs, as many as do not hold up the loop for long."""
        jobs: list[Append] = []
        size = 0
        while self._gathered and len(jobs) < self._HANDFUL and size < self._LARGE:
            jobs.append(self._gathered.popleft())
            size += jobs[-1].size
        return jobs

    def _queue_gathered(self, job: Append) -> None:
        try:
            self._queue(job)
        except StoreError as error:
            job.resolve(error)

    def close(self) -> None:
        """Commit what waits, and close the file. Idempotent."""
        self._commit_all_gathered()
        self._committer.close()
        self._checkpointer.close()
        with self._lock:
            self._connection.close()

    def flush(self) -> None:
        """Wait until everything submitted is durable."""
        self._commit_all_gathered()
        self._committer.flush()

    def _commit(self, jobs: list[Append]) -> None:
        """Commit jobs on the writer thread: all together, and if that fails one by one."""
        error = self._patiently(jobs)
        if error is None:
            for job in jobs:
                job.finish()
        elif len(jobs) == 1 or isinstance(error, sqlite3.Error):
            failure = self._file.error(error) if isinstance(error, sqlite3.Error) else error
            for job in jobs:
                job.finish(failure)
        else:
            for job in jobs:
                self._commit([job])

    def _patiently(self, jobs: list[Append]) -> SessionError | sqlite3.Error | None:
        deadline = time.monotonic() + self.patience
        self._pass_gate()
        while True:
            with self._lock:
                error = self._attempt(jobs)
            if not isinstance(error, sqlite3.Error) or time.monotonic() > deadline:
                return error
            time.sleep(self._NAP)

    def _attempt(self, jobs: list[Append]) -> SessionError | sqlite3.Error | None:
        """Carry out the jobs. Returns the error that prevents it, a bare sqlite3.Error if another process is
        just writing. The lock must be held.
        """
        db = None
        try:
            db = self._connection.get(to_write=True)
            while not carry_out(db, jobs, self._file):
                db = self._connection.get()  # raises unless the files are back already
            self._file.note_commit()
        except SessionError as error:
            return error
        except sqlite3.Error as error:
            return error if is_busy(error) else self._failure(db, error, jobs)
        size = jobs[0].size if len(jobs) == 1 else sum([job.size for job in jobs])
        self._checkpointer.note_growth(size + len(jobs) * _PAGES * self._file.page_size)
        return None

    def _failure(
        self, db: sqlite3.Connection | None, error: sqlite3.Error, jobs: list[Append]
    ) -> SessionError:
        failure: SessionError = self._file.error(error)
        if db is not None and len(jobs) == 1 and isinstance(error, sqlite3.IntegrityError):
            with contextlib.suppress(sqlite3.Error, StoreError):
                failure = self._explain(db, error, jobs[0])
        if needs_reopening(error):
            self._connection.close()
        failure.__cause__ = error
        return failure

    def let_go(self, patience: float) -> None:
        """Close what is open of a file that has been replaced; wait at most ``patience`` seconds for the
        thread that merges.
        """
        with self._lock:
            self._connection.close()
        self._checkpointer.let_go(patience)
