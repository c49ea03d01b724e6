"""The space of deleted sessions goes back to the disk by a copy that takes the place of a large file."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import threading

import pytest
from store_kit import add, make, python, without_privileges

from actors.sessions.chain import head_of, verified
from actors.sessions.sqlite.checkpoint import Checkpointer
from actors.sessions.sqlite.file import SQLiteFile
from actors.sessions.sqlite.store import SQLiteStore
from protocol.errors import StoreError

OTHER = """
import sys
sys.path.append("tests")
from store_kit import make
from actors.sessions.sqlite.store import SQLiteStore

store = SQLiteStore(sys.argv[1])
print(len(store.sessions()), flush=True)
for line in sys.stdin:
    make(store, line.strip(), "b", claim=False)
    print("made", flush=True)
store.close()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pods.db"


@pytest.fixture
def store(path, monkeypatch):
    """A store that counts as large, half of which is free, and of which this process holds a session."""
    monkeypatch.setattr("actors.sessions.sqlite.store._SOON_COPIED", 90_000)
    with contextlib.closing(SQLiteStore(path)) as made:
        make(made, "s", "x" * 100_000)
        make(made, "t", "x" * 100_000, claim=False)
        made.delete("t")
        yield made


def copies(path):
    return [each for each in path.parent.iterdir() if ".compact" in each.name]


@pytest.fixture
def opened_by_another(path):
    @contextlib.contextmanager
    def opened():
        process = python(OTHER, path)
        assert process.stdout.readline().strip().isdigit()
        try:
            yield process
        finally:
            process.communicate(timeout=60)
            assert process.returncode == 0

    return opened


def test_a_held_session_goes_on_in_the_copy(path, store):
    path.chmod(0o640)
    store.reclaim()
    assert path.stat().st_size < 150_000
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert copies(path) == []
    add(store, "s", store.info("s").head, "b")
    assert len(verified("s", store.read("s"))) == 2
    assert store.problems() == []


def test_the_file_is_left_while_another_process_reads_it(path, store, opened_by_another):
    with opened_by_another(), pytest.raises(StoreError, match=r"another process, .* open"):
        store.reclaim()
    assert copies(path) == []
    store.reclaim()
    assert path.stat().st_size < 150_000


def test_a_process_that_comes_while_the_copy_is_made_writes_and_loses_nothing(
    path, store, opened_by_another, monkeypatch
):
    @contextlib.contextmanager
    def copied_while_another_writes(file, connection):
        with copy(file, connection) as made, opened_by_another() as other:
            other.stdin.write("u\n")
            other.stdin.flush()
            assert other.stdout.readline() == "made\n"
            other.communicate(timeout=60)
            yield made

    copy = SQLiteFile.compact_copy
    monkeypatch.setattr(SQLiteFile, "compact_copy", copied_while_another_writes)
    with pytest.raises(StoreError, match=r"another process, .* open"):
        store.reclaim()
    assert {info.session_id for info in store.sessions()} == {"s", "u"}
    assert copies(path) == []


def test_what_a_killed_process_left_of_a_copy_is_written_over(path, store):
    path.with_name("pods.db.compact").write_bytes(b"half of it")
    store.reclaim()
    assert copies(path) == []
    head = add(store, "s", store.info("s").head, "b")
    assert head_of(verified("s", store.read("s"))) == head


@pytest.mark.parametrize("by", ["the same store", "another store of the process"])
def test_what_a_thread_commits_while_the_copy_takes_its_place_is_kept(path, store, monkeypatch, by):
    @contextlib.contextmanager
    def copied(file, connection):
        with copy(file, connection) as made:
            is_made.set()
            yield made

    def commit(session_id):
        is_made.wait(30)
        make(writer, session_id, "b", claim=False)
        writer.flush()

    def opened_by(by):
        return (
            contextlib.nullcontext(store) if by == "the same store" else contextlib.closing(SQLiteStore(path))
        )

    copy, is_made = SQLiteFile.compact_copy, threading.Event()
    monkeypatch.setattr(SQLiteFile, "compact_copy", copied)
    for number in range(40):
        is_made.clear()
        with opened_by(by) as writer:
            thread = threading.Thread(target=commit, args=[f"u{number}"])
            thread.start()
            with contextlib.suppress(StoreError):
                store.reclaim()
            is_made.set()
            thread.join()
        make(store, "t", "x" * 30_000, claim=False)
        store.delete("t")
    assert {info.session_id for info in store.sessions()} == {"s", *(f"u{number}" for number in range(40))}
    assert store.problems() == []


def test_the_thread_that_merges_the_log_lets_go_of_the_file(path, store, monkeypatch):
    merged = threading.Event()
    monkeypatch.setattr(SQLiteFile, "note_merge", lambda _: merged.set())
    monkeypatch.setattr(Checkpointer, "START", 1)
    add(store, "s", store.info("s").head, "b")
    assert merged.wait(30)
    store.reclaim()
    assert path.stat().st_size < 150_000


@pytest.mark.parametrize("soon_copied", [90_000, 1_000_000])
def test_the_log_is_merged_so_that_power_may_fail(store, monkeypatch, soon_copied):
    monkeypatch.setattr("actors.sessions.sqlite.store._SOON_COPIED", soon_copied)
    statements = []
    store._connection.set_trace_callback(statements.append)
    store.reclaim()
    vacuum = next(index for index, each in enumerate(statements) if each.startswith("VACUUM"))
    assert "PRAGMA synchronous = NORMAL" in statements[:vacuum]
    assert "PRAGMA synchronous = OFF" not in statements


def test_another_users_file_that_may_be_written_is_made_smaller_in_its_place(path, store):
    store.close()
    path.chmod(0o666)
    shutil.rmtree(f"{path}.writers")
    before = path.stat()
    with without_privileges(path.parent), contextlib.closing(SQLiteStore(path)) as opened:
        opened.reclaim()
        assert len(verified("s", opened.read("s"))) == 1
    after = path.stat()
    assert after.st_size < 150_000 < before.st_size
    if after.st_uid != path.parent.stat().st_uid:  # the tests run as root
        assert after.st_ino == before.st_ino
    assert copies(path) == []


def test_a_store_in_a_folder_whose_name_is_not_utf8_is_opened_and_made_smaller(tmp_path, monkeypatch):
    monkeypatch.setattr("actors.sessions.sqlite.store._SOON_COPIED", 90_000)
    folder = tmp_path / os.fsdecode(b"caf\xe9 #%41")
    folder.mkdir()
    with contextlib.closing(SQLiteStore(folder / "pods.db")) as store:
        make(store, "s", "x" * 100_000)
        make(store, "t", "x" * 100_000, claim=False)
        store.delete("t")
        before = store.path.stat().st_size
        store.reclaim()
        assert store.path.stat().st_size < before
        assert [info.session_id for info in store.sessions()] == ["s"]
