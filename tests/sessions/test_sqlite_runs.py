"""Only the first row of a run is in the index: sessions are found all the same, and two writers kept apart."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_kit import add, bodies, make, second_format, wait_until_done

from actors.sessions.chain import chained, head_of, verified
from actors.sessions.sqlite.runs import LONGEST
from actors.sessions.sqlite.store import SQLiteStore
from protocol.entries import Head, StoredEntry
from protocol.errors import HeadConflict, SessionInUse


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "pods.db")
    yield store
    store.close()


def indexed(path: Path) -> list[int]:
    """The numbers of the rows that are in the index."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        return [n for (n,) in db.execute("SELECT n FROM entries WHERE follows = 0 ORDER BY id")]


def taken_twice(store: SQLiteStore, session_id: str) -> SQLiteStore:
    """Another store that takes the claim of the first for its own, as no two can but by a fault."""
    other = SQLiteStore(store.path)
    other._held[session_id] = held = copy.copy(store._held[session_id])
    held.seen = None
    return other


def test_a_session_alone_at_work_has_few_rows_in_the_index(store):
    head = head_of(make(store, "s", "a"))
    for _ in range(3 * LONGEST):
        head = add(store, "s", head, "b")
    numbers = indexed(store.path)
    assert numbers == [1, *range(LONGEST, head.seq + 1, LONGEST)]


def test_each_row_of_sessions_that_take_turns_is_in_the_index(store):
    heads = {name: head_of(make(store, name, "a")) for name in "st"}
    for _ in range(LONGEST):
        heads = {name: add(store, name, head, "b") for name, head in heads.items()}
    assert len(indexed(store.path)) == 2 + 2 * LONGEST


@pytest.mark.parametrize("between", [0, 1])
@pytest.mark.parametrize("commits", [1, LONGEST, 2 * LONGEST])
def test_of_two_writers_with_one_claim_the_database_refuses_the_second(store, commits, between):
    """Whether or not the row of the first is in the index, and whatever was added by others."""
    head = head_of(make(store, "s", "a"))
    make(store, "t", "x")
    head = add(store, "s", head, "b")
    other = taken_twice(store, "s")
    after = head
    for _ in range(commits):
        after = add(store, "s", after, "c")
    for number in range(between):
        make(store, f"u{number}", "x")
    with pytest.raises((HeadConflict, SessionInUse)):
        add(other, "s", head, "d")
    other.close()
    assert head_of(verified("s", store.read("s"))) == after


@pytest.mark.parametrize("long", ["", "x" * 9000])
def test_it_is_refused_as_well_among_what_one_turn_of_a_loop_gathers(store, long):
    heads = {name: head_of(make(store, name, "a")) for name in "sut"}
    other = taken_twice(store, "t")
    for name in "su":
        store.release(name)
        other.claim(name, "pod")
    taken = add(store, "t", heads["t"], "b")
    assert indexed(store.path) == [1, 1, 1]

    async def gathered():
        batches = {name: chained(bodies("c", long), after=head) for name, head in heads.items()}
        given = [other.append(name, heads[name], batch) for name, batch in batches.items()]
        return await asyncio.gather(*(each for each in given if each is not None), return_exceptions=True)

    refused = [each for each in asyncio.run(gathered()) if each is not None]
    assert len(refused) == 1
    assert isinstance(refused[0], (HeadConflict, SessionInUse))
    assert [store.info(name).head.seq for name in "sut"] == [3, 3, taken.seq]
    other.close()


def test_a_writer_whose_last_row_is_gone_is_refused_and_leaves_no_gap(store):
    head = head_of(make(store, "s", "a"))
    head = add(store, "s", head, "b")
    with contextlib.closing(sqlite3.connect(store.path)) as db, db:
        db.execute("DELETE FROM entries WHERE n = 2")
    with pytest.raises(HeadConflict):
        add(store, "s", head, "c")
    assert [entry.seq for entry in store.read("s")] == [1]


@given(st.lists(st.tuples(st.sampled_from("stu"), st.integers(1, 3)), max_size=40), st.sampled_from("-stu"))
def test_whoever_wrote_when_each_session_is_read_as_it_was_written(
    tmp_path_factory, commits: list[tuple[str, int]], deleted: str
):
    path = tmp_path_factory.mktemp("runs") / "pods.db"
    store = SQLiteStore(path)
    wanted: dict[str, list[StoredEntry]] = {name: make(store, name, "a", pod="p") for name in "stu"}
    for number, (name, count) in enumerate(commits):
        if number == len(commits) // 2 and deleted in wanted:
            store.release(deleted)
            store.delete(deleted)
            del wanted[deleted]
        if name in wanted:
            head = head_of(wanted[name])
            batch = chained(bodies(*"b" * count), after=head)
            wait_until_done(store.append(name, head, batch))
            wanted[name] += batch
    for name, entries in wanted.items():
        assert store.info(name).head == head_of(entries)
        for after in {0, 1, 2, len(entries) // 2, len(entries) - 1, len(entries)}:
            for limit in (None, 3):
                found = store.read(name, after=after, limit=limit)
                assert found == entries[after:][:limit]
                assert store.read_small(name, after=after, limit=limit, largest=100) == found
    recent = [info.session_id for info in store.sessions()]
    assert recent == [info.session_id for info in store.sessions(pod="p")]
    assert sorted(recent) == sorted(wanted)
    assert store.problems() == []
    store.close()
    again = SQLiteStore(path)
    for name, entries in wanted.items():
        again.claim(name, "p")
        add(again, name, head_of(entries), "z")
        assert len(verified(name, again.read(name))) == len(entries) + 1
    again.close()


def test_a_file_of_the_second_format_goes_on_in_it(tmp_path: Path):
    store = second_format(tmp_path)
    entries = make(store, "s", "a", "b")
    head: Head = head_of(entries)
    for _ in range(LONGEST):
        head = add(store, "s", head, "c", "d")
    assert len(verified("s", store.read("s"))) == head.seq == store.info("s").head.seq
    other = taken_twice(store, "s")
    after = add(store, "s", head, "e")
    with pytest.raises(HeadConflict, match=f"now at entry {after.seq}"):
        add(other, "s", head, "f")
    other.close()
    make(store, "t", "a")
    assert [info.session_id for info in store.sessions()] == ["t", "s"]
    store.release("s")
    store.delete("s")
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "pods.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
        assert db.execute("SELECT session, n, length(hash) FROM entries").fetchall() == [(2, 1, 32)]
