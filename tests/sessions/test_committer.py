"""The committing thread: jobs gather while it is busy, keep their order, and are never too many."""

from __future__ import annotations

import contextlib
import threading

import pytest

from actors.sessions.committer import Committer, Job
from actors.sessions.sqlite.checkpoint import Checkpointer
from actors.sessions.sqlite.file import SQLiteFile
from protocol.errors import StoreError


class Gate:
    """A commit that waits until it is let through, and remembers the groups."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.let = threading.Semaphore(0)
        self.groups: list[list[int]] = []

    def __call__(self, jobs: list[Job]) -> None:
        self.entered.release()
        self.let.acquire()
        self.groups.append([job.size for job in jobs])
        for job in jobs:
            job.finish()


@pytest.fixture
def gate():
    return Gate()


def test_what_gathers_during_a_commit_goes_together_and_in_order(gate):
    committer = Committer("x", gate)
    futures = [committer.put(Job(0))]
    gate.entered.acquire()
    futures += [committer.put(Job(size)) for size in (1, 2, 3)]
    gate.let.release(2)
    committer.flush()
    assert gate.groups == [[0], [1, 2, 3]]
    assert all(future.done() for future in futures)
    committer.close()


def test_a_disk_that_falls_behind_is_reported_and_taken_up_again(gate):
    committer = Committer("pods.db", gate, limit=10)
    first = committer.put(Job(11))
    with pytest.raises(StoreError, match=r"pods.db cannot keep up") as caught:
        committer.put(Job(1))
    assert "faster disk" in str(caught.value)
    gate.let.release(2)
    first.get(timeout=60)
    committer.flush()
    committer.put(Job(1)).get(timeout=60)
    committer.close()


@contextlib.contextmanager
def no_thread_to_be_had():
    """No thread of this process can start within: each would want more room than there are addresses."""
    before = threading.stack_size(1 << 62)
    try:
        yield
    finally:
        threading.stack_size(before)


def test_where_no_thread_can_start_nothing_is_taken_until_one_can(gate):
    committer = Committer("pods.db", gate)
    with no_thread_to_be_had(), pytest.raises(StoreError, match=r"pods.db.*thread"):
        committer.put(Job(1))
    committer.close()
    gate.let.release()
    assert committer.put(Job(1)).get(timeout=60) is None
    committer.close()


def test_a_log_that_no_thread_can_merge_grows_until_one_can(tmp_path):
    file = SQLiteFile(tmp_path / "pods.db")
    connection = file.connect(synchronous="OFF", patience=0)
    checkpointer = Checkpointer(file, threading.Lock())
    with no_thread_to_be_had():
        checkpointer.note_growth(Checkpointer.START)
    checkpointer.close()
    checkpointer.note_growth(1)
    assert checkpointer._thread is not None
    checkpointer.close()
    file.disconnect(connection)


def test_a_group_is_never_longer_than_its_bound(gate):
    committer = Committer("x", gate, group=3)
    committer.put(Job(0))
    gate.entered.acquire()
    for _ in range(4):
        committer.put(Job(1))
    gate.let.release(3)
    committer.flush()
    assert list(map(len, gate.groups)) == [1, 3, 1]
    committer.close()


def test_close_commits_what_waits_and_may_be_called_at_any_time(gate):
    committer = Committer("x", gate)
    committer.close()
    gate.let.release(2)
    future = committer.put(Job(0))
    committer.close()
    assert future.done()
    committer.close()
    assert committer.put(Job(0)).get(timeout=60) is None
    committer.close()


def test_a_commit_that_breaks_leaves_nobody_waiting():
    def broken(jobs):
        jobs[0].finish()
        raise ZeroDivisionError

    committer = Committer("x", broken)
    first = committer.put(Job(0))
    first.get(timeout=60)
    committer.flush()
    gate = threading.Event()

    def slow(jobs):
        gate.wait()
        broken(jobs)

    other = Committer("y", slow)
    futures = [other.put(Job(0)) for _ in range(3)]
    gate.set()
    other.flush()
    assert futures[0].done()
    assert futures[0].exception() is None
    outcomes = {type(future.exception()) for future in futures[1:]}
    assert outcomes <= {ZeroDivisionError, type(None)}
    committer.close()
    other.close()
