"""Writer locks: whoever lives is known to live, whoever is dead is known to be dead."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys

import pytest
from child_kit import in_child
from store_kit import KINDS, add, make, python

from actors.sessions.chain import head_of, verified
from actors.sessions.lock import WriterLock
from protocol.errors import HeadConflict, SessionInUse, StoreError

HOLDER = """
import os, sys
from pathlib import Path
from actors.sessions.lock import WriterLock
lock = WriterLock(Path(sys.argv[1]))
print(lock.id, flush=True)
if sys.argv[2] == "fork" and os.fork() == 0:
    print("forked", flush=True)
    os.read(int(sys.argv[3]), 1)
    os._exit(0)
sys.stdin.read()
"""

USER = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from store_kit import KINDS
store = KINDS[sys.argv[1]](Path(sys.argv[2]))
print(store.claim("s", "far").generation, flush=True)
sys.stdin.read()
"""


def end(process):
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_a_writer_is_alive_for_others_until_it_lets_go(tmp_path):
    mine, other = WriterLock(tmp_path), WriterLock(tmp_path)
    found = other.alive(mine.id)
    assert found is not None
    assert (found.pid, found.host) == (os.getpid(), socket.gethostname())
    assert mine.alive(mine.id) == found
    name = mine.id
    mine.release()
    mine.release()
    assert other.alive(name) is None


def test_a_killed_process_is_dead_at_once(tmp_path):
    process = python(HOLDER, tmp_path, "alone")
    name = process.stdout.readline().strip()
    lock = WriterLock(tmp_path)
    found = lock.alive(name)
    assert found is not None
    assert found.pid == process.pid
    end(process)
    assert lock.alive(name) is None
    assert (tmp_path / f"{name}.lock").exists()
    assert lock.id
    assert not (tmp_path / f"{name}.lock").exists(), "the next writer clears it away"


def test_a_forked_child_does_not_keep_its_dead_parent_alive(tmp_path):
    reading, writing = os.pipe()
    parent = python(HOLDER, tmp_path, "fork", reading, pass_fds=[reading])
    name = parent.stdout.readline().strip()
    assert parent.stdout.readline().strip() == "forked"
    lock = WriterLock(tmp_path)
    assert lock.alive(name) is not None
    end(parent)
    assert lock.alive(name) is None
    os.close(writing)
    os.close(reading)


def test_two_who_ask_at_once_do_not_take_each_other_for_the_holder(tmp_path):
    writer = WriterLock(tmp_path)
    name = writer.id
    writer.abandon()
    with (tmp_path / f"{name}.lock").open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert WriterLock(tmp_path).alive(name) is None


def test_a_file_is_cleared_away_only_while_nobody_can_come_to_hold_it(tmp_path):
    """Who has just made it would else live on without one, and be taken for dead."""
    path, seen = tmp_path / "dead.lock", []
    path.touch()

    def look(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.remove" and os.fspath(arguments[0]) == str(path):
            with path.open() as file, contextlib.suppress(BlockingIOError):
                seen.append(True)
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                seen.clear()

    def clear_away() -> bool:
        sys.addaudithook(look)  # there for good, so in a process of its own
        return bool(WriterLock(tmp_path).id) and seen == [True] and not path.exists()

    assert in_child(clear_away) == 0


def test_a_pipe_among_the_files_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.lock")
    lock = WriterLock(tmp_path)
    assert lock.alive("pipe") is None
    assert lock.id


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def test_a_session_that_another_process_holds_is_refused_by_name_until_that_dies(tmp_path, kind):
    store = KINDS[kind](tmp_path)
    head = head_of(make(store, "s", "a", claim=False))
    process = python(USER, kind, tmp_path)
    assert process.stdout.readline().strip().isdigit()
    for use in (
        lambda: store.claim("s", "near"),
        lambda: add(store, "s", head, "b"),
        lambda: store.delete("s"),
    ):
        with pytest.raises(SessionInUse, match="pod 'far'") as caught:
            use()
        assert (caught.value.pid, caught.value.host) == (process.pid, socket.gethostname())
        assert caught.value.since > 0
    holder = store.holder("s")
    assert holder is not None
    assert holder.pid == process.pid
    end(process)
    assert store.holder("s") is None
    before = store.claim("s", "near").generation
    assert before >= 2
    add(store, "s", head, "b")
    store.close()


def test_a_stalled_writer_whose_session_was_taken_can_write_no_more(tmp_path, kind):
    stalled, other = KINDS[kind](tmp_path), KINDS[kind](tmp_path)
    head = head_of(make(stalled, "s", "a"))
    stalled._lock.abandon()  # as if its lock were lost, on a disk of the network
    other.claim("s", "other")
    with pytest.raises(SessionInUse, match="pod 'other'"):
        add(stalled, "s", head, "late")
    head = add(other, "s", head, "b")
    other.release("s")
    other.flush()
    with pytest.raises(HeadConflict):
        add(stalled, "s", head_of(stalled.read("s", limit=1)), "late")
    assert [entry.seq for entry in verified("s", other.read("s"))] == [1, 2]
    stalled.close()
    other.close()


def test_a_forked_child_cannot_use_its_parents_store(tmp_path, kind):
    store = KINDS[kind](tmp_path)
    head = head_of(make(store, "s", "a"))

    uses = [
        lambda: store.read("s"),
        lambda: add(store, "s", head, "b"),
        lambda: store.claim("s", "x"),
        lambda: store.holder("s"),
        lambda: store.delete("s"),
        store.sessions,
    ]

    def refused() -> bool:
        for use in uses:
            with pytest.raises(StoreError, match="opened by the parent process"):
                use()
        store.release("s")
        store.close()
        return True

    assert in_child(refused) == 0
    add(store, "s", head, "b")
    other = KINDS[kind](tmp_path)
    with pytest.raises(SessionInUse):
        other.claim("s", "other")
    other.close()
    store.close()


def test_a_gate_that_another_process_keeps_locked_is_waited_for_no_longer_than_bounded(
    tmp_path, kind, monkeypatch
):
    """As one does that gives a large store's space back, or was stopped by Ctrl-Z."""
    store = KINDS[kind](tmp_path)
    make(store, "s", "a", claim=False)
    store.claim("s", "pod")
    store.release("s")
    store.flush()
    monkeypatch.setattr(WriterLock, "patience", 0.05)
    with next(tmp_path.rglob("gate")).open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="another process has held its lock") as refused:
            store.claim("s", "pod")
        assert "polypod gc" in str(refused.value.hint)
    assert store.claim("s", "pod")
    store.close()
