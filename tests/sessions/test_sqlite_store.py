"""What is particular to the SQLite store: its file, other people's locks, its write-ahead log."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sqlite3
import threading
import weakref

import pykka
import pytest
from store_kit import add, bodies, change_entry, first_format, make, second_format, wait_until_done

from actors.runtime.future import AsyncFuture
from actors.sessions.chain import chained, head_of, verified
from actors.sessions.repair import check, mend
from actors.sessions.sqlite.checkpoint import Checkpointer
from actors.sessions.sqlite.jobs import Create, Held
from actors.sessions.sqlite.store import SQLiteStore
from protocol.entries import Head
from protocol.errors import (
    HeadConflict,
    NewerVersion,
    SessionCorrupt,
    SessionError,
    SessionNotFound,
    StoreError,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pods.db"


@pytest.fixture
def store(path):
    store = SQLiteStore(path)
    yield store
    store.close()


@pytest.fixture
def foreign(path, store):
    """Another program's connection to the same file."""
    connection = sqlite3.connect(path, isolation_level=None)
    yield connection
    connection.close()


def test_a_file_that_is_no_database_is_refused_and_left_alone(path):
    path.write_bytes(b"this is not a database, it is a love letter" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a SQLite database") as caught:
        SQLiteStore(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


def test_the_database_of_another_program_is_refused_and_left_alone(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        SQLiteStore(path)
    assert path.read_bytes() == before


def test_a_file_of_a_later_version_is_refused_by_name(path):
    SQLiteStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(NewerVersion, match="newer polypod: format 99") as caught:
        SQLiteStore(path)
    assert "update polypod" in str(caught.value)


def test_a_folder_in_the_place_of_the_file_is_reported(path):
    path.mkdir()
    with pytest.raises(StoreError, match="it is not a regular file"):
        SQLiteStore(path)


def test_a_store_goes_on_after_its_file_was_found_to_be_garbage(path, store):
    make(store, "s", "a")
    store.close()
    good = path.read_bytes()
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreError):
        SQLiteStore(path)
    path.write_bytes(good)
    again = SQLiteStore(path)
    assert len(again.read("s")) == 1
    again.close()


def test_a_commit_while_another_process_writes_waits_off_the_loop(store, foreign):
    head = head_of(make(store, "s", "a"))
    foreign.execute("BEGIN IMMEDIATE")
    future = store.append("s", head, chained(bodies("b"), after=head))
    assert isinstance(future, AsyncFuture)
    assert not future.done()
    behind = head_of(chained(bodies("b"), after=head))
    last = store.append("s", behind, chained(bodies("c"), after=behind))
    assert isinstance(last, AsyncFuture), "what comes behind keeps its place"
    foreign.execute("ROLLBACK")
    wait_until_done(future)
    wait_until_done(last)
    assert [entry.body for entry in store.read("s")] == bodies("a", "b", "c")
    store.flush()
    end = store.info("s").head
    assert store.append("s", end, chained(bodies("d"), after=end)) is None, "on the loop again"


def test_a_file_that_stays_locked_is_reported_and_used_again_when_it_is_free(store, foreign):
    store._commits.patience = 0.01
    head = head_of(make(store, "s", "a"))
    foreign.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="another process has locked it"):
        add(store, "s", head, "b")
    store.release("s")
    with pytest.raises(StoreError, match="another process has locked it"):
        store.claim("s", "pod")
    foreign.execute("ROLLBACK")
    add(store, "s", head, "b")


def test_jobs_that_gathered_are_one_commit_in_which_a_conflict_fails_alone(path, foreign):
    store = SQLiteStore(path, "power")
    heads = {name: head_of(make(store, name, "a")) for name in "stu"}
    foreign.execute("BEGIN IMMEDIATE")
    futures = {}
    for name, head in heads.items():
        after = Head(1, bytes(32)) if name == "t" else head
        futures[name] = store.append(name, after, chained(bodies("b"), after=after))
    futures["v"] = store.create("v", "pod", None, chained(bodies("a")))
    futures["s again"] = store.create("w", "pod", None, chained(bodies("a")))
    foreign.execute("ROLLBACK")
    with pytest.raises(HeadConflict):
        wait_until_done(futures.pop("t"))
    for future in futures.values():
        wait_until_done(future)
    assert {info.session_id: info.head.seq for info in store.sessions()} == {
        "s": 2,
        "t": 1,
        "u": 2,
        "v": 1,
        "w": 1,
    }
    store.close()


def test_what_waits_behind_a_failed_append_fails_too(path, foreign):
    store = SQLiteStore(path, "power")
    head = head_of(make(store, "s", "a"))
    wrong = Head(1, bytes(32))
    foreign.execute("BEGIN IMMEDIATE")
    first = store.append("s", wrong, chained(bodies("b"), after=wrong))
    behind = head_of(chained(bodies("b"), after=wrong))
    second = store.append("s", behind, chained(bodies("c"), after=behind))
    foreign.execute("ROLLBACK")
    for future in (first, second):
        with pytest.raises(HeadConflict):
            wait_until_done(future)
    add(store, "s", head, "b")
    store.close()


def test_a_session_that_was_refused_is_forgotten_before_anyone_learns_of_it():
    reported = []
    job = Create(Held("s", "pod", None, 0.0), "pod", None, chained([b"{}"]), lambda: reported.append(waits()))
    job.future = AsyncFuture()

    def waits() -> bool:
        return not job.future.done()

    job.resolve(StoreError("the disk is full"))
    assert reported == [True]
    assert isinstance(job.future.exception(), StoreError)


def test_who_waits_no_longer_does_not_stop_the_others(path, foreign):
    store = SQLiteStore(path, "power")
    head = head_of(make(store, "s", "a"))
    other = head_of(make(store, "t", "a"))
    foreign.execute("BEGIN IMMEDIATE")
    first = store.append("s", head, chained(bodies("b"), after=head))
    second = store.append("t", other, chained(bodies("b"), after=other))
    assert first is not None
    with pytest.raises(pykka.Timeout):
        first.get(timeout=0)
    foreign.execute("ROLLBACK")
    wait_until_done(second)
    wait_until_done(first)
    store.close()


def test_the_write_ahead_log_stays_short_under_a_steady_load(path, store, monkeypatch):
    monkeypatch.setattr(Checkpointer, "START", 100_000)
    monkeypatch.setattr(Checkpointer, "HARD", 400_000)
    head = head_of(make(store, "s", "a"))
    log = path.with_name("pods.db-wal")
    largest = same = 0
    while same < 200:  # commits in a row for which there was room in what is merged
        head = add(store, "s", head, "x" * 1000)
        same = same + 1 if log.stat().st_size <= largest else 0
        largest = max(largest, log.stat().st_size)
        assert head.seq < 20_000
    assert head_of(verified("s", store.read("s"))) == head


def test_a_store_may_be_used_on_another_thread_than_it_was_opened_on(store):
    found = []

    def use():
        head = head_of(make(store, "s", "a"))
        add(store, "s", head, "b")
        found.extend(store.read("s"))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(found) == 2


def test_a_changed_byte_is_found_by_session_and_entry(path, store):
    make(store, "s", "a", "b", "c")
    change_entry(path, 2, b"b", b"B")
    with pytest.raises(SessionCorrupt, match="session s is damaged at entry 2"):
        verified("s", store.read("s"))


def test_damage_of_the_file_itself_is_reported_as_a_problem(path, store):
    make(store, "s", *["x" * 500] * 200)
    store.close()
    data = bytearray(path.read_bytes())
    data[2048 * 20 : 2048 * 21] = bytes(2048)
    path.write_bytes(data)
    again = SQLiteStore(path)
    assert again.problems()
    again.close()


def test_a_closed_store_leaves_one_file(path, store):
    make(store, "s", "a")
    store.close()
    assert [each.name for each in path.parent.iterdir() if each.is_file()] == ["pods.db"]


def test_deleted_sessions_give_their_space_back(path, store):
    for name in "stuvw":
        make(store, name, *["x" * 1000] * 100)
        store.release(name)
    store.flush()
    with contextlib.closing(sqlite3.connect(path)) as other:  # else it all stands in the log
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    before = path.stat().st_size
    for name in "tuvw":
        store.delete(name)
    store.reclaim()
    assert path.stat().st_size < before / 3
    assert len(verified("s", store.read("s"))) == 100


def test_a_large_store_gives_no_space_back_while_another_process_writes_to_it(path, store, monkeypatch):
    monkeypatch.setattr("actors.sessions.sqlite.store._SOON_COPIED", 90_000)
    make(store, "s", "x" * 100_000, claim=False)
    make(store, "t", "x" * 100_000, claim=False)
    store.delete("t")
    other = SQLiteStore(path)
    make(other, "u", "a")
    with pytest.raises(StoreError, match=f"process {os.getpid()} has .* open"):
        store.reclaim()
    other.close()
    store.reclaim()
    assert path.stat().st_size < 150_000


def test_a_foreign_row_in_the_way_is_a_conflict_and_not_a_gap(store, foreign):
    head = head_of(make(store, "s", "a"))
    foreign.execute("INSERT INTO entries (session, n, hash, body, at) VALUES (1, 2, x'00', x'00', 0)")
    with pytest.raises(HeadConflict, match="now at entry 2"):
        add(store, "s", head, "b")


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_claim_gets_through_while_another_writes_without_a_pause(path, durability):
    busy, store = SQLiteStore(path, durability), SQLiteStore(path, durability)
    for name in "stuv":
        make(store, name, "a", claim=False)
    over = threading.Event()

    def write():
        head = head_of(make(busy, "busy", "a"))
        while not over.is_set():
            head = add(busy, "busy", head, "x")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for name in "stuv":
            assert store.claim(name, "pod").pod == "pod"
    finally:
        over.set()
        thread.join()
    busy.close()
    store.close()


def on_a_loop(work):
    """What ``work`` gives, called in one turn of an event loop; the next turns commit what it gave."""

    async def called():
        given = work()
        waiting = [future for future in given.values() if future is not None]
        await asyncio.gather(*waiting, return_exceptions=True)
        return given

    return asyncio.run(called())


def appended(store, heads, *, after=None):
    """One entry more for each session; ``after`` has another head than the store's for some."""
    ends = {**heads, **(after or {})}
    return {name: store.append(name, end, chained(bodies("b"), after=end)) for name, end in ends.items()}


def test_what_many_sessions_write_in_one_turn_of_the_loop_is_one_commit_behind_the_first(store, foreign):
    heads = {name: head_of(make(store, name, "a")) for name in "stuv"}
    before = foreign.execute("PRAGMA data_version").fetchone()
    seen = []

    def work():
        given = appended(store, heads)
        seen.append(foreign.execute("SELECT count(*) FROM entries").fetchone())
        return given

    given = on_a_loop(work)
    assert given["s"] is None, "the first waits for nobody"
    assert seen == [(5,)], "the others wait for the end of the turn"
    assert all(given[name].get(timeout=0) is None for name in "tuv")
    assert [info.head.seq for info in store.sessions()] == [2, 2, 2, 2]
    assert foreign.execute("PRAGMA data_version").fetchone() != before


def test_a_conflict_among_what_one_turn_gathered_fails_alone(store):
    heads = {name: head_of(make(store, name, "a")) for name in "stuv"}
    given = on_a_loop(lambda: appended(store, heads, after={"u": Head(1, bytes(32))}))
    with pytest.raises(HeadConflict):
        given["u"].get(timeout=0)
    assert given["t"].get(timeout=0) is given["v"].get(timeout=0) is None
    assert {info.session_id: info.head.seq for info in store.sessions()} == {"s": 2, "t": 2, "u": 1, "v": 2}


def test_what_a_session_writes_twice_in_one_turn_keeps_its_order(store):
    first, second = (head_of(make(store, name, "a")) for name in "st")

    def work():
        given = appended(store, {"s": first, "t": second})
        for before, text in (("b", "c"), ("bc", "d")):
            after = head_of(chained(bodies(*before), after=second))
            given[text] = store.append("t", after, chained(bodies(text), after=after))
        return given

    on_a_loop(work)
    assert [entry.body for entry in store.read("t")] == bodies("a", "b", "c", "d")


def test_what_one_turn_gathered_waits_off_the_loop_while_another_process_writes(store, foreign):
    heads = {name: head_of(make(store, name, "a")) for name in "stu"}

    async def written():
        given = appended(store, heads)
        foreign.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            await asyncio.sleep(0)
        waiting = [future.done() for future in given.values() if future is not None]
        foreign.execute("ROLLBACK")
        for future in given.values():
            if future is not None:
                await future
        return waiting

    assert asyncio.run(written()) == [False, False]
    assert [info.head.seq for info in store.sessions()] == [2, 2, 2]


def test_closing_a_store_keeps_what_the_turn_has_gathered(path):
    store = SQLiteStore(path)
    heads = {name: head_of(make(store, name, "a")) for name in "stu"}

    async def written():
        given = appended(store, heads)
        store.close()
        return [future.get(timeout=0) for future in given.values() if future is not None]

    assert asyncio.run(written()) == [None, None]
    store = SQLiteStore(path)
    assert [info.head.seq for info in store.sessions()] == [2, 2, 2]
    store.close()


def test_a_large_batch_keeps_its_place_behind_what_its_session_wrote_in_the_same_turn(store):
    first, second = (head_of(make(store, name, "a")) for name in "st")

    def work():
        given = appended(store, {"s": first, "t": second})
        after = head_of(chained(bodies("b"), after=second))
        given["large"] = store.append("t", after, chained(bodies("x" * (1 << 20)), after=after))
        store._commits._committer.flush()
        return given

    given = on_a_loop(work)
    assert given["large"].get(timeout=60) is None
    assert [entry.seq for entry in store.read("t")] == [1, 2, 3]


def test_what_a_loop_had_gathered_when_it_ended_is_kept_before_what_its_session_writes_next(store):
    heads = {name: head_of(make(store, name, "a")) for name in "st"}
    given = {}
    loop = asyncio.new_event_loop()
    loop.call_soon(lambda: given.update(appended(store, heads)))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert not given["t"].done()
    after = head_of(chained(bodies("b"), after=heads["t"]))
    assert store.append("t", after, chained(bodies("c"), after=after)) is None
    assert given["t"].get(timeout=0) is None
    assert [entry.body for entry in store.read("t")] == bodies("a", "b", "c")


def test_no_more_than_a_large_batch_of_what_one_turn_gathered_is_committed_at_once(store):
    heads = {name: head_of(make(store, name, "a")) for name in "stuvw"}
    text = "x" * (600 << 10)

    async def written():
        given = {n: store.append(n, end, chained(bodies(text), after=end)) for n, end in heads.items()}
        await asyncio.sleep(0)
        wait_until_done = [future.done() for future in given.values() if future is not None]
        await asyncio.gather(*(future for future in given.values() if future is not None))
        return wait_until_done

    assert asyncio.run(written()) == [True, True, False, False]
    assert [info.head.seq for info in store.sessions()] == [2] * 5


@pytest.mark.parametrize("durability", ["process", "power"])
def test_what_waits_to_be_written_never_goes_into_a_copy_that_was_put_in_the_place_of_the_file(
    path, durability
):
    store = SQLiteStore(path, durability)
    heads = {name: head_of(make(store, name, "a")) for name in "stu"}
    copy = path.with_name("copy.db")
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("VACUUM INTO ?", [str(copy)])
    heads = {name: add(store, name, end, "b") for name, end in heads.items()}

    def work():
        given = appended(store, {"s": heads["s"]})
        with store._commits._lock:  # the writer thread comes when all is there
            given.update(appended(store, {name: heads[name] for name in "tu"}))
            copy.replace(path)
            for end in ("-wal", "-shm"):
                path.with_name(path.name + end).unlink()
        return given

    given = on_a_loop(work)
    for name in "tu":
        with pytest.raises(SessionError):
            given[name].get(timeout=60)
        assert verified(name, store.read(name))[-1].seq == 1
    store.close()


def test_a_disk_that_is_full_refuses_all_that_one_turn_gathered_and_takes_what_follows(store):
    heads = {name: head_of(make(store, name, "a")) for name in "stu"}
    db = store._commits._connection.get()
    (pages,) = db.execute("PRAGMA page_count").fetchone()

    def work():
        given = appended(store, {"s": heads["s"]})
        db.execute(f"PRAGMA max_page_count = {pages}")
        for name in "tu":
            given[name] = store.append(name, heads[name], chained(bodies("x" * 10_000), after=heads[name]))
        return given

    given = on_a_loop(work)
    for name in "tu":
        with pytest.raises(StoreError, match="the disk is full"):
            given[name].get(timeout=0)
    db.execute("PRAGMA max_page_count = 1000000")
    for name in "tu":
        add(store, name, heads[name], "b")
    assert [info.head.seq for info in store.sessions()] == [2, 2, 2]


def test_which_sessions_of_a_pod_changed_last_is_known_by_the_indexes_alone(store, foreign):
    """Each row that was read besides would be one for each of a pod's many old sessions."""
    asked: list[str] = []
    for number in range(5):
        make(store, f"s{number}", "x", pod="p")
    with store._reader() as db:
        db.set_trace_callback(asked.append)
        assert [info.session_id for info in store._queries.sessions(db, "p", None)] == [
            "s4",
            "s3",
            "s2",
            "s1",
            "s0",
        ]
        db.set_trace_callback(None)
    plan = [row[3] for row in foreign.execute(f"EXPLAIN QUERY PLAN {asked[-1]}")]
    [chosen] = [number for number, line in enumerate(plan) if "pod=?" in line]
    sorting = plan[chosen : plan.index("USE TEMP B-TREE FOR ORDER BY")]
    assert all("COVERING INDEX" in line for line in sorting if "SEARCH" in line), plan


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_store_that_is_dropped_unclosed_lets_go_of_its_file(tmp_path):
    store = SQLiteStore(tmp_path / "s.db")
    make(store, "s", "a")
    file = weakref.ref(store._file)
    del store
    gc.collect()
    assert file() is None


def test_descriptors_that_the_program_closed_fail_commits_and_leave_nobody_waiting(path):
    """As a program does that closes all descriptors it does not know."""
    store = SQLiteStore(path)
    heads = {name: head_of(make(store, name, "a")) for name in "stu"}

    def work():
        given = appended(store, heads)
        os.close(store._file._watch._folder)
        return given

    given = on_a_loop(work)
    assert given["s"] is None, "the first is durable at once"
    assert all(isinstance(given[name].exception(), StoreError) for name in "tu")
    with pytest.raises(StoreError):
        store.append("t", heads["t"], chained(bodies("b"), after=heads["t"]))
    store._file._watch._folder = os.open(path.parent, os.O_RDONLY)
    add(store, "t", heads["t"], "b")
    store.close()


def test_a_session_whose_entries_somebody_has_deleted_is_reported(path, store):
    make(store, "s", "one", claim=False)
    make(store, "t", "one", claim=False)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM entries WHERE session = 1")
    with pytest.raises(SessionNotFound, match="no session s"):
        store.info("s")
    with pytest.raises(SessionCorrupt, match="its entries were deleted"):
        store.claim("s", "pod")
    [finding] = check(store)
    assert (finding.kind, finding.session_id) == ("unreadable", "s")
    assert mend(store, finding, "new", path.parent) == (None, None)
    assert list(check(store)) == []
    make(store, "s", "anew")


@pytest.mark.parametrize(
    "kind", [first_format, second_format, lambda folder: SQLiteStore(folder / "pods.db")]
)
def test_sessions_are_made_though_somebody_has_deleted_the_row_of_the_last_one(tmp_path, kind):
    """The entries that are left stood where those of all new sessions were to stand."""
    store = kind(tmp_path)
    make(store, "s", "one", claim=False)
    make(store, "t", "two", claim=False)
    with contextlib.closing(sqlite3.connect(store.path)) as db, db:
        db.execute("DELETE FROM sessions WHERE uuid = 't'")
    make(store, "u", "three")
    assert [each.body for each in store.read("u")] == bodies("three")
    [finding] = check(store)
    assert (finding.kind, finding.session_id) == ("unreadable", "lost-2")
    assert "its row in the table sessions was deleted" in finding.text
    store.delete("lost-2")
    assert list(check(store)) == []
    assert len(store.sessions()) == 2
    store.close()


def test_a_file_whose_damage_sqlite_has_no_words_for_is_a_store_error(path, store):
    make(store, "s", "one")
    store.close()
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE entries", b"CREATE TABLE \xf1\xf1tries"))
    with pytest.raises(StoreError, match="it is damaged"):
        SQLiteStore(path)


def test_to_delete_a_damaged_session_takes_nothing_of_others(path, store):
    make(store, "damaged", "one", claim=False)
    make(store, "other", "two", claim=False)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE entries SET follows = 1 WHERE session = 2")
    store.delete("damaged")
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        assert db.execute("SELECT session FROM entries").fetchall() == [(2,)]
