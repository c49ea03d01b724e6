"""A SQLite store in a folder that may not be written is read: as it was closed, or as a killed process left it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from store_kit import add, bodies, make, without_privileges

from actors.sessions.chain import head_of, verified
from actors.sessions.sqlite.store import SQLiteStore
from protocol.errors import StoreError


def copy_open(folder: Path, *ends: str) -> None:
    """A store with a session of two entries, as it lies on the disk while a process has it open."""
    folder.mkdir()
    path = folder.parent / "written.db"
    with closing(SQLiteStore(path)) as store:
        add(store, "s", head_of(make(store, "s", "a")), "b")
        for end in ends:
            shutil.copy(f"{path}{end}", folder / f"pods.db{end}")


def copy_closed(folder: Path) -> None:
    copy_open(folder)
    shutil.copy(folder.parent / "written.db", folder / "pods.db")


def copy_of_sqlite(folder: Path) -> None:
    """As ``VACUUM INTO`` makes it, with no log."""
    copy_open(folder)
    with closing(sqlite3.connect(folder.parent / "written.db")) as db:
        db.execute("VACUUM INTO ?", [str(folder / "pods.db")])


LEFT = {
    "closed": copy_closed,
    "killed": lambda folder: copy_open(folder, "", "-wal", "-shm"),
    "killed, without the index": lambda folder: copy_open(folder, "", "-wal"),
    "a backup of SQLite's": copy_of_sqlite,
}


@pytest.fixture(params=LEFT)
def folder(request, tmp_path):
    made = tmp_path / "medium"
    LEFT[request.param](made)
    return made


@contextmanager
def only_readable(folder: Path, file_mode: int = 0o444):
    for path in folder.iterdir():
        path.chmod(file_mode)
    folder.chmod(0o555)
    try:
        with without_privileges(folder.parent):
            yield
    finally:
        folder.chmod(0o755)


@pytest.mark.parametrize("file_mode", [0o444, 0o666])
def test_it_is_read_and_left_as_it_is(folder, file_mode):
    merges = file_mode & 0o222 and (folder / "pods.db-shm").exists()  # then it may be written as it is
    before = contents(folder)
    with (
        only_readable(folder, file_mode),
        closing(SQLiteStore(folder / "pods.db")) as store,
        closing(SQLiteStore(folder / "pods.db")) as another,
    ):
        for each in store, another:
            assert [entry.body for entry in verified("s", each.read("s"))] == bodies("a", "b")
            assert [info.session_id for info in each.sessions()] == ["s"]
            assert each.holder("s") is None
            assert each.problems() == []
    assert merges or contents(folder) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-shm")}


def test_a_write_there_is_refused_and_reading_goes_on(folder):
    with only_readable(folder), closing(SQLiteStore(folder / "pods.db")) as store:
        for write in (
            lambda: store.claim("s", "pod"),
            lambda: make(store, "t", "a"),
            lambda: store.delete("s"),
        ):
            with pytest.raises(StoreError, match=r"Permission denied|is not writable"):
                write()
        assert len(store.read("s")) == 2


def test_once_it_may_be_written_it_is_and_what_others_write_is_read(folder):
    path = folder / "pods.db"
    with only_readable(folder):
        store = SQLiteStore(path)
        head = store.info("s").head
    with closing(store):
        assert store.info("s").head == head
        with closing(SQLiteStore(path)) as other:
            head = add(other, "s", head, "c")
        assert store.info("s").head == head
        head = add(store, "s", head, "d")
        assert len(verified("s", store.read("s"))) == 4


def test_what_changes_while_it_is_read_is_no_answer(tmp_path):
    folder = tmp_path / "medium"
    copy_closed(folder)
    path = folder / "pods.db"
    with only_readable(folder, 0o666), closing(SQLiteStore(path)) as store:
        with pytest.raises(StoreError, match=r"cannot read .*written since"), store._reader():
            os.utime(path)
        assert len(store.read("s")) == 2


def test_what_is_half_written_as_it_is_read_is_not_called_damaged(tmp_path):
    folder = tmp_path / "medium"
    copy_closed(folder)
    path = folder / "pods.db"

    def read_half(store):
        with store._reader() as db:
            os.truncate(path, 1024)
            db.execute("SELECT * FROM entries").fetchall()

    with (
        only_readable(folder, 0o666),
        closing(SQLiteStore(path)) as store,
        pytest.raises(StoreError, match=r"cannot read .*written since"),
    ):
        read_half(store)
