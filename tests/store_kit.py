"""What the tests of stores share: entries to write, and faults to have."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from warm import Popen

from actors.runtime.future import AsyncFuture
from actors.runtime.loop import process_loop
from actors.sessions.answers import settled, wait
from actors.sessions.chain import chained, head_of
from actors.sessions.jsonl.store import JsonLinesStore
from actors.sessions.memory.store import MemoryStore
from actors.sessions.sqlite.rows import pack, unpack
from actors.sessions.sqlite.store import SQLiteStore
from actors.sessions.store import Claim, Holder, SessionInfo, SessionStore
from protocol.approval import ApprovalAnswer
from protocol.entries import Head, Parent, StoredEntry

#: Each kind of store on disk, and how it is opened in a folder.
KINDS: dict[str, Callable[[Path], SessionStore]] = {
    "sqlite-process": lambda folder: SQLiteStore(folder / "pods.db"),
    "sqlite-power": lambda folder: SQLiteStore(folder / "pods.db", "power"),
    "jsonl-process": lambda folder: JsonLinesStore(folder / "pods"),
    "jsonl-power": lambda folder: JsonLinesStore(folder / "pods", "power"),
}


def first_format(folder: Path) -> SQLiteStore:
    """A SQLite store on a file as the first versions made it."""
    return _old_format(folder, version=1, page_size=2048)


def second_format(folder: Path) -> SQLiteStore:
    """A SQLite store on a file in which rows hold several entries, and are all in an index."""
    return _old_format(folder, version=2, page_size=1024)


def _old_format(folder: Path, *, version: int, page_size: int) -> SQLiteStore:
    path = folder / "pods.db"
    if not path.exists():
        path.touch(mode=0o600)
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.executescript(
                f"PRAGMA page_size = {page_size}; {_OLD_FORMAT} PRAGMA user_version = {version};"
            )
    return SQLiteStore(path)


_OLD_FORMAT = """
PRAGMA journal_mode = WAL;
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
PRAGMA application_id = 1886350457;
"""


def change_entry(path: Path, seq: int, old: bytes, new: bytes) -> None:
    """Change the bytes of an entry of the first session in a SQLite file, as somebody by hand would."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        (row, *stored) = db.execute(
            "SELECT id, n, hash, body FROM entries WHERE session = 1 AND n <= ? ORDER BY n DESC LIMIT 1",
            (seq,),
        ).fetchone()
        entries = unpack([tuple(stored)], 0, None)
        bodies = [each.body.replace(old, new) if each.seq == seq else each.body for each in entries]
        assert bodies != [each.body for each in entries]
        changed = [StoredEntry(each.seq, each.hash, body) for each, body in zip(entries, bodies, strict=True)]
        [(_, mark, body)] = pack(changed, 0)
        db.execute("UPDATE entries SET hash = ?, body = ? WHERE id = ?", (mark, body, row))


NOBODY = 65534


def wait_until_done(future: AsyncFuture[None] | Future[None] | None) -> None:
    """Wait until it is durable, or raise what it failed with."""
    if isinstance(future, AsyncFuture):
        future.get(timeout=60)
    elif future is not None:
        future.result(timeout=60)


def bodies(*texts: str) -> list[bytes]:
    return [b'{"text":"%s"}' % text.encode() for text in texts]


def make(
    store: SessionStore,
    session_id: str,
    *texts: str,
    pod: str = "pod",
    parent: Parent | None = None,
    claim: bool = True,
) -> list[StoredEntry]:
    entries = chained(bodies(*texts), first_seq=1 if parent is None else parent.at_seq + 1)
    wait_until_done(store.create(session_id, pod, parent, entries, claim=claim))
    return entries


def add(store: SessionStore, session_id: str, after: Head, *texts: str) -> Head:
    batch = chained(bodies(*texts), after=after)
    wait_until_done(store.append(session_id, after, batch))
    return head_of(batch)


def child_of(session_id: str, entries: list[StoredEntry], kind: str = "forked_from") -> Parent:
    return Parent(kind, session_id, entries[-1].hash.hex(), entries[-1].seq)


class Interposed:
    """Stands before the commits of the store class that follows it: ``class Mine(Interposed, MemoryStore)``."""

    def _commit(self, keep: Callable[[], Any]) -> Any:
        """Have what ``keep`` does kept, or not; what ``append`` and ``create`` give and raise."""
        raise NotImplementedError

    def append(self, *args: Any) -> Any:
        return self._commit(partial(super().append, *args))

    def create(self, *args: Any, **options: Any) -> Any:
        return self._commit(partial(super().create, *args, **options))


class AwaitedStore(SessionStore):
    """A store as one over a network is: each answer of another store comes a turn of the loop later at least,
    or, while it is ``away``, not before it comes back.
    """

    url = "awaited:"

    def __init__(self, kept: SessionStore | None = None) -> None:
        self.kept = MemoryStore() if kept is None else kept
        self.keeps_answers = self.kept.keeps_answers
        self._back: asyncio.Event | None = None
        self._away_at: str | None = None
        self._asked: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(0))

    def go_away(self, at: str | None = None) -> None:
        """Answer nothing from now on, or from the next time that it is asked ``at``."""
        self._asked.clear()
        self._away_at = at
        if at is None:
            self._back = asyncio.Event()

    def come_back(self) -> None:
        assert self._back is not None
        self._back.set()
        self._back = None

    async def wait_until_asked(self, what: str) -> None:
        """Wait until it is asked that, once more than we have waited for so far."""
        await self._asked[what].acquire()

    async def _answer(self, what: str, *args: Any, **options: Any) -> Any:
        self._asked[what].release()
        if what == self._away_at:
            self.go_away()
            self._asked[what].release()
        await asyncio.sleep(0)
        if self._back is not None:
            await self._back.wait()
        answer = getattr(self.kept, what)(*args, **options)
        return await (asyncio.wrap_future(answer) if isinstance(answer, Future) else settled(answer))

    async def create(self, *args, **options) -> None:
        await self._answer("create", *args, **options)

    async def append(self, *args) -> None:
        await self._answer("append", *args)

    async def read(self, session_id, **options) -> list[StoredEntry]:
        return await self._answer("read", session_id, **options)

    async def info(self, session_id) -> SessionInfo:
        return await self._answer("info", session_id)

    async def sessions(self, **options) -> list[SessionInfo]:
        return await self._answer("sessions", **options)

    async def successors(self, session_id) -> list[SessionInfo]:
        return await self._answer("successors", session_id)

    async def claim(self, session_id, pod) -> Claim:
        return await self._answer("claim", session_id, pod)

    async def release(self, session_id) -> None:
        await self._answer("release", session_id)

    async def holder(self, session_id) -> Holder | None:
        return await self._answer("holder", session_id)

    async def delete(self, session_id) -> None:
        await self._answer("delete", session_id)

    async def put_answer(self, answer) -> bool:
        return await self._answer("put_answer", answer)

    async def answers(self, approval_ids) -> list[ApprovalAnswer]:
        return await self._answer("answers", approval_ids)

    async def answers_since(self, mark) -> tuple[object, list[ApprovalAnswer]]:
        return await self._answer("answers_since", mark)

    async def close(self) -> None:
        await self._answer("close")


class Blocking:
    """A store that has to be awaited as who blocks uses it; its commits are futures."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._commits: list[Future[None]] = []

    def __getattr__(self, name: str) -> Any:
        ask = getattr(self._store, name)
        return (lambda *args, **options: wait(ask(*args, **options))) if callable(ask) else ask

    def create(self, *args, **options) -> Future[None]:
        return self._begin(self._store.create(*args, **options))

    def append(self, *args) -> Future[None]:
        return self._begin(self._store.append(*args))

    def _begin(self, commit) -> Future[None]:
        self._commits.append(asyncio.run_coroutine_threadsafe(commit, process_loop().mailroom.loop))
        return self._commits[-1]

    def flush(self) -> None:
        futures.wait(self._commits)


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond ``size`` bytes: writes are cut short, then refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def small_disk(folder: Path, size: str, *, files: int = 0) -> Iterator[None]:
    """A disk of that size, for at most so many files, is at ``folder``; skips the test where nobody may mount
    one.
    """
    folder.mkdir()
    options = f"size={size},nr_inodes={files}"  # 0: no limit
    if not _can_do("mount", "-t", "tmpfs", "-o", options, "tmpfs", folder):
        pytest.skip("mounting takes privileges")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def disk_with_quota(folder: Path, quota: str) -> Iterator[Path]:
    """A folder on a disk, with at most so much in it; skips the test where there can be none."""
    folder.mkdir()
    image, limited = folder.with_name(f"{folder.name}.img"), folder / "limited"
    with image.open("wb") as file:
        file.truncate(160 << 20)
    try:
        ready = (
            _can_do("mkfs.btrfs", "--quiet", image)
            and _can_do("mount", "-o", "loop", image, folder)
            and _can_do("btrfs", "quota", "enable", folder)
            and _can_do("btrfs", "subvolume", "create", limited)
            and _can_do("btrfs", "qgroup", "limit", quota, limited)
        )
        if not ready:
            pytest.skip("a disk with a quota takes privileges, and a file system that has them")
        yield limited
    finally:
        _can_do("umount", "--lazy", folder)
        image.unlink()


def _can_do(*words: str | Path) -> bool:
    try:
        return not subprocess.run(list(map(str, words)), capture_output=True, check=False).returncode
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def without_privileges(folder: Path) -> Iterator[None]:
    """Permissions hold within, also where the tests run as root."""
    if os.geteuid():
        yield
        return
    for path in [folder, *folder.parents][:4]:
        path.chmod(0o755)
    os.chown(folder, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def python(script: str, *arguments: object, pass_fds: Sequence[int] = ()) -> subprocess.Popen[str]:
    """A process that runs ``script``, with pipes to talk to it."""
    return Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=pass_fds,
    )
