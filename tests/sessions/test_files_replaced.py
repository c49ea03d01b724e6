"""The files of a living store are replaced, overwritten, cut off, deleted: nothing of one file comes into another."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple, Self

import pytest
from child_kit import in_child
from store_kit import add, make
from warm import Popen

from actors.sessions.chain import head_of, verified
from actors.sessions.sqlite.checkpoint import Checkpointer
from actors.sessions.sqlite.file import SQLiteFile
from actors.sessions.sqlite.quarantine import note_log, note_retired
from actors.sessions.sqlite.store import SQLiteStore
from actors.sessions.sqlite.watch import FileWatch, identity_of
from protocol.entries import Head
from protocol.errors import HeadConflict, SessionError, SessionInUse, StoreError

WORDS = "x" * 3000


class Stage(NamedTuple):
    """A store at work, a backup of it (whose session ends at ``then``), and where it stands now."""

    store: SQLiteStore
    path: Path
    backup: Path
    then: Head
    now: Head


@pytest.fixture(params=["process", "power"])
def stage(request, tmp_path, monkeypatch) -> Iterator[Stage]:
    monkeypatch.setattr(
        "actors.sessions.sqlite.file._STILL", 0.01
    )  # nobody copies unless a test has it do so
    path = tmp_path / "store" / "pods.db"
    store = SQLiteStore(path, request.param)
    head = head_of(make(store, "s", "first"))
    for _ in range(3):
        head = add(store, "s", head, *[WORDS] * 10)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM INTO ?", (str(tmp_path / "backup"),))
        db.execute("PRAGMA wal_checkpoint")
    then = head
    for _ in range(4):
        head = add(store, "s", head, *[WORDS] * 10)
    yield Stage(store, path, tmp_path / "backup", then, head)
    store.close()


def integrity(path: Path) -> str:
    with contextlib.closing(sqlite3.connect(path)) as db:
        (found,) = db.execute("PRAGMA integrity_check(3)").fetchone()
        return found


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def index_of(path: Path) -> Path:
    return path.with_name(path.name + "-shm")


def move_in(stage: Stage) -> None:
    stage.backup.replace(stage.path)


def copy_over(stage: Stage) -> None:
    inode = stage.path.stat().st_ino
    shutil.copyfile(stage.backup, stage.path)
    assert stage.path.stat().st_ino == inode


def delete_and_copy(stage: Stage) -> None:
    stage.path.unlink()
    shutil.copyfile(stage.backup, stage.path)


def delete_all_and_copy(stage: Stage) -> None:
    for path in (stage.path, log_of(stage.path), index_of(stage.path)):
        path.unlink()
    shutil.copyfile(stage.backup, stage.path)


def move_folder_and_make_anew(stage: Stage) -> None:
    stage.path.parent.rename(stage.path.parent.with_name("elsewhere"))
    stage.path.parent.mkdir()
    shutil.copyfile(stage.backup, stage.path)


@pytest.mark.parametrize(
    "replace", [move_in, copy_over, delete_and_copy, delete_all_and_copy, move_folder_and_make_anew]
)
def test_a_backup_that_is_put_in_place_of_the_file_stays_whole_and_is_used(stage: Stage, replace):
    replace(stage)
    with pytest.raises(StoreError, match=r"has taken its place|was overwritten") as caught:
        add(stage.store, "s", stage.now, "lost")
    assert not isinstance(caught.value, HeadConflict)
    with pytest.raises(HeadConflict):  # the session goes on as that file has it
        add(stage.store, "s", stage.now, "lost")
    assert stage.store.info("s").head == stage.then
    head = add(stage.store, "s", stage.then, "after")
    make(stage.store, "t", "new")
    assert len(verified("s", stage.store.read("s"))) == head.seq
    assert stage.store.problems() == []
    stage.store.close()
    assert integrity(stage.path) == "ok"
    again = SQLiteStore(stage.path)
    assert again.info("s").head == head
    again.close()


@pytest.mark.parametrize("replace", [move_in, copy_over, delete_and_copy])
def test_a_backup_stays_whole_where_the_store_is_only_closed_after_it_came(stage: Stage, replace):
    replace(stage)
    stage.store.close()
    assert integrity(stage.path) == "ok"
    again = SQLiteStore(stage.path)
    assert again.info("s").head == stage.then
    again.close()


@pytest.mark.parametrize("replace", [move_in, copy_over, delete_and_copy])
def test_a_backup_is_noticed_by_who_only_reads_or_makes_or_claims(stage: Stage, replace):
    make(stage.store, "u", "x")
    stage.store.release("u")
    stage.store.flush()
    replace(stage)
    for use in (
        lambda: stage.store.read("s"),
        lambda: make(stage.store, "t", "new"),
        lambda: stage.store.claim("s", "pod"),
    ):
        with contextlib.suppress(SessionError):
            use()
    stage.store.close()
    assert integrity(stage.path) == "ok"


def test_what_the_old_file_had_not_merged_is_kept_beside_it_under_another_name(stage: Stage):
    move_in(stage)
    with pytest.raises(StoreError):
        add(stage.store, "s", stage.now, "lost")
    stage.store.sessions()
    assert [path for path in stage.path.parent.iterdir() if path.name.endswith(".replaced")]


@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("then", ["write", "claim", "close"])
def test_a_backup_copied_over_after_the_first_commit_to_a_log_is_noticed(tmp_path, durability, then):
    """That commit begins the log anew, as a merge is followed by; and the backup's counter is the file's own."""
    path, backups = tmp_path / "pods.db", [tmp_path / "first", tmp_path / "second"]
    store = SQLiteStore(path, durability)
    for name in ("s", "t"):
        make(store, name, "first", *[WORDS] * 20)
    store.close()
    for backup in backups:
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("VACUUM INTO ?", (str(backup),))
        if backup == backups[0]:
            shutil.copyfile(backup, path)
    store = SQLiteStore(path, durability)
    if then == "claim":
        store.claim("s", "p")
    else:
        add(store, "s", store.info("s").head, "the first to the log")
    shutil.copyfile(backups[1], path)
    if then != "close":
        with pytest.raises(StoreError, match="overwritten"):
            make(store, "u", "lost")
    store.close()
    assert integrity(path) == "ok"
    again = SQLiteStore(path, durability)
    assert {info.session_id: info.head.seq for info in again.sessions()} == {"s": 21, "t": 21}
    again.close()


def test_a_backup_without_a_log_gets_one(stage: Stage):
    """What ``VACUUM INTO`` makes is a database that is written in place."""
    move_in(stage)
    with contextlib.suppress(StoreError):
        stage.store.sessions()
    add(stage.store, "s", stage.then, "after")
    with contextlib.closing(sqlite3.connect(stage.path)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_copy_that_is_still_on_its_way_is_not_opened(stage: Stage):
    whole = stage.backup.read_bytes()
    with stage.path.open("r+b") as file:
        file.truncate(0)
        for refused in ("overwritten", "empty", "empty"):
            with pytest.raises(StoreError, match=refused):
                make(stage.store, "t", "lost")
        file.write(whole)
    assert stage.store.info("s").head == stage.then
    add(stage.store, "s", stage.then, "after")
    assert stage.store.problems() == []
    stage.store.close()
    assert integrity(stage.path) == "ok"


def test_a_backup_copied_over_by_another_process_all_the_time_stays_whole(stage: Stage):
    command = [sys.executable, "-c", _COPYING, str(stage.backup), str(stage.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as copying:
        refused = 0
        while copying.stdout.read(1):  # a piece is copied
            try:
                make(stage.store, f"t{refused}", WORDS)
            except SessionError:
                refused += 1
            copying.stdin.write(b"\n")
    assert refused
    stage.store.close()
    again = SQLiteStore(stage.path)
    assert again.info("s").head == stage.then
    again.close()
    assert integrity(stage.path) == "ok"


_COPYING = """
import os, sys
data = open(sys.argv[1], "rb").read()
for _ in range(3):
    with open(sys.argv[2], "r+b") as file:
        file.truncate(0)
        for start in range(0, len(data), 2048):
            file.write(data[start : start + 2048])
            file.flush()
            os.write(1, b".")
            os.read(0, 1)
"""


def cut_to_nothing(stage: Stage) -> None:
    os.truncate(stage.path, 0)


def cut_in_half(stage: Stage) -> None:
    os.truncate(stage.path, stage.path.stat().st_size // 4096 * 2048)


def fill_with_garbage(stage: Stage) -> None:
    stage.path.write_bytes(b"garbage" * 1000)


@pytest.mark.parametrize("damage", [cut_to_nothing, cut_in_half, fill_with_garbage])
def test_a_file_that_is_damaged_in_its_place_is_reported_and_not_written_into(stage: Stage, damage):
    damage(stage)
    before = stage.path.read_bytes()
    with pytest.raises(StoreError, match="overwritten"):
        add(stage.store, "s", stage.now, "lost")
    assert stage.path.read_bytes() == before


def test_a_file_that_was_moved_away_is_missed_and_used_again_when_it_is_back(stage: Stage):
    for path in (stage.path, stage.path.parent):
        path.rename(path.with_name("away"))
        for _ in range(2):
            with pytest.raises(StoreError, match="moved or deleted"):
                add(stage.store, "s", stage.now, "lost")
        path.with_name("away").rename(path)
        stage = stage._replace(now=add(stage.store, "s", stage.now, "after"))
    assert len(verified("s", stage.store.read("s"))) == stage.now.seq


def test_a_store_that_is_closed_while_its_file_is_away_merges_a_log_that_was_deleted_before(stage: Stage):
    """SQLite merges no log of a file that has lost its name."""
    log_of(stage.path).unlink()
    stage.path.rename(stage.path.with_name("away"))
    stage.store.close()
    stage.path.with_name("away").rename(stage.path)
    with contextlib.closing(SQLiteStore(stage.path)) as store:
        assert len(verified("s", store.read("s"))) == stage.now.seq


def log_deleted(stage: Stage) -> None:
    log_of(stage.path).unlink()


def both_deleted(stage: Stage) -> None:
    log_of(stage.path).unlink()
    index_of(stage.path).unlink()


def index_deleted(stage: Stage) -> None:
    index_of(stage.path).unlink()


def log_moved_away(stage: Stage) -> None:
    log_of(stage.path).rename(stage.path.parent / "log-elsewhere")


def empty_log_put_there(stage: Stage) -> None:
    empty = stage.path.parent / "empty"
    empty.touch()
    empty.replace(log_of(stage.path))


def old_log_put_there(stage: Stage) -> None:
    old = stage.path.parent / "old"
    old.write_bytes(log_of(stage.path).read_bytes()[: 32 + 3 * 2072])
    old.replace(log_of(stage.path))


@pytest.mark.parametrize(
    "damage",
    [log_deleted, both_deleted, index_deleted, log_moved_away, empty_log_put_there, old_log_put_there],
)
def test_a_lost_write_ahead_log_refuses_one_commit_and_loses_nothing(stage: Stage, damage):
    damage(stage)
    with pytest.raises(StoreError, match="write-ahead log"):
        add(stage.store, "s", stage.now, "refused")
    head = add(stage.store, "s", stage.now, "after")
    assert stage.store.info("s").head == head
    make(stage.store, "t", "new")
    assert len(verified("s", stage.store.read("s"))) == head.seq
    shutil.copytree(stage.path.parent, stage.path.parent.with_name("killed"))  # what kill -9 leaves
    killed = SQLiteStore(stage.path.parent.with_name("killed") / stage.path.name)
    assert killed.info("s").head == head
    killed.close()
    stage.store.close()
    assert integrity(stage.path) == "ok"


@pytest.mark.parametrize("damage", [log_deleted, both_deleted, index_deleted, move_in, delete_and_copy])
def test_what_is_lost_again_while_only_the_reader_has_it_open_refuses_one_commit_again(stage: Stage, damage):
    """What commits has nothing open then, and finds the change as it opens the files: all must learn of it."""
    log_deleted(stage)
    with pytest.raises(StoreError, match="write-ahead log"):
        add(stage.store, "s", stage.now, "refused")
    assert stage.store.info("s").head == stage.now
    damage(stage)
    with pytest.raises(StoreError, match=r"write-ahead log|taken its place"):
        add(stage.store, "s", stage.now, "refused")
    now = stage.then if damage in {move_in, delete_and_copy} else stage.now
    if now != stage.now:
        with pytest.raises(HeadConflict):
            add(stage.store, "s", stage.now, "lost")
    head = add(stage.store, "s", now, "after")
    assert len(verified("s", stage.store.read("s"))) == head.seq
    stage.store.close()
    assert integrity(stage.path) == "ok"


@pytest.mark.parametrize("replace", [move_in, copy_over, delete_and_copy])
def test_a_backup_that_comes_while_nothing_is_open_after_a_lost_log_goes_on_as_it_is(stage: Stage, replace):
    both_deleted(stage)
    with pytest.raises(StoreError, match="write-ahead log"):
        add(stage.store, "s", stage.now, "refused")
    stage.store._let_go()  # as the next use of a store does whose writer thread was refused
    replace(stage)
    with pytest.raises(StoreError, match="taken its place"):
        add(stage.store, "s", stage.now, "lost")
    with pytest.raises(HeadConflict):
        add(stage.store, "s", stage.now, "lost")
    head = add(stage.store, "s", stage.then, "after")
    assert len(verified("s", stage.store.read("s"))) == head.seq
    stage.store.close()
    assert integrity(stage.path) == "ok"


@pytest.mark.parametrize(("cut", "size"), [(log_of, 0), (index_of, 0), (index_of, 200), (index_of, 16384)])
def test_what_is_cut_off_in_its_place_is_reported_and_what_the_database_has_is_sound(stage: Stage, cut, size):
    """Of the index, SQLite would touch what is not there any more: that ends the process."""
    os.truncate(cut(stage.path), size)
    with pytest.raises(StoreError, match="truncated"):
        add(stage.store, "s", stage.now, "refused")
    with contextlib.suppress(StoreError):
        assert verified("s", stage.store.read("s"))
    stage.store.close()
    assert integrity(stage.path) == "ok"


def test_two_stores_of_a_process_that_lose_the_log_together_lose_nothing(stage: Stage):
    other = SQLiteStore(stage.path)
    theirs = head_of(make(other, "t", "theirs"))
    log_of(stage.path).unlink()
    with pytest.raises(StoreError, match="write-ahead log"):
        add(stage.store, "s", stage.now, "refused")
    with pytest.raises(StoreError, match="write-ahead log"):
        add(other, "t", theirs, "refused")
    ours, theirs = add(stage.store, "s", stage.now, "after"), add(other, "t", theirs, "after")
    for store in (stage.store, other):
        assert (store.info("s").head, store.info("t").head) == (ours, theirs)
    other.close()
    stage.store.close()
    assert integrity(stage.path) == "ok"


_FOREIGN = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    db.execute(statement).fetchall()
"""


@pytest.mark.parametrize(
    "statements",
    [
        ("SELECT count(*) FROM entries",),
        ("VACUUM",),
        ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"),
        ("PRAGMA wal_checkpoint(RESTART)", "CREATE TABLE IF NOT EXISTS other (x)", "PRAGMA wal_checkpoint"),
    ],
)
def test_another_process_that_reads_vacuums_or_merges_is_no_alarm(stage: Stage, statements):
    head = stage.now
    for _ in range(3):
        subprocess.run([sys.executable, "-I", "-S", "-c", _FOREIGN, str(stage.path), *statements], check=True)
        for _ in range(5):
            head = add(stage.store, "s", head, WORDS)
    assert len(verified("s", stage.store.read("s"))) == head.seq


def test_logs_that_are_merged_all_the_time_are_no_alarm(stage: Stage, monkeypatch):
    monkeypatch.setattr(Checkpointer, "START", 20_000)
    other = SQLiteStore(stage.path)
    ours, theirs = stage.now, head_of(make(other, "t", "theirs"))
    for _ in range(100):
        ours, theirs = add(stage.store, "s", ours, WORDS), add(other, "t", theirs, WORDS)
    other.close()
    assert len(verified("s", stage.store.read("s"))) == ours.seq


def test_a_file_that_was_only_touched_is_no_alarm(stage: Stage):
    os.utime(stage.path)
    add(stage.store, "s", stage.now, "after")


def test_a_session_is_held_by_whatever_name_its_file_is_reached(stage: Stage):
    link, folder = stage.path.parent / "link.db", stage.path.parent.with_name("folder")
    link.symlink_to(stage.path)
    folder.symlink_to(stage.path.parent)
    for name in (link, folder / stage.path.name, folder / "link.db"):
        other = SQLiteStore(name)
        with pytest.raises(SessionInUse):
            other.claim("s", "other")
        other.close()


def test_a_file_with_two_names_is_refused(stage: Stage):
    (stage.path.parent / "hard.db").hardlink_to(stage.path)
    with pytest.raises(StoreError, match="2 names"):
        SQLiteStore(stage.path.parent / "hard.db")
    add(stage.store, "s", stage.now, "after")


def test_a_link_that_leads_to_another_file_now_is_refused_until_a_restart(tmp_path):
    for name in ("a", "b"):
        store = SQLiteStore(tmp_path / name)
        make(store, "s", name)
        store.close()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "a")
    store = SQLiteStore(link)
    head = head_of(make(store, "t", "x"))
    (tmp_path / "new").symlink_to(tmp_path / "b")
    (tmp_path / "new").replace(link)
    for _ in range(3):
        with pytest.raises(StoreError, match="leads to another file"):
            add(store, "t", head, "y")
    store.close()
    assert [integrity(tmp_path / name) for name in "ab"] == ["ok", "ok"]
    again = SQLiteStore(tmp_path / "b")
    assert [info.session_id for info in again.sessions()] == ["s"]
    again.close()


def test_a_backup_put_in_place_after_a_kill_is_not_overwritten_by_the_log_that_was_left(tmp_path):
    other = SQLiteStore(tmp_path / "backup")
    make(other, "b", "backup")
    other.close()

    def write_and_die() -> None:
        store = SQLiteStore(tmp_path / "pods.db")
        head = head_of(make(store, "s", "first"))
        for _ in range(30):
            head = add(store, "s", head, WORDS)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(write_and_die) == -signal.SIGKILL
    assert log_of(tmp_path / "pods.db").stat().st_size > 60_000
    (tmp_path / "backup").replace(tmp_path / "pods.db")
    store = SQLiteStore(tmp_path / "pods.db")
    assert [info.session_id for info in store.sessions()] == ["b"]
    assert store.problems() == []
    store.close()
    assert integrity(tmp_path / "pods.db") == "ok"


def test_a_folder_that_was_copied_after_a_kill_is_restored_with_its_log(tmp_path):
    def write_and_die() -> None:
        store = SQLiteStore(tmp_path / "a" / "pods.db")
        make(store, "s", "first", "second")
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(write_and_die) == -signal.SIGKILL
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    store = SQLiteStore(tmp_path / "b" / "pods.db")
    assert store.info("s").head.seq == 2
    store.close()


@pytest.mark.parametrize("end", ["exit", "os._exit"])
def test_a_forked_child_that_ends_after_its_parent_was_killed_writes_nothing(tmp_path, end):
    """The child has copies of the parent's connections, which would merge an old log over a newer file."""
    path = tmp_path / "pods.db"
    command = [sys.executable, "-c", _PARENT, str(path), end]
    with Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        assert int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        store = SQLiteStore(path)
        head = store.info("s").head
        for _ in range(30):
            head = add(store, "s", head, WORDS)
        store.close()
        parent.stdin.close()  # the child ends
        assert parent.stdout.read() == b"", "it has ended"
    again = SQLiteStore(path)
    assert integrity(path) == "ok"
    assert again.info("s").head == head
    assert len(verified("s", again.read("s"))) == head.seq
    again.close()


_PARENT = """
import os, sys
sys.path[:0] = ["tests"]
from actors.sessions.chain import chained, head_of
from actors.sessions.sqlite.store import SQLiteStore
store = SQLiteStore(sys.argv[1])
body = b'{"text":"' + b"x" * 3000 + b'"}'
entries = chained([body] * 30)
store.create("s", "p", None, entries)
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.write(writing, b"x")  # what it has of its parent's lock is closed
    sys.stdin.read()
    if sys.argv[2] == "exit":
        sys.exit()
    os._exit(0)
os.read(reading, 1)
print(child, flush=True)
os.close(0)
import signal
signal.pause()
"""


class Elsewhere:
    """A store in another process, which gets what to do: ``add WORD``, ``write WORD`` (past all checks),
    ``stop`` (before the next statement that writes, until there is another line) or ``close``; ``answer`` is
    what comes of it.
    """

    def __init__(self, path: Path, durability: str = "process") -> None:
        command = [sys.executable, "-c", _ELSEWHERE, str(path), durability]
        self._process = Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answer = self._process.stdout.readline().strip()

    def does(self, *words: str) -> str:
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        self.answer = self._process.stdout.readline().strip()
        return self.answer

    def close(self) -> None:
        assert self.does("close") == "closed"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.stdin.close()  # it ends
        self._process.stdout.close()
        self._process.wait()


_ELSEWHERE = """
import sys
sys.path[:0] = ["tests"]
from store_kit import add, make
from actors.sessions.chain import head_of
from actors.sessions.sqlite.store import SQLiteStore
from protocol.errors import StoreError
store = SQLiteStore(sys.argv[1], sys.argv[2])
head = head_of(make(store, "theirs", "first"))
print("open", flush=True)
for line in sys.stdin:
    command, *words = line.split()
    try:
        if command == "add":
            head = add(store, "theirs", head, *words)
        elif command == "stop":
            def stop(statement):
                if statement.startswith(("BEGIN", "INSERT", "UPDATE")):
                    db.set_trace_callback(None)
                    print("stopped", flush=True)
                    sys.stdin.readline()
            db = store._commits._connection.get()
            db.set_trace_callback(stop)
        elif command == "write":
            store._connection.execute("UPDATE entries SET body = ? WHERE n = 1", words)
        else:
            store.close()
            print("closed", flush=True)
            break
        print(head.seq, flush=True)
    except StoreError as error:
        print(str(error), flush=True)
"""


@pytest.mark.parametrize("damage", [log_deleted, both_deleted, index_deleted])
def test_two_processes_that_lose_the_log_together_are_refused_once_each_and_lose_nothing(
    stage: Stage, damage
):
    """The second to notice must not take the new log of the first for one that knows nothing of the old."""
    with Elsewhere(stage.path, "power") as theirs:
        head = stage.now
        for count in range(2, 6):
            damage(stage)
            with pytest.raises(StoreError, match="write-ahead log"):
                add(stage.store, "s", head, "refused")
            head = add(stage.store, "s", head, "ours")
            assert "write-ahead log" in theirs.does("add", "refused")
            assert theirs.does("add", "theirs") == str(count)
            head = add(stage.store, "s", head, "ours")
        theirs.close()
        assert (stage.store.info("s").head, stage.store.info("theirs").head.seq) == (head, 5)
        assert len(verified("theirs", stage.store.read("theirs"))) == 5
        assert stage.store.problems() == []
        stage.store.close()
        assert integrity(stage.path) == "ok"


def test_what_comes_into_a_log_after_another_process_has_merged_it_stays_out_of_the_database(stage: Stage):
    with Elsewhere(stage.path) as theirs:
        log_deleted(stage)
        with pytest.raises(StoreError, match="write-ahead log"):
            add(stage.store, "s", stage.now, "refused")
        head = add(stage.store, "s", stage.now, "after")
        assert theirs.does("write", "late") == "1"
        theirs.close()
        head = add(stage.store, "s", head, "after")
        assert len(verified("s", stage.store.read("s"))) == head.seq
        assert len(verified("theirs", stage.store.read("theirs"))) == 1
        stage.store.close()
        assert integrity(stage.path) == "ok"


@pytest.mark.parametrize("damage", [log_deleted, both_deleted, index_deleted])
def test_a_process_that_looked_before_the_loss_and_writes_after_the_log_was_given_up_is_refused(
    stage: Stage, damage
):
    with Elsewhere(stage.path) as theirs:
        assert theirs.does("add", "before") == "2"
        theirs.does("stop")
        assert theirs.does("add", "late") == "stopped"
        damage(stage)
        with pytest.raises(StoreError, match="write-ahead log"):
            add(stage.store, "s", stage.now, "refused")
        head = add(stage.store, "s", stage.now, "after")
        assert "write-ahead log" in theirs.does("go on")
        assert theirs.does("add", "after") == "3"
        theirs.close()
        assert (stage.store.info("s").head, stage.store.info("theirs").head.seq) == (head, 3)
        assert stage.store.problems() == []


@pytest.mark.parametrize("damage", [log_deleted, both_deleted, index_deleted])
def test_a_file_that_another_process_has_open_with_a_deleted_log_is_not_opened_without_it(
    tmp_path: Path, damage
):
    path = tmp_path / "pods.db"
    with Elsewhere(path) as theirs:
        damage(Stage(None, path, None, None, None))
        with pytest.raises(StoreError, match="another process has it open with a log that was deleted"):
            SQLiteStore(path)
        assert "write-ahead log" in theirs.does("add", "refused")
        assert theirs.does("add", "second") == "2"
        store = SQLiteStore(path)
        assert store.info("theirs").head.seq == 2
        theirs.close()
        store.close()


class Opened:
    """A database with a write-ahead log, and two connections of one process to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = SQLiteFile(path)
        self.one, self.other = (self.file.connect(synchronous="FULL", patience=1.0) for _ in range(2))
        self.one.execute("CREATE TABLE kept (word)")

    def write(self, word: str) -> bool:
        if not self.file.begin(self.one):
            return False
        self.one.execute("INSERT INTO kept VALUES (?)", (word,))
        self.one.execute("COMMIT")
        return True

    def close(self) -> None:
        for connection in (self.one, self.other):
            self.file.disconnect(connection)

    def kept(self) -> list[str]:
        """What another process would find."""
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            return [word for (word,) in db.execute("SELECT word FROM kept ORDER BY rowid")]


@pytest.mark.parametrize("lost", [log_of, index_of])
def test_what_would_come_into_a_lost_log_after_it_was_merged_is_refused(tmp_path: Path, lost) -> None:
    opened = Opened(tmp_path / "pods.db")
    opened.write("before")
    lost(opened.path).unlink()
    with pytest.raises(StoreError, match="write-ahead log"):
        opened.file.check()
    assert not opened.write("under way, on another thread")
    opened.close()
    log_of(opened.path).unlink(missing_ok=True)  # by the same hand, a moment later
    assert opened.kept() == ["before"]


@pytest.mark.parametrize("lost", [log_of, index_of])
def test_what_is_just_being_written_into_a_log_that_was_lost_is_merged_with_it(tmp_path: Path, lost) -> None:
    opened = Opened(tmp_path / "pods.db")
    assert opened.file.begin(opened.one)
    lost(opened.path).unlink()
    with ThreadPoolExecutor(1) as pool:
        noticed = pool.submit(opened.file.check)
        assert not wait([noticed], timeout=0.05).done, "it waits for what is being written"
        opened.one.execute("INSERT INTO kept VALUES ('under way')")
        opened.one.execute("COMMIT")
        with pytest.raises(StoreError, match="write-ahead log"):
            noticed.result()
    opened.close()
    assert opened.kept() == ["under way"]


@pytest.mark.parametrize("lost", [log_of, index_of])
def test_a_loss_that_is_noticed_as_a_connection_is_opened_is_known_to_all(tmp_path: Path, lost) -> None:
    opened = Opened(tmp_path / "pods.db")
    opened.write("before")
    lost(opened.path).unlink()
    with pytest.raises(StoreError, match="write-ahead log"):
        opened.file.connect(synchronous="FULL", patience=1.0)
    assert opened.file.change is not None
    assert not opened.write("under way, on another thread")
    opened.close()
    assert opened.kept() == ["before"]
    opened.file.disconnect(opened.file.connect(synchronous="FULL", patience=1.0))


@pytest.mark.parametrize("note", [note_log, lambda *of: note_retired(*of, None)])
def test_a_log_is_not_used_where_its_note_cannot_be_written_since_the_folder_is_away(tmp_path: Path, note):
    """A new log may have the number of a retired one: by the old note it would be thrown away unmerged."""
    path = tmp_path / "store" / "pods.db"
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE kept (word)")
        watch = FileWatch(path)
        watch.remember(identity_of(path))
        path.parent.rename(tmp_path / "away")
        with pytest.raises(FileNotFoundError):
            note(watch, path)
        watch.forget()


class MovedAwayMeanwhile(FileWatch):
    """Looks at a database that is moved away between two looks."""

    def _overwritten(self) -> bool:
        Path(self._path).rename(f"{self._path}-away")
        return super()._overwritten()


def test_a_file_that_is_moved_away_while_it_is_looked_at_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "pods.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE kept (word)")
        watch = MovedAwayMeanwhile(path)
        watch.remember(identity_of(path))
        os.utime(path)
        assert watch.changed() == "gone"
        watch.forget()


@pytest.mark.parametrize("lost", [(log_of,), (index_of,), (log_of, index_of)])
def test_a_log_that_is_lost_while_it_is_opened_first_is_never_taken_for_none(tmp_path: Path, lost) -> None:
    """What has no name any more is not a log that is still to be made: commits would go into it unseen."""
    path = tmp_path / "pods.db"
    watch = FileWatch(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE kept (word)")
        watch.remember(identity_of(path))
        assert watch.unopened(1) is None
        watch.forget()
        for name in lost:
            name(path).unlink()
        watch.remember(identity_of(path))
        assert watch.unopened(1) == ("log" if log_of in lost else "index")
        watch.forget()


def test_a_log_that_is_lost_as_the_store_is_closed_is_merged_though_another_process_has_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "pods.db"
    store = SQLiteStore(path)
    head = head_of(make(store, "s", "first", "second"))
    log_of(path).unlink()
    index_of(path).unlink()
    with subprocess.Popen(
        [sys.executable, "-c", _READING, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as reading:
        assert reading.stdout.readline() == b"open\n"
        store.close()
        reading.stdin.close()
    again = SQLiteStore(path)
    assert again.info("s").head == head
    again.close()


_READING = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("SELECT * FROM sqlite_master").fetchall()
print("open", flush=True)
sys.stdin.read()
"""


def test_stores_of_one_file_that_open_and_close_at_once_lose_no_log(tmp_path):
    file = tmp_path / "pods.db"
    with contextlib.closing(SQLiteStore(file)) as lasting:
        make(lasting, "s", "first")
        failed: list[Exception] = []

        def open_and_close() -> None:
            try:
                for _ in range(20):
                    with contextlib.closing(SQLiteStore(file)) as store:
                        assert len(store.sessions()) == 1
            except Exception as error:  # noqa: BLE001 - of another thread
                failed.append(error)

        threads = [threading.Thread(target=open_and_close) for _ in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert failed == []
        assert len(lasting.sessions()) == 1


def test_who_finds_the_log_lost_as_a_session_was_deleted_waits_for_no_gate(stage: Stage, monkeypatch):
    """A reader, with the lock of the file, waited for the gate, and the deletion, at the gate, for that lock."""
    found: list[StoreError] = []
    note_merge = SQLiteFile.note_merge

    def read() -> None:
        try:
            stage.store.info("s")
        except StoreError as error:
            found.append(error)

    def lose_log(file: SQLiteFile) -> None:
        log_of(stage.path).unlink()
        reader = threading.Thread(target=read)
        reader.start()
        while reader.is_alive() and not file._mutex.locked():
            pass
        note_merge(file)
        reader.join()

    make(stage.store, "t", "x", claim=False)
    monkeypatch.setattr(SQLiteFile, "note_merge", lose_log)
    stage.store.delete("t")
    assert ["its write-ahead log" in str(error) for error in found] == [True]
    assert [info.session_id for info in stage.store.sessions()] == ["s"]
    assert stage.store.info("s").head == stage.now
