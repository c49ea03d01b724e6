"""Faults of a store's files under a process at work: deleted, replaced, copied over; and forks in
mid-work.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Self

from actors.sessions.chain import chained
from actors.sessions.store import SessionStore
from bench.crash.fault import Fault
from protocol.errors import PolypodError

#: The ending of a backup's name while it is copied over a file of the store, and afterwards.
_COPYING = ".copying"


class LogDeleted(Fault):
    """The write-ahead log of a SQLite store, its index, or both are deleted; nothing reported may be lost."""

    name = "log"

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self._store = folder / "disk" / "store"
        self._chance = chance

    def __enter__(self) -> Self:
        self.hits = 0
        for suffix in self._chance.choice((("-wal",), ("-wal", "-shm"), ("-shm",))):
            with contextlib.suppress(FileNotFoundError):
                (self._store / f"pods.db{suffix}").unlink()
                self.hits += 1
        return self

    def __exit__(self, *error: object) -> None: ...


class Swapped(Fault):
    """A backup replaces the database, or files of sessions, by a rename or by copying over. What was reported
    since may be lost, but what is there is complete, and is continued.
    """

    name = "swap"

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self._store = folder / "disk" / "store"
        self._backup = folder / "backup"
        self._chance = chance

    def __enter__(self) -> Self:
        self.hits = 0
        shutil.rmtree(self._backup, ignore_errors=True)
        self._backup.mkdir()
        database = self._store / "pods.db"
        if database.exists():
            self._back_up(database)
        for path in self._store.glob("*.jsonl"):
            shutil.copyfile(path, self._backup / path.name)
        return self

    def _back_up(self, database: Path) -> None:
        """Make a backup, unless the store has not noticed the last one yet: then a reader in this process
        sees the file through the log of the one before, and would not copy a whole database.

        The reader must not write: as the last connection it would merge that log on closing.
        """
        backup = self._backup / database.name
        try:
            with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", timeout=5, uri=True)) as db:
                db.execute("VACUUM INTO ?", (str(backup),))
            with contextlib.closing(sqlite3.connect(backup)) as db:
                whole = db.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",)
        except sqlite3.DatabaseError:
            whole = False
        if not whole:
            backup.unlink(missing_ok=True)

    def __exit__(self, *_: object) -> None:
        for saved in list(self._backup.iterdir()):
            if saved.suffix == ".db" or self._chance.random() < 0.5:
                self.hits += 1
                if self._chance.random() < 0.5:
                    saved.replace(self._store / saved.name)
                else:
                    (self._backup / (saved.name + _COPYING)).touch()
                    shutil.copyfile(saved, self._store / saved.name)


def finish_copies(folder: Path) -> None:
    """Rename what a process was copying, or copied last, when it was killed: half a copy is nobody's backup,
    and a log left beside the file is that of the one before. People who follow docs/stores.md do the same.
    """
    for note in (folder / "backup").glob("*" + _COPYING):
        name = note.name.removesuffix(_COPYING)
        with contextlib.suppress(FileNotFoundError):  # it was killed while deleting the last backup
            (folder / "backup" / name).replace(folder / "disk" / "store" / name)
        note.unlink()


class Forked(Fault):
    """The process is forked in mid-work; the child tries to use what it has from its parent, and ends."""

    name = "fork"

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        #: What the children try to use.
        self.store: SessionStore | None = None
        self._child = 0

    def __enter__(self) -> Self:
        delay = self._chance.uniform(0, 0.02)
        self._child = os.fork()
        if self._child == 0:
            self._misuse(delay)
        return self

    def _misuse(self, delay: float) -> None:
        code = 1
        try:
            assert self.store is not None
            refused = 0
            for use in (self._create, self._list, self._take):
                try:
                    use(self.store)
                except PolypodError:
                    refused += 1
            time.sleep(delay)
            self.store.close()
            code = 0 if refused == 3 else 1
        finally:
            os._exit(code)

    def _create(self, store: SessionStore) -> None:
        store.create(f"child-{os.getpid()}", "child", None, chained([b"{}"]))

    def _list(self, store: SessionStore) -> None:
        store.sessions()

    def _take(self, store: SessionStore) -> None:
        store.claim("none", "child")

    def __exit__(self, *_: object) -> None:
        code = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        assert code == 0, "a forked child could use its parent's store"
