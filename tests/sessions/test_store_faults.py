"""Faults of the disk and of other people: a typed error, nothing half-written, and on it goes after."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path

import pytest
from store_kit import (
    KINDS,
    add,
    bodies,
    child_of,
    largest_file,
    make,
    small_disk,
    wait_until_done,
    without_privileges,
)

from actors.sessions.chain import chained, head_of, verified
from actors.sessions.jsonl.files import Files
from actors.sessions.jsonl.store import JsonLinesStore
from actors.sessions.sqlite.store import SQLiteStore
from protocol.errors import HeadConflict, SessionNotFound, StoreError

BIG = "x" * 20_000


@pytest.fixture(params=KINDS)
def open_in(request):
    return KINDS[request.param]


def fill(store, session_id, head):
    """Append until the disk refuses; the head up to where it did not."""
    count = 0
    with pytest.raises(StoreError) as caught:  # noqa: PT012 - which one fails is the question
        while True:
            head = add(store, session_id, head, BIG, BIG)
            count += 1
            assert count < 1000
    return head, caught.value


def give(folder, mode):
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def assert_sound(store, session_id, head):
    assert head_of(verified(session_id, store.read(session_id))) == head
    assert store.info(session_id).head == head
    assert store.torn(session_id) == 0


def test_a_full_disk_fails_what_does_not_fit_and_nothing_else(tmp_path, open_in):
    disk = tmp_path / "disk"
    with small_disk(disk, "2m"):
        (disk / "ballast").write_bytes(bytes(1_000_000))
        store = open_in(disk)
        head, error = fill(store, "s", head_of(make(store, "s", "a")))
        assert "full" in str(error) or "No space" in str(error)
        assert str(disk) in str(error)
        assert "free some space" in str(error)
        assert_sound(store, "s", head)
        (disk / "ballast").unlink()
        head = add(store, "s", head, BIG)
        assert_sound(store, "s", head)
        store.close()
        again = open_in(disk)
        assert_sound(again, "s", head)
        again.close()


@contextlib.contextmanager
def full(disk, free=0):
    """No more than so many bytes can be written."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", 0) as file:
        while file.write(bytes(1 << 16)):
            pass
    os.truncate(ballast, ballast.stat().st_size - free)
    yield
    ballast.unlink(missing_ok=True)


def test_a_store_that_cannot_be_made_since_its_disk_is_full_says_so(tmp_path):
    disk = tmp_path / "disk"
    with small_disk(disk, "200k"), full(disk):
        with pytest.raises(StoreError, match="the disk is full") as caught:
            SQLiteStore(disk / "pods.db")
        assert "free some space" in str(caught.value)


def left_without_index(disk):
    """As a process leaves it that is killed, where the index of its log is deleted since."""
    store = SQLiteStore(disk / "written.db")
    make(store, "s", "a", "b")
    for end in "", "-wal":
        shutil.copy(f"{store.path}{end}", f"{disk / 'pods.db'}{end}")
    store.close()
    for path in disk.glob("written.db*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def closed_before(disk):
    store = SQLiteStore(disk / "pods.db")
    make(store, "s", "a", "b")
    store.close()


@pytest.mark.parametrize("free", [0, 4 << 10, 32 << 10])  # for nothing, a note, an index without a note
@pytest.mark.parametrize("left", [closed_before, left_without_index])
def test_a_store_whose_disk_is_full_is_read_and_written_to_once_there_is_room(tmp_path, left, free):
    """It could not be opened at all, since SQLite makes an index beside it."""
    disk = tmp_path / "disk"
    with small_disk(disk, "1m"):
        left(disk)
        with full(disk, free):
            store, other = SQLiteStore(disk / "pods.db"), SQLiteStore(disk / "pods.db")
            for each in store, other:
                assert [entry.body for entry in verified("s", each.read("s"))] == bodies("a", "b")
                assert each.problems() == []
                assert each.holder("s") is None
                for write in (
                    lambda each=each: each.claim("s", "pod"),
                    lambda each=each: make(each, "t", BIG),
                    lambda each=each: each.delete("s"),
                ):
                    with pytest.raises(StoreError, match=r"the disk is full|No space") as caught:
                        write()
                    assert "free some space" in str(caught.value)
                assert len(each.read("s")) == 2
            assert not list(disk.glob("pods.db.writers/log.*"))
        head = add(store, "s", store.info("s").head, "c")
        store.release("s")
        assert other.info("s").head == head
        add(other, "s", head, "d")
        assert len(verified("s", store.read("s"))) == 4
        store.close()
        other.close()


def test_a_read_of_a_store_on_a_full_disk_is_no_answer_once_another_process_writes_to_it(tmp_path):
    disk = tmp_path / "disk"
    with small_disk(disk, "1m"):
        closed_before(disk)
        with full(disk):
            store = SQLiteStore(disk / "pods.db")
            with pytest.raises(StoreError, match="written since"), store._reader():  # noqa: PT012
                (disk / "ballast").unlink()
                other = SQLiteStore(disk / "pods.db")
                head = add(other, "s", other.info("s").head, "c")
        assert store.info("s").head == head
        other.close()
        store.close()


@contextlib.contextmanager
def no_more_files(disk):
    """No other file can be created."""
    made = []
    with contextlib.suppress(OSError):
        while True:
            made.append(disk / f"f{len(made)}")
            made[-1].touch()
    yield
    for each in made:
        each.unlink(missing_ok=True)


def test_a_store_is_read_on_a_disk_without_room_for_another_file_and_written_to_later(tmp_path, open_in):
    """SQLite says only that it cannot open the file, and the system that there is no space."""
    disk = tmp_path / "disk"
    with small_disk(disk, "2m", files=30):
        store = open_in(disk)
        make(store, "s", "a", "b")
        store.close()
        with no_more_files(disk):
            store = open_in(disk)
            assert [entry.body for entry in verified("s", store.read("s"))] == bodies("a", "b")
            assert store.problems() == []
            with pytest.raises(StoreError, match="no room for another file") as caught:
                make(store, "t", "c")
            assert "delete some files" in str(caught.value)
        make(store, "t", "c")
        assert len(store.sessions()) == 2
        store.close()


def test_a_reader_of_a_store_on_a_full_disk_survives_that_the_beginning_of_an_index_is_deleted(tmp_path):
    disk = tmp_path / "disk"
    with small_disk(disk, "1m"):
        closed_before(disk)
        (disk / "pods.db-wal").touch()
        (disk / "pods.db-shm").write_bytes(b"\0")  # as SQLite leaves it if there is no room
        with full(disk):
            reader = SQLiteStore(disk / "pods.db")
            assert len(reader.read("s")) == 2
            (disk / "pods.db-shm").unlink()
            with pytest.raises(StoreError, match="may have been written since"):
                reader.read("s")
            assert len(reader.read("s")) == 2
        reader.close()


@pytest.mark.parametrize("written", [32, 4000])
def test_a_reader_of_a_store_on_a_full_disk_leaves_the_log_to_who_writes_by_then(tmp_path, written):
    """SQLite deleted it with what was in it, if there was no room for its first transaction before."""
    disk = tmp_path / "disk"
    with small_disk(disk, "1m"):
        store, log = SQLiteStore(disk / "pods.db"), disk / "pods.db-wal"
        make(store, "s", "a", "b")
        begun = log.read_bytes()[:written]
        store.close()
        log.write_bytes(begun)
        with full(disk):
            reader = SQLiteStore(disk / "pods.db")
            assert len(reader.read("s")) == 2
        writer = SQLiteStore(disk / "pods.db")
        add(writer, "s", writer.info("s").head, "c")
        used = log.stat()
        reader.close()
        assert os.path.samestat(log.stat(), used)
        writer.close()


def test_a_session_that_does_not_fit_is_not_made(tmp_path, open_in):
    disk = tmp_path / "disk"
    with small_disk(disk, "2m"):
        store = open_in(disk)
        make(store, "s", "a")
        with pytest.raises(StoreError):
            make(store, "t", *[BIG] * 200)
        assert [info.session_id for info in store.sessions()] == ["s"]
        with pytest.raises(SessionNotFound):
            store.read("t")
        make(store, "t", "b")
        store.close()


def test_a_write_that_is_cut_short_leaves_nothing(tmp_path, open_in):
    store = open_in(tmp_path)
    head = head_of(make(store, "s", "a"))
    with largest_file(100_000):
        head, _ = fill(store, "s", head)
        assert_sound(store, "s", head)
    head = add(store, "s", head, BIG)
    assert_sound(store, "s", head)
    store.close()


def test_a_store_that_was_moved_away_is_reported_and_goes_on_when_it_is_back(tmp_path, open_in):
    store = open_in(tmp_path / "here")
    head = head_of(make(store, "s", "a"))
    (tmp_path / "here").rename(tmp_path / "there")
    with pytest.raises(StoreError, match="deleted") as caught:
        add(store, "s", head, "b")
    assert "put it back" in str(caught.value)
    with pytest.raises(StoreError):
        make(store, "t", "a")
    (tmp_path / "there").rename(tmp_path / "here")
    head = add(store, "s", head, "b")
    make(store, "t", "a")
    assert_sound(store, "s", head)
    store.close()


def test_a_store_in_whose_place_another_was_put_is_taken_as_that_one_has_it(tmp_path, open_in):
    here = tmp_path / "here"
    store = open_in(here)
    old = head_of(make(store, "s", "a"))
    store.close()
    shutil.copytree(here, tmp_path / "copy")
    store = open_in(here)
    new = add(store, "s", old, "b")
    here.rename(tmp_path / "there")
    shutil.copytree(tmp_path / "copy", here)
    for _ in range(2):
        with pytest.raises((StoreError, HeadConflict)):
            add(store, "s", new, "c")
    assert_sound(store, "s", old)
    assert_sound(store, "s", add(store, "s", old, "x"))
    store.close()


def test_a_store_that_may_not_be_written_is_reported_and_goes_on_when_it_may(tmp_path, open_in):
    with without_privileges(tmp_path):
        store = open_in(tmp_path)
        head = head_of(make(store, "s", "a"))
        store.close()
        give(tmp_path, 0o400)
        store = open_in(tmp_path)
        assert len(store.read("s")) == 1
        with pytest.raises(StoreError, match=r"permission|Permission") as caught:
            add(store, "s", head, "b")
        assert str(tmp_path) in str(caught.value)
        give(tmp_path, 0o600)
        assert_sound(store, "s", add(store, "s", head, "b"))
        store.close()


def test_a_folder_that_may_not_be_entered_is_reported(tmp_path, open_in):
    with without_privileges(tmp_path):
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        with pytest.raises(StoreError, match=r"permission|Permission"):
            open_in(locked)


def test_what_is_made_is_for_its_owner_alone(tmp_path, open_in):
    old = os.umask(0)
    try:
        store = open_in(tmp_path / "new" / "folder")
        make(store, "s", "a")
        for path in (tmp_path / "new" / "folder").rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
        assert stat.S_IMODE((tmp_path / "new" / "folder").stat().st_mode) == 0o700
        store.close()
    finally:
        os.umask(old)


def test_a_batch_that_was_refused_can_be_given_again(tmp_path, open_in):
    store = open_in(tmp_path)
    head = head_of(make(store, "s", "a"))
    batch = chained(bodies(BIG), after=head)
    with largest_file(10_000), pytest.raises(StoreError):
        wait_until_done(store.append("s", head, batch))
    wait_until_done(store.append("s", head, batch))
    assert_sound(store, "s", head_of(batch))
    store.close()


def test_a_store_that_was_deleted_is_reported_to_all_who_write(tmp_path, open_in):
    store = open_in(tmp_path / "here")
    head = head_of(make(store, "s", "a"))
    shutil.rmtree(tmp_path / "here")
    for _ in range(2):
        with pytest.raises(StoreError, match="deleted"):
            add(store, "s", head, "b")
        with pytest.raises(StoreError):
            make(store, "t", "a")
    store.close()


class BrokenFiles(Files):
    """Files of which some operations fail with EIO, writes after half of the bytes."""

    def __init__(self):
        self.broken = set()

    def check(self, operation):
        if operation in self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def open(self, path, flags, mode=0o600):
        self.check("open")
        return super().open(path, flags, mode)

    def write(self, descriptor, data):
        if "write" in self.broken and len(data) > 1:
            return super().write(descriptor, data[: len(data) // 2])
        self.check("write")
        return super().write(descriptor, data)

    def truncate(self, descriptor, size):
        self.check("truncate")
        super().truncate(descriptor, size)

    def sync(self, descriptor):
        self.check("sync")
        super().sync(descriptor)

    def sync_folder(self, descriptor):
        self.check("sync_folder")
        super().sync_folder(descriptor)

    def link(self, source, target):
        self.check("link")
        super().link(source, target)


@pytest.mark.parametrize(
    ("durability", "broken"),
    [("process", each) for each in ("open", "write", "write truncate")]
    + [("power", each) for each in ("open", "write", "write truncate", "sync", "sync truncate")],
)
def test_an_append_that_a_failing_disk_refused_is_gone_and_the_next_goes_on(tmp_path, durability, broken):
    files = BrokenFiles()
    store = JsonLinesStore(tmp_path, durability, files=files)
    head = head_of(make(store, "s", "a"))
    head = add(store, "s", head, BIG)
    files.broken = set(broken.split())
    for _ in range(2):
        with pytest.raises(StoreError, match="Input/output error"):
            add(store, "s", head, BIG, BIG)
    assert store.info("s").head == head or "truncate" in broken
    files.broken = set()
    head = add(store, "s", head, "b")
    assert_sound(store, "s", head)
    store.close()
    again = JsonLinesStore(tmp_path)
    assert_sound(again, "s", head)
    again.close()


def test_what_could_not_be_taken_back_is_cut_off_when_the_session_is_let_go(tmp_path):
    files = BrokenFiles()
    store = JsonLinesStore(tmp_path, files=files)
    head = head_of(make(store, "s", "a"))
    files.broken = {"write", "truncate"}
    with pytest.raises(StoreError):
        add(store, "s", head, BIG)
    assert store.torn("s") > 0
    files.broken = set()
    store.release("s")
    assert_sound(store, "s", head)
    assert store.holder("s") is None
    store.close()


@pytest.mark.parametrize("broken", ["open", "write", "sync", "link", "sync_folder"])
def test_a_session_that_a_failing_disk_refused_is_not_found_later(tmp_path, broken):
    files = BrokenFiles()
    store = JsonLinesStore(tmp_path, "power", files=files)
    parent = child_of("s", make(store, "s", "a"), "compacted_from")
    files.broken = {broken}
    with pytest.raises(StoreError):
        make(store, "t", "b", parent=parent)
    files.broken = set()
    assert store.successors("s") == []
    with pytest.raises(SessionNotFound):
        store.info("t")
    make(store, "t", "b", parent=parent)
    assert [info.session_id for info in store.successors("s")] == ["t"]
    store.close()


def test_a_claim_that_cannot_be_written_is_refused_and_taken_when_it_can(tmp_path):
    files = BrokenFiles()
    store = JsonLinesStore(tmp_path, files=files)
    head = head_of(make(store, "s", "a"))
    store.release("s")
    files.broken = {"open"}
    with pytest.raises(StoreError, match="Input/output error"):
        store.claim("s", "pod")
    files.broken = set()
    assert store.claim("s", "pod").generation == 2
    assert_sound(store, "s", add(store, "s", head, "b"))
    store.close()


class MovedAway(Files):
    """Files in a folder that is moved away at the moment a new session has its name."""

    def __init__(self, folder, away):
        self.folder, self.away = folder, away
        self.armed = False

    def link(self, source, target):
        super().link(source, target)
        if self.armed:
            self.folder.rename(self.away)


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_session_whose_folder_is_moved_away_as_it_is_made_is_there_afterwards_only_if_that_was_reported(
    tmp_path, durability
):
    """One that was refused and was there all the same took the place of the successor that was made after it."""
    files = MovedAway(tmp_path / "here", tmp_path / "away")
    store = JsonLinesStore(files.folder, durability, files=files)
    parent = child_of("s", make(store, "s", "a"), "compacted_from")
    files.armed, reported = True, []
    for name in ("first", "second"):
        try:
            make(store, name, "b", parent=parent)
        except StoreError:
            files.armed = False
        else:
            reported.append(name)
            files.armed = False
        if files.away.exists():
            files.away.rename(files.folder)
    assert [each.session_id for each in store.successors("s")] == reported
    assert "second" in reported
    store.close()


class WrittenOver(Files):
    """Copies an earlier content over the file between the look at it and the next write."""

    def __init__(self) -> None:
        self.path, self.earlier = Path(), b""

    def write(self, descriptor, data):
        if self.earlier:
            self.path.write_bytes(self.earlier)
            self.earlier = b""
        return super().write(descriptor, data)


@pytest.mark.parametrize("durability", ["process", "power"])
def test_what_is_written_while_a_backup_is_copied_over_its_file_is_refused_and_leaves_no_gap(
    tmp_path, durability
):
    files = WrittenOver()
    store = JsonLinesStore(tmp_path / "pods", durability, files=files)
    first = chained(bodies("a"), first_seq=1)
    wait_until_done(store.create("s", "pod", None, first))
    (files.path,) = (tmp_path / "pods").glob("*.jsonl")
    backup = files.path.read_bytes()
    head = add(store, "s", head_of(first), "b")
    files.earlier = backup
    with pytest.raises(HeadConflict):
        wait_until_done(store.append("s", head, chained(bodies("c"), after=head)))
    assert files.path.read_bytes() == backup
    assert [entry.body for entry in verified("s", store.read("s"))] == bodies("a")
    store.close()
