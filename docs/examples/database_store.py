"""A session store in a database that has to be waited for.

The database here is SQLite in a thread, so that the example runs anywhere. With a driver for a server it
reads the same: ``_do`` is then a transaction on a connection of its pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sqlite3
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec

from polypod import (
    Claim,
    Head,
    HeadConflict,
    Holder,
    Parent,
    SessionInfo,
    SessionInUse,
    SessionNotFound,
    SessionStore,
    StoredEntry,
    StoreError,
)

T = TypeVar("T")

TABLES = """
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY, pod TEXT, created REAL, updated REAL, written INTEGER, seq INTEGER, hash BLOB,
    parent BLOB, forked_from TEXT, writer TEXT, holder BLOB, generation INTEGER DEFAULT 0);
CREATE TABLE IF NOT EXISTS entries (
    session TEXT, seq INTEGER, hash BLOB, body BLOB, PRIMARY KEY (session, seq));
CREATE TABLE IF NOT EXISTS gone (id TEXT PRIMARY KEY, compacted_from TEXT);
"""
INFO = "SELECT id, pod, created, updated, seq, hash, parent FROM sessions"


class DatabaseStore(SessionStore):
    """Sessions in two tables. Every method is one transaction, which is awaited."""

    def __init__(self, path: str) -> None:
        self.url = f"database:{path}"
        self._path = path
        #: Who we are among those that share the database.
        self._writer = uuid.uuid4().hex
        self._thread = ThreadPoolExecutor(1)
        self._db: sqlite3.Connection | None = None
        self._closed = False

    # -- writing ---------------------------------------------------------------------------------

    async def create(
        self,
        session_id: str,
        pod: str,
        parent: Parent | None,
        batch: Sequence[StoredEntry],
        *,
        claim: bool = True,
    ) -> None:
        def work(db: sqlite3.Connection) -> None:
            now = time.time()
            try:
                db.execute(
                    "INSERT INTO sessions (id, pod, created, parent, forked_from) VALUES (?, ?, ?, ?, ?)",
                    (session_id, pod, now, msgspec.json.encode(parent), parent and parent.session_id),
                )
            except sqlite3.IntegrityError:
                raise HeadConflict(f"session {session_id} already exists") from None
            self._write(db, session_id, batch)
            if claim:
                self._take(db, session_id, pod)

        await self._do(work)

    async def append(self, session_id: str, after: Head, batch: Sequence[StoredEntry]) -> None:
        def work(db: sqlite3.Connection) -> None:
            writer, holder = self._held(db, session_id)
            if holder is None:
                self._take(db, session_id, "")
            elif writer != self._writer:
                raise _in_use(session_id, holder)
            if not batch:
                return
            head = self._info(db, session_id).head
            if head != after or batch[0].seq != after.seq + 1:
                raise HeadConflict(
                    f"entry {batch[0].seq} of session {session_id} cannot follow entry {head.seq}"
                )
            self._write(db, session_id, batch)

        await self._do(work)

    def _write(self, db: sqlite3.Connection, session_id: str, batch: Sequence[StoredEntry]) -> None:
        rows = [(session_id, entry.seq, entry.hash, entry.body) for entry in batch]
        db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", rows)
        db.execute(
            "UPDATE sessions SET updated = ?, seq = ?, hash = ?,"
            " written = 1 + (SELECT coalesce(max(written), 0) FROM sessions) WHERE id = ?",
            (time.time(), batch[-1].seq, batch[-1].hash, session_id),
        )

    async def delete(self, session_id: str) -> None:
        def work(db: sqlite3.Connection) -> None:
            _, holder = self._held(db, session_id)
            if holder is not None:
                raise _in_use(session_id, holder)
            parent = self._info(db, session_id).parent
            if parent is not None and parent.kind == "compacted_from":  # what went on from it is still found
                db.execute("INSERT OR REPLACE INTO gone VALUES (?, ?)", (session_id, parent.session_id))
            db.execute("DELETE FROM entries WHERE session = ?", (session_id,))
            db.execute("DELETE FROM sessions WHERE id = ?", (session_id,))

        await self._do(work)

    # -- reading ---------------------------------------------------------------------------------

    async def read(self, session_id: str, *, after: int = 0, limit: int | None = None) -> list[StoredEntry]:
        def work(db: sqlite3.Connection) -> list[StoredEntry]:
            self._info(db, session_id)
            rows = db.execute(
                "SELECT seq, hash, body FROM entries WHERE session = ? AND seq > ? ORDER BY seq LIMIT ?",
                (session_id, after, -1 if limit is None else limit),
            )
            return [StoredEntry(*row) for row in rows]

        return await self._do(work)

    async def info(self, session_id: str) -> SessionInfo:
        return await self._do(lambda db: self._info(db, session_id))

    async def sessions(self, *, pod: str | None = None, limit: int | None = None) -> list[SessionInfo]:
        where = f"{INFO} WHERE ? IN (pod, '') ORDER BY written DESC LIMIT ?"
        values = (pod or "", -1 if limit is None else limit)
        return await self._do(lambda db: [_info_of(row) for row in db.execute(where, values)])

    async def successors(self, session_id: str) -> list[SessionInfo]:
        line = (
            "WITH RECURSIVE line(id) AS (SELECT ? UNION "
            "SELECT gone.id FROM gone JOIN line ON gone.compacted_from = line.id) "
        )
        query = f"{line} {INFO} WHERE forked_from IN (SELECT id FROM line) ORDER BY rowid"
        return await self._do(lambda db: [_info_of(row) for row in db.execute(query, (session_id,))])

    def _info(self, db: sqlite3.Connection, session_id: str) -> SessionInfo:
        row = db.execute(f"{INFO} WHERE id = ?", (session_id,)).fetchone()
        if row is None:
            raise SessionNotFound(f"no session {session_id} in {self.url}")
        return _info_of(row)

    # -- claims ----------------------------------------------------------------------------------

    async def claim(self, session_id: str, pod: str) -> Claim:
        def work(db: sqlite3.Connection) -> Claim:
            writer, holder = self._held(db, session_id)
            if holder is not None and (holder.pod or writer != self._writer):
                raise _in_use(session_id, holder)
            return self._take(db, session_id, pod)

        return await self._do(work)

    async def release(self, session_id: str) -> None:
        with contextlib.suppress(StoreError):  # it ends with the process
            await self._do(lambda db: self._let_go(db, "id = ?", session_id))

    async def holder(self, session_id: str) -> Holder | None:
        return (await self._do(lambda db: self._held(db, session_id)))[1]

    def _take(self, db: sqlite3.Connection, session_id: str, pod: str) -> Claim:
        holder = Holder(os.getpid(), socket.gethostname(), time.time(), pod)
        db.execute(
            "UPDATE sessions SET writer = ?, holder = ?, generation = generation + 1 WHERE id = ?",
            (self._writer, msgspec.json.encode(holder), session_id),
        )
        row = db.execute("SELECT generation FROM sessions WHERE id = ?", (session_id,)).fetchone()
        return Claim(session_id, pod, row[0])

    def _held(self, db: sqlite3.Connection, session_id: str) -> tuple[str, Holder | None]:
        """Who holds a session. On many machines a claim is a lease instead, which its holder has to renew."""
        row = db.execute("SELECT writer, holder FROM sessions WHERE id = ?", (session_id,)).fetchone()
        if row is None:
            raise SessionNotFound(f"no session {session_id} in {self.url}")
        if row[0] is None:
            return "", None
        holder = msgspec.json.decode(row[1], type=Holder)
        return row[0], holder if _lives(holder.pid) else None

    def _let_go(self, db: sqlite3.Connection, where: str, *values: str) -> None:
        mine = f"{where} AND writer = ?"
        db.execute(f"UPDATE sessions SET writer = NULL WHERE {mine}", (*values, self._writer))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _close(self) -> None:
        """Behind all that was asked before."""
        if self._db is not None:
            with contextlib.suppress(StoreError):
                self._transaction(lambda db: self._let_go(db, "true"))
            self._db.close()

    # -- transactions ----------------------------------------------------------------------------

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """One transaction: all of ``work`` or nothing."""
        if self._closed:
            raise StoreError(f"{self.url} is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, work)

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._db is None:
                db = sqlite3.connect(self._path, timeout=10, isolation_level=None)
                db.executescript(TABLES)
                self._db = db
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                return work(self._db)
        except sqlite3.Error as error:
            raise StoreError(f"{self.url}: {error}") from error


def _info_of(row: Any) -> SessionInfo:
    session_id, pod, created, updated, seq, hash_, parent = row
    comes_from = msgspec.json.decode(parent, type=Parent | None)
    return SessionInfo(session_id, pod, created, updated, Head(seq, hash_), comes_from)


def _in_use(session_id: str, holder: Holder) -> SessionInUse:
    return SessionInUse(session_id, pid=holder.pid, host=holder.host, since=holder.since, pod=holder.pod)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
