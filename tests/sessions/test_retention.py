"""Letting sessions go: by age or superseded, never one that is held or that another hangs on."""

from __future__ import annotations

import contextlib
import sqlite3
import sys

import pytest
from effort import times
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from store_kit import KINDS, add, child_of, make

from actors.sessions.chain import head_of
from actors.sessions.lock import WriterLock
from actors.sessions.memory.store import MemoryStore
from actors.sessions.retention import collect, doomed
from actors.sessions.store import SessionInfo
from protocol.entries import Head, Parent

FAR = 1e12


@pytest.fixture(params=["memory", *KINDS])
def store(request, tmp_path):
    store = MemoryStore() if request.param == "memory" else KINDS[request.param](tmp_path)
    yield store
    store.close()


def left(store):
    return sorted(info.session_id for info in store.sessions())


def test_what_is_old_goes_and_what_is_held_stays(store):
    for name in "stu":
        make(store, name, "a", claim=name == "t")
    assert collect(store, older_than=3600) == []
    gone = collect(store, older_than=3600, now=FAR)
    assert sorted(info.session_id for info in gone) == ["s", "u"]
    assert left(store) == ["t"]


def test_what_a_session_was_forked_from_stays_where_that_one_is_taken_up_just_then():
    class TakenUp(MemoryStore):
        def delete(self, session_id: str) -> None:
            if session_id == "fork":
                self.claim(session_id, "pod")
            super().delete(session_id)

    store = TakenUp()
    entries = make(store, "root", "a", claim=False)
    middle = make(store, "middle", "b", parent=child_of("root", entries), claim=False)
    make(store, "fork", "c", parent=child_of("middle", middle), claim=False)
    make(store, "other", "d", claim=False)
    assert [each.session_id for each in collect(store, older_than=3600, now=FAR)] == ["other"]
    assert left(store) == ["fork", "middle", "root"]


@pytest.mark.parametrize("kind", ["sqlite-process", "jsonl-process"])
def test_a_hundred_sessions_are_deleted_while_others_wait_once(tmp_path, kind):
    gate, entered = WriterLock.gate.__wrapped__.__code__, []

    def notice(frame, event, _):
        if event == "call" and frame.f_code is gate:
            entered.append(frame)

    with contextlib.closing(KINDS[kind](tmp_path)) as store:
        for number in range(100):
            make(store, f"s{number}", "a", claim=False)
        sys.setprofile(notice)
        try:
            assert len(collect(store, older_than=0, now=FAR)) == 100
        finally:
            sys.setprofile(None)
        assert left(store) == []
    assert len(entered) == 2  # it is a generator, which is left as well


def test_of_what_is_deleted_together_that_stays_which_is_held_or_has_changed_and_what_it_comes_from(store):
    parent = make(store, "s", "a", claim=False)
    for name in "tu":
        make(store, name, "b", parent=child_of("s", parent), claim=False)
    changed = make(store, "v", "a", claim=False)
    make(store, "w", "a", claim=False)
    infos = [store.info(name) for name in "tuvws"]
    store.claim("t", "pod")
    store.claim("v", "pod")
    add(store, "v", head_of(changed), "b")
    store.release("v")
    store.flush()
    assert [info.session_id for info in store.delete_all(infos)] == ["u", "w"]
    assert left(store) == ["s", "t", "v"]


def test_a_chain_of_compactions_of_which_the_last_is_damaged_goes_when_it_is_old(tmp_path):
    with contextlib.closing(KINDS["sqlite-process"](tmp_path)) as store:
        entries = make(store, "s", "a", claim=False)
        make(store, "t", "b", parent=child_of("s", entries, "compacted_from"), claim=False)
        with contextlib.closing(sqlite3.connect(tmp_path / "pods.db")) as db, db:
            db.execute("UPDATE entries SET hash = zeroblob(32) WHERE session = 2")
        assert [info.session_id for info in collect(store, older_than=0, now=FAR)] == ["t", "s"]


def test_what_was_compacted_into_a_sound_session_goes_when_asked(store):
    entries = make(store, "s", "a", claim=False)
    make(store, "t", "b", parent=child_of("s", entries, "compacted_from"))
    make(store, "other", "a", claim=False)
    assert collect(store) == []
    assert [info.session_id for info in collect(store, superseded=True)] == ["s"]
    assert left(store) == ["other", "t"]


def test_what_was_compacted_goes_though_what_goes_on_from_it_is_as_old_and_held(store):
    entries = make(store, "s", "a", claim=False)
    make(store, "t", "b", parent=child_of("s", entries, "compacted_from"))
    for dry_run in (True, False):
        gone = collect(store, superseded=True, older_than=1, now=FAR, dry_run=dry_run)
        assert [info.session_id for info in gone] == ["s"]
    assert left(store) == ["t"]


def test_what_a_session_was_forked_from_stays_with_it(store):
    entries = make(store, "s", "a", claim=False)
    make(store, "t", "b", parent=child_of("s", entries, "compacted_from"), claim=False)
    make(store, "u", "b", parent=child_of("s", entries), claim=True)
    assert collect(store, superseded=True) == []
    gone = collect(store, superseded=True, older_than=1, now=FAR)
    assert [info.session_id for info in gone] == ["t"], "the fork is held, and its parent stays with it"
    store.release("u")
    store.flush()
    collect(store, older_than=1, now=FAR)
    assert left(store) == []


def test_a_session_stays_whose_compacted_successor_is_broken(store):
    entries = make(store, "s", "a", claim=False)
    broken = [replace(entries[0], seq=2, hash=bytes(32))]
    store.create("t", "pod", child_of("s", entries, "compacted_from"), broken, claim=False)
    store.flush()
    assert collect(store, superseded=True) == []


SESSIONS = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from([None, "forked_from", "compacted_from"]), st.integers(0, 9)),
    max_size=10,
)


@settings(deadline=None, max_examples=times(25))
@given(SESSIONS, st.booleans(), st.one_of(st.none(), st.integers(0, 30)), st.sets(st.integers(0, 9)))
def test_nothing_goes_that_a_remaining_session_needs(drawn, superseded, before, kept):
    sessions = []
    for number, (parent, kind, age) in enumerate(drawn):
        origin = Parent(kind, str(parent), "", 1) if kind and parent < number else None
        sessions.append(SessionInfo(str(number), "pod", number, number + age, Head(1, b""), origin))
    keep = set(map(str, kept))
    gone = {info.session_id for info in doomed(sessions, before=before, superseded=superseded, keep=keep)}
    assert not gone & keep
    for info in sessions:
        if info.session_id not in gone and info.parent is not None and info.parent.session_id in gone:
            assert superseded
            assert info.parent.kind == "compacted_from"
    for info in sessions:
        if info.session_id in gone and not (before is not None and info.updated_at < before):
            assert any(
                child.parent is not None
                and child.parent.session_id == info.session_id
                and child.parent.kind == "compacted_from"
                for child in sessions
            )
