"""``SQLiteStore``: keeps all sessions in one SQLite file with append-only tables and a write-ahead log; the
default.

With ``process`` durability the calling thread commits, in some 30 us, a fraction of what a writer thread
costs. If another process is just writing, the commit goes to the writer thread and is answered with a future.
With ``power`` it always does.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

from actors.runtime.future import AsyncFuture
from actors.sessions.answers import wait
from actors.sessions.disk import place, store_error
from actors.sessions.lock import Writer, WriterLock
from actors.sessions.sqlite import approval_answers
from actors.sessions.sqlite.commit import SQLiteCommits
from actors.sessions.sqlite.deleted_sessions import note_gone
from actors.sessions.sqlite.errors import needs_reopening
from actors.sessions.sqlite.file import COPY, SQLiteFile, is_of_parent
from actors.sessions.sqlite.jobs import Append, Create, Held, Release
from actors.sessions.sqlite.orphans import bring_back, orphans
from actors.sessions.sqlite.read import ClaimRow, Queries, claim_row, queries
from actors.sessions.sqlite.schema import data_version
from actors.sessions.sqlite.tables import StoreTables
from actors.sessions.sqlite.write import delete
from actors.sessions.store import (
    Claim,
    Durability,
    Holder,
    SessionInfo,
    SessionStore,
    closed,
    delete_in_turn,
    in_use,
    not_found,
    this_process,
)
from protocol.approval import ApprovalAnswer
from protocol.entries import GENESIS, Head, Parent, StoredEntry
from protocol.errors import HeadConflict, SessionCorrupt, SessionError, StoreError

_TAKE = """
UPDATE sessions SET generation = generation + 1, holder = ?, holder_pod = ?, held_since = ?
WHERE id = ?
"""
#: Seconds that a read or a claim waits for another process's lock.
_READ_PATIENCE = 0.25
#: KB of pages that a connection for reading caches. It needs most pages once, so a few that stay in the
#: processor's cache are faster than many: a restore takes an eighth less time than with SQLite's 2 MB.
_READ_CACHE = 128
#: Seconds to wait for the merge of the old file to stop when another file is in its place.
_MERGE_PATIENCE = 1.0
#: Bytes that are copied in a quarter of a second, during which nobody else can write.
_SOON_COPIED = 8 << 20
#: Errors of files that the system does not let anybody replace: another user's, or a mount point.
_NEVER_REPLACED = {errno.EPERM, errno.EBUSY}
#: Otherwise a power cut during a merge could leave the file torn.
_SAFE_MERGE = "PRAGMA synchronous = NORMAL"
#: The pragmas with the number of free pages, and of all.
_PAGES = "freelist_count", "page_count"

#: The endings of a store's file names: the database, what SQLite keeps beside it, the folder of writers, and
#: a copy that is to replace the database.
_ENDS = ("", "-wal", "-shm", "-journal", ".writers", COPY)

#: The message for entries whose session number is damaged.
_STRAY = "some entries have the impossible session number {!r:.40}: restore the file from a copy"


class SQLiteStore(SessionStore):
    """Sessions in one SQLite file, which many processes may use at once. Raises StoreError.

    ``durability`` is what a commit survives: the end of the process, however it ends, or a power cut.
    """

    keeps_answers = True

    def __init__(self, path: str | os.PathLike[str], durability: Durability = "process") -> None:
        given = place(path)
        self.path = Path(os.path.realpath(given))  # one file has one lock, by whatever name it is reached
        self.folder = given.parent
        self.url = f"sqlite:{path}" + ("?durability=power" if durability == "power" else "")
        self._lock = WriterLock(self.path.with_name(self.path.name + ".writers"))
        self.files = tuple(self.path.with_name(f"{self.path.name}{end}") for end in _ENDS)
        self._file = SQLiteFile(given, self._own_gate, self._forget, self._holds)
        self._commits = SQLiteCommits(
            self._file,
            durability,
            explain=self._explain,
            pass_gate=self._lock.pass_gate,
        )
        self._durability = durability
        #: Tables that others keep in the file.
        self._tables: list[StoreTables] = []
        self._held: dict[str, Held] = {}
        self._connection: sqlite3.Connection | None = None
        self._reading = threading.RLock()
        self._stale = self._read_only = False
        self._closed = False
        #: Whether a forked child opened what its parent had open at the fork. Each use is refused, as with
        #: the parent's own store.
        self._of_parent = is_of_parent(self.path)
        if not self._of_parent:
            with self._reader():
                pass

    # -- the log

    def create(
        self,
        session_id: str,
        pod: str,
        parent: Parent | None,
        batch: Sequence[StoredEntry],
        *,
        claim: bool = True,
    ) -> AsyncFuture[None] | None:
        if session_id in self._held:
            raise HeadConflict(f"session {session_id} already exists in {self.url}")
        held = Held(session_id, pod, self._writer() if claim else None, time.time())
        if not claim:
            return self._submit(Create(held, pod, parent, batch))
        self._held[session_id] = held

        def undo() -> None:
            self._held.pop(session_id, None)

        try:
            return self._submit(Create(held, pod, parent, batch, undo))
        except SessionError:
            undo()
            raise

    def append(self, session_id: str, after: Head, batch: Sequence[StoredEntry]) -> AsyncFuture[None] | None:
        held = self._held.get(session_id) or self._take(session_id, "")
        return self._submit(Append(held, after, batch)) if batch else None

    def read(self, session_id: str, *, after: int = 0, limit: int | None = None) -> list[StoredEntry]:
        with self._reader() as db, _of_damage(session_id, after):
            return self._queries.entries(db, self._row(db, session_id).row, after, limit)

    def read_small(
        self, session_id: str, *, after: int = 0, limit: int | None = None, largest: int
    ) -> list[StoredEntry] | None:
        with self._reader() as db, _of_damage(session_id, after):
            return self._queries.small_entries(db, self._row(db, session_id).row, after, limit, largest)

    # -- listings

    def info(self, session_id: str) -> SessionInfo:
        with self._reader() as db:
            found = self._queries.info(db, session_id)
        if found is None:
            raise not_found(session_id, self.url)
        return found

    def sessions(self, *, pod: str | None = None, limit: int | None = None) -> list[SessionInfo]:
        with self._reader() as db:
            return self._queries.sessions(db, pod, limit)

    def matching(self, beginning: str, limit: int) -> list[SessionInfo]:
        with self._reader() as db:
            return self._queries.matching(db, beginning, limit)

    def successors(self, session_id: str) -> list[SessionInfo]:
        with self._reader() as db:
            return self._queries.successors(db, session_id)

    # -- claims

    def claim(self, session_id: str, pod: str) -> Claim:
        self._check_open()
        held = self._held.get(session_id)
        if held is not None and held.pod:
            raise in_use(session_id, this_process(held.pod, held.since))
        return Claim(session_id, pod, self._take(session_id, pod).generation)

    def _take(self, session_id: str, pod: str) -> Held:
        """Claim a session that this store does not hold."""
        held = Held(session_id, pod, self._writer(), time.time())
        with self._reader() as db, self._gate(), self._file.transaction(db):
            row = self._row(db, session_id)
            if (holder := self._living(row)) is not None:
                raise in_use(session_id, holder)
            if (end := self._queries.head(db, row.row)) is None:
                raise _emptied(session_id)
            db.execute(_TAKE, (held.writer, pod, held.since, row.row))
            held.row, held.generation = row.row, row.generation + 1
            held.head, held.last = end
        self._held[session_id] = held
        return held

    def release(self, session_id: str) -> None:
        held = self._held.pop(session_id, None)
        if held is not None:
            # A claim that cannot be deleted ends with this process, and is free at once for its own pods.
            with contextlib.suppress(SessionError):
                self._submit(Release(held))

    def holder(self, session_id: str) -> Holder | None:
        self._check_open()
        held = self._held.get(session_id)
        if held is not None:
            return this_process(held.pod, held.since)
        with self._reader() as db:
            row = claim_row(db, session_id)
            if row is None and session_id in orphans(db, self._queries):
                return None
            return self._living(row or self._row(db, session_id))

    def delete(self, session_id: str) -> None:
        with self._deleting() as db:
            self._delete(db, session_id)

    def delete_all(self, sessions: Sequence[SessionInfo]) -> list[SessionInfo]:
        with self._deleting() as db:
            return delete_in_turn(self, sessions, partial(self._delete, db))

    @contextlib.contextmanager
    def _deleting(self) -> Iterator[sqlite3.Connection]:
        """A transaction that deletes sessions. Before it the log is merged, as far as others and the disk
        allow, so that one transaction after the other uses the same room in it.
        """
        with self._reader() as db:
            with self._gate():  # while nobody retires a log
                if not self._file.has_changed():
                    with contextlib.suppress(sqlite3.Error):
                        db.execute(_SAFE_MERGE)
                        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                with self._file.transaction(db):
                    yield db
            self._file.note_merge()  # not at the gate: who finds the log lost holds the file and waits for it

    def _delete(self, db: sqlite3.Connection, session_id: str) -> None:
        if claim_row(db, session_id) is None and (orphan := orphans(db, self._queries).get(session_id)):
            bring_back(db, session_id, orphan)
        row = self._row(db, session_id)
        held = self._held.get(session_id)
        holder = self._living(row) if held is None else this_process(held.pod, held.since)
        if holder is not None:
            raise in_use(session_id, holder)
        note_gone(db, session_id)
        delete(db, row.row, self._file.format)
        approval_answers.forget(db, session_id)

    # -- answers to approvals

    def put_answer(self, answer: ApprovalAnswer) -> bool:
        self._check_open()
        if self._file.change is None and self._commits.try_alone(
            partial(approval_answers.put_alone, answer=answer), approval_answers.SIZE
        ):
            return True
        with self._reader() as db, self._file.transaction(db):
            return approval_answers.put(db, answer)

    def answers(self, approval_ids: Collection[str]) -> list[ApprovalAnswer]:
        with self._reader() as db:
            return approval_answers.among(db, approval_ids)

    def answers_since(self, mark: object) -> tuple[object, list[ApprovalAnswer]]:
        with self._reader() as db:
            return approval_answers.since(db, mark)

    # -- who holds what

    def _living(self, row: ClaimRow) -> Holder | None:
        """The holder according to a session's row, if that is another writer and lives."""
        if row.holder is None or row.holder == self._lock.known:
            return None
        with self._translated():
            writer = self._lock.alive(row.holder)
        if writer is None:
            return None
        return Holder(writer.pid, writer.host, row.since or writer.since, row.pod or "")

    @contextlib.contextmanager
    def _gate(self) -> Iterator[None]:
        self._writer()
        with contextlib.ExitStack() as stack:
            with self._translated():
                stack.enter_context(self._lock.gate())
            yield

    def _writer(self) -> str:
        self._check_open()
        with self._translated():
            return self._lock.id

    def _other_writer(self) -> Writer | None:
        with self._translated():
            return self._lock.other()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise store_error(error, self._lock.folder) from error

    # -- the store as a whole

    def problems(self) -> list[str]:
        try:
            with self._reader() as db:
                found = [text for (text,) in db.execute("PRAGMA quick_check") if text != "ok"]
                lost = self._queries.lost(db)
        except StoreError as error:
            return [str(error)]
        return found + [_STRAY.format(each) for each in lost if not isinstance(each, int)]

    def unreadable(self) -> dict[str, SessionError]:
        with self._reader() as db:
            found: dict[str, SessionError] = {each: _emptied(each) for each in self._queries.emptied(db)}
            return found | {each: _orphaned(each) for each in orphans(db, self._queries)}

    def bring_back(self, session_id: str) -> None:
        with self._reader() as db, self._gate(), self._file.transaction(db):
            if (orphan := orphans(db, self._queries).get(session_id)) is not None:
                bring_back(db, session_id, orphan)

    def put_aside(self, session_id: str, folder: Path) -> Path | None:
        with self._reader() as db, self._gate(), self._file.transaction(db):
            if session_id in self._queries.emptied(db):  # nothing is left that could be kept
                self._delete(db, session_id)
                return None
        return wait(super().put_aside(session_id, folder))

    def reclaim(self) -> None:
        with self._reader() as db:
            (free,), (pages,) = (db.execute(f"PRAGMA {each}").fetchone() for each in _PAGES)
            if free and (pages - free) * self._file.page_size > _SOON_COPIED:
                try:
                    self._replace_by_copy(db)
                except StoreError as error:
                    if getattr(error.__cause__, "errno", None) not in _NEVER_REPLACED:
                        raise
                else:
                    return
        if free:
            with self._reader() as db, self._gate():  # while nobody retires a log
                if not self._file.has_changed():
                    db.execute(_SAFE_MERGE)
                    db.execute("VACUUM")
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _replace_by_copy(self, db: sqlite3.Connection) -> None:
        """Replace the file by a copy without free space; nobody has to wait while the copy is made. Raises
        StoreError if others have the file open by then, since they would continue with the old one.
        """
        self._writer()  # so that two who do this know of each other
        if (other := self._other_writer()) is not None:
            raise self._in_others_use(other)
        db.execute(_SAFE_MERGE)
        version = data_version(db)
        with self._file.compact_copy(db) as copy, self._gate():
            if self._file.has_changed():
                return
            self._let_go_of_writers()
            self._stale = True  # the next reader opens the new file
            if not self._file.replace_by(copy, db, version):
                raise self._in_others_use(self._other_writer())

    def _in_others_use(self, other: Writer | None) -> StoreError:
        return StoreError(
            f"another process, or another part of this one, has {self.url} open"
            if other is None
            else f"process {other.pid} has {self.url} open",
            hint="free space is reused for new entries; run polypod gc after that has ended to "
            "shrink the file",
        )

    def tables(self) -> StoreTables:
        self._check_open()
        tables = StoreTables(self._file, self._durability, self._lock.folder, self.url)
        self._tables.append(tables)
        return tables

    def flush(self) -> None:
        self._commits.flush()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def close(self) -> None:
        if not self._closed and not self._lock.inherited:
            self._commits.close()
            for each in self._tables:
                each.close()
            self._disconnect()
            self._lock.release()
            self._closed = True

    # -- below

    @property
    def _queries(self) -> Queries:
        """The queries for the format of the open file."""
        return queries(self._file.format)

    def _submit(self, job: Append) -> AsyncFuture[None] | None:
        self._check_open()
        if self._file.must_be_reopened():
            self._let_go()
        try:
            return self._commits.submit(job)
        except StoreError:
            if self._file.change is not None:
                self._let_go()
            raise

    def _check_open(self) -> None:
        if self._closed or self._lock.inherited:
            raise closed(self.url, inherited=self._lock.inherited)
        if self._of_parent:  # raises to the caller, for instance of spawn
            raise StoreError(
                f"{self.url} was open in the parent process when this process was forked",
                hint="fork before opening it, or start a fresh process (multiprocessing's 'spawn')",
            )

    @contextlib.contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """The connection that reads and claims, used by one thread at a time. Its errors leave as
        StoreError.
        """
        self._check_open()
        if self._file.must_be_reopened():
            self._let_go()
        if not self._reading.acquire(blocking=False):
            with self._another_reader() as db:
                yield db
            return
        try:
            # A connection opened read-only would stay so when the file becomes writable again.
            if self._stale or (self._read_only and self._file.may_be_written()):
                self._disconnect()
            if self._connection is None:
                self._connection = self._connect()
                self._stale, self._read_only = False, not self._file.may_be_written()
            else:
                self._check_files()
            yield self._connection
            self._file.check_snapshot()
        except sqlite3.Error as error:
            self._stale = self._stale or needs_reopening(error)
            raise self._file.error(error) from error
        finally:
            self._reading.release()

    def _check_files(self) -> None:
        try:
            self._file.check()
        except StoreError:
            if self._file.change is not None:
                self._let_go()
            raise

    @contextlib.contextmanager
    def _another_reader(self) -> Iterator[sqlite3.Connection]:
        with self._file.translated():
            db = self._connect()
            try:
                yield db
                self._file.check_snapshot()
            finally:
                self._file.disconnect(db)

    def _connect(self) -> sqlite3.Connection:
        connection = self._file.connect(synchronous="OFF", patience=_READ_PATIENCE)
        connection.execute(f"PRAGMA cache_size = -{_READ_CACHE}")
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):  # the last one to close merges the log, safely
                connection.execute(_SAFE_MERGE)
            self._file.disconnect(connection)

    def _let_go(self) -> None:
        """Close what is open of files that have been replaced, so that the new ones can be opened."""
        if self._reading.acquire(blocking=False):  # otherwise another thread is reading, and checks next
            try:
                self._disconnect()
            finally:
                self._reading.release()
        self._let_go_of_writers()

    def _let_go_of_writers(self) -> None:
        self._commits.let_go(_MERGE_PATIENCE)
        for each in self._tables:
            each.let_go()

    @contextlib.contextmanager
    def _own_gate(self) -> Iterator[None]:
        self._lock.folder.mkdir(mode=0o700, exist_ok=True)
        with self._lock.gate():
            yield

    def _forget(self, sessions: bool) -> None:
        """Forget what is known of the old files, since others are in their place. If only the log is another
        (``sessions`` is false), the held sessions are kept.
        """
        if sessions:
            forgotten, self._held = self._held, {}
            for held in list(forgotten.values()):
                held.row = None  # so that waiting writes find no row, even if the file is a copy

    def _holds(self, db: sqlite3.Connection) -> bool:
        """Whether the file has what was written to the held sessions."""
        written = [(held.row, held.head) for held in list(self._held.values()) if held.head.hash != GENESIS]
        return all(row is None or self._queries.has_entry(db, row, head) for row, head in written)

    def _row(self, db: sqlite3.Connection, session_id: str) -> ClaimRow:
        row = claim_row(db, session_id)
        if row is None:
            raise not_found(session_id, self.url)
        return row

    def _explain(self, db: sqlite3.Connection, error: sqlite3.IntegrityError, job: Append) -> SessionError:
        """The typed error for a job that broke a constraint. Called on the thread that commits."""
        session_id = job.held.session_id
        if isinstance(job, Create):
            return HeadConflict(f"session {session_id} already exists in {self.url}")
        self._held.pop(session_id, None)
        row = claim_row(db, session_id)
        if row is None:
            return not_found(session_id, self.url)
        if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_NOTNULL and (holder := self._living(row)):
            return in_use(session_id, holder)
        if (end := self._queries.head(db, row.row)) is None:
            return _emptied(session_id)
        return HeadConflict(f"session {session_id} was taken over and is now at entry {end[0].seq}")


@contextlib.contextmanager
def _of_damage(session_id: str, after: int) -> Iterator[None]:
    """Turn the error for a row with damaged types into SessionCorrupt."""
    try:
        yield
    except TypeError as error:
        raise SessionCorrupt(session_id, after + 1, "its row is damaged") from error


def _orphaned(session_id: str) -> SessionCorrupt:
    return SessionCorrupt(session_id, 1, "its row in the table sessions was deleted, and can be rebuilt")


def _emptied(session_id: str) -> SessionCorrupt:
    return SessionCorrupt(session_id, 1, "its entries were deleted from the file")
