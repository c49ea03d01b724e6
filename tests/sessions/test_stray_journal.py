"""A rollback journal that somebody has put beside a store is not played back: it could change what any session holds."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.sessions.chain import chained
from actors.sessions.sqlite.store import SQLiteStore
from protocol.errors import StoreError


@pytest.fixture
def database(tmp_path: Path) -> Path:
    store = SQLiteStore(tmp_path / "pods.db")
    store.create("s", "p", None, chained([b"honest"]))
    store.close()
    return tmp_path / "pods.db"


def forged_journal(database: Path) -> bytes:
    """A journal that would have the database say something else, made with a copy of it."""
    evil = database.with_name("evil.db")
    shutil.copy(database, evil)
    other = sqlite3.connect(evil, isolation_level=None)
    other.execute("PRAGMA journal_mode = DELETE")
    other.execute("UPDATE entries SET body = ?", (b"forged",))
    other.execute("PRAGMA cache_size = 1")
    other.execute("BEGIN")
    other.execute("UPDATE entries SET body = zeroblob(100)")
    other.execute("CREATE TABLE filler (value)")
    for _ in range(50):  # more than the cache holds, so that the journal is written
        other.execute("INSERT INTO filler VALUES (zeroblob(900))")
    journal = evil.with_name("evil.db-journal").read_bytes()
    other.execute("ROLLBACK")
    other.close()
    for path in evil.parent.glob("evil.db*"):
        path.unlink()
    return journal


def test_it_is_put_aside_before_the_first_connection(database: Path) -> None:
    forged = forged_journal(database)
    database.with_name("pods.db-journal").write_bytes(forged)
    store = SQLiteStore(database)
    (entry,) = store.read("s")
    assert entry.body == b"honest"
    store.close()
    (aside,) = database.parent.glob("pods.db-journal*")
    assert aside.name.endswith(".replaced")
    assert aside.read_bytes() == forged


def test_a_plain_sqlite_would_have_played_it_back(database: Path) -> None:
    database.with_name("pods.db-journal").write_bytes(forged_journal(database))
    plain = sqlite3.connect(database)
    assert plain.execute("SELECT body FROM entries").fetchall() == [(b"forged",)]
    plain.close()


class _Planter:
    """Puts a journal beside a database in the very moment in which SQLite is about to open it."""

    def __init__(self) -> None:
        self.journal, self.forged = Path(), b""
        #: At which openings; all from the first of them on where it never ends.
        self.at: set[int] = set()
        self.always = False
        self._openings = 0
        sys.addaudithook(self._hook)  # for good: it does nothing unless something is to be planted

    def start(self, journal: Path, forged: bytes, at: set[int], *, always: bool) -> None:
        self.journal, self.forged, self.at, self.always, self._openings = journal, forged, at, always, 0

    def stop(self) -> None:
        self.at, self.always = set(), False

    def _hook(self, event: str, _: object) -> None:
        if event == "sqlite3.connect" and (self.at or self.always):
            self._openings += 1
            if self.always or self._openings in self.at:
                self.journal.write_bytes(self.forged)


@pytest.fixture(scope="module")
def planter() -> Iterator[_Planter]:
    planter = _Planter()
    yield planter
    planter.stop()


@pytest.mark.parametrize(("at", "always"), [({1}, False), ({3}, False), (set(), True)])
def test_one_that_comes_in_the_moment_of_opening_is_never_played_back(
    database: Path, planter: _Planter, at: set[int], *, always: bool
) -> None:
    journal = database.with_name("pods.db-journal")
    planter.start(journal, forged_journal(database), at, always=always)
    try:
        store = SQLiteStore(database)
    except StoreError:
        pass
    else:
        assert at == {1}
        store.close()
    finally:
        planter.stop()
    store = SQLiteStore(database)
    assert [each.body for each in store.read("s")] == [b"honest"]
    store.close()


def test_it_is_put_aside_too_while_the_store_is_open_and_locks_nobody_out(database: Path) -> None:
    first = SQLiteStore(database)
    assert [each.body for each in first.read("s")] == [b"honest"]
    forged = forged_journal(database)
    database.with_name("pods.db-journal").write_bytes(forged)
    second = SQLiteStore(database)
    assert [each.body for each in second.read("s")] == [b"honest"]
    second.claim("s", "p")
    (entry,) = first.read("s")
    first_head = first.info("s").head
    assert second.append("s", first_head, chained([b"more"], after=first_head)) is None
    assert [each.body for each in first.read("s")] == [entry.body, b"more"]
    first.close()
    second.close()
    assert not database.with_name("pods.db-journal").exists()


def test_a_journal_of_a_database_that_is_no_store_with_a_log_is_let_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.sessions.sqlite.file.OPEN_PATIENCE", 0.1)
    path = tmp_path / "other.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE kept (value)")
    other.execute("PRAGMA cache_size = 1")
    other.execute("BEGIN")
    for _ in range(50):
        other.execute("INSERT INTO kept VALUES (zeroblob(900))")
    journal = path.with_name("other.db-journal")
    assert journal.stat().st_size
    with pytest.raises(Exception, match=r"other\.db"):
        SQLiteStore(path).sessions()
    assert journal.exists()
    other.close()
