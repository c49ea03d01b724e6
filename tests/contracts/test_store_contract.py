"""What every session store owes: the same tests over each kind, with real files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from documented import DatabaseStore
from store_kit import (
    KINDS,
    AwaitedStore,
    Blocking,
    add,
    bodies,
    child_of,
    first_format,
    make,
    wait_until_done,
)

from actors.sessions.chain import chained, head_of, verified
from actors.sessions.memory.store import MemoryStore
from actors.sessions.store import SessionStore
from protocol.approval import ApprovalAnswer
from protocol.entries import Head, StoredEntry
from protocol.errors import HeadConflict, SessionInUse, SessionNotFound, StoreError

Open = Callable[[], SessionStore]


@pytest.fixture(params=["memory", "awaited", "example", *KINDS, "sqlite-first-format"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def opened(kind, tmp_path) -> Iterator[Open]:
    """Opens the same store again and again, as one process after the other would."""
    stores: list[SessionStore] = []
    lasting = {"memory": MemoryStore(), "awaited": Blocking(AwaitedStore())}

    def open_it() -> SessionStore:
        if kind == "example":
            stores.append(Blocking(DatabaseStore(str(tmp_path / "pods.db"))))
        elif kind == "sqlite-first-format":
            stores.append(first_format(tmp_path))
        else:
            stores.append(lasting[kind] if kind in lasting else KINDS[kind](tmp_path))
        return stores[-1]

    yield open_it
    for store in stores:
        store.close()


@pytest.fixture
def store(opened) -> SessionStore:
    return opened()


@pytest.fixture
def outlives(kind) -> None:
    if kind in {"memory", "awaited"}:
        pytest.skip("memory ends with its process")


def test_what_was_appended_is_read_back_byte_for_byte(store):
    entries = make(store, "s", "a", "b")
    more = chained(bodies("c", "ü\\n\\u2028"), after=head_of(entries))
    wait_until_done(store.append("s", head_of(entries), more))
    assert store.read("s") == entries + more
    assert type(store.read("s")[0]) is StoredEntry
    assert verified("s", store.read("s")) == entries + more


def test_reading_goes_in_pages(store):
    entries = make(store, "s", *map(str, range(10)))
    assert store.read("s", after=4) == entries[4:]
    assert store.read("s", after=4, limit=3) == entries[4:7]
    assert store.read("s", after=10) == []
    assert store.read("s", limit=0) == []


def test_numbers_go_on_from_the_parents(store):
    entries = make(store, "s", "a", "b", "c")
    child = make(store, "t", "d", "e", parent=child_of("s", entries))
    assert [entry.seq for entry in store.read("t")] == [4, 5]
    assert store.read("t", after=4) == child[1:]
    assert store.info("t").head == head_of(child)
    add(store, "t", head_of(child), "f")
    assert [entry.seq for entry in store.read("t", after=3)] == [4, 5, 6]


def test_info_has_pod_times_head_and_parent(store):
    entries = make(store, "s", "a", pod="reader")
    parent = child_of("s", entries, "compacted_from")
    child = make(store, "t", "b", parent=parent)
    info = store.info("s")
    assert (info.session_id, info.pod, info.parent, info.head) == ("s", "reader", None, head_of(entries))
    assert info.created_at <= info.updated_at
    assert store.info("t").parent == parent
    assert store.info("t").head == head_of(child)


def test_an_unknown_session_is_reported_as_such(store):
    make(store, "s", "a")
    for ask in (
        lambda: store.read("x"),
        lambda: store.info("x"),
        lambda: store.claim("x", "pod"),
        lambda: store.holder("x"),
        lambda: store.torn("x"),
        lambda: store.delete("x"),
        lambda: add(store, "x", Head(1, bytes(32)), "b"),
    ):
        with pytest.raises(SessionNotFound, match="no session x in"):
            ask()
    assert store.successors("x") == []


def test_a_session_is_made_only_once(store, opened):
    make(store, "s", "a")
    with pytest.raises(HeadConflict, match="already exists"):
        make(store, "s", "b")
    with pytest.raises(HeadConflict, match="already exists"):
        make(opened(), "s", "b")
    assert [entry.body for entry in store.read("s")] == bodies("a")


def test_an_append_behind_another_head_is_refused_and_nothing_is_written(store):
    entries = make(store, "s", "a", "b")
    head = head_of(entries)
    for wrong in (Head(1, entries[0].hash), Head(2, bytes(32)), Head(3, head.hash)):
        with pytest.raises(HeadConflict):
            add(store, "s", wrong, "x")
    with pytest.raises(HeadConflict, match="cannot follow"):
        wait_until_done(store.append("s", head, [StoredEntry(7, bytes(32), b"{}")]))
    assert store.read("s") == entries
    add(store, "s", head, "c")


def test_an_empty_append_changes_nothing(store):
    entries = make(store, "s", "a")
    wait_until_done(store.append("s", head_of(entries), []))
    assert store.read("s") == entries


def test_appends_that_were_not_waited_for_are_kept_in_order(store):
    head = head_of(make(store, "s", "a"))
    futures = []
    for text in "bcdef":
        batch = chained(bodies(text), after=head)
        futures.append(store.append("s", head, batch))
        head = head_of(batch)
    for future in futures:
        wait_until_done(future)
    assert [entry.body for entry in store.read("s")] == bodies(*"abcdef")


def test_flush_waits_for_all_that_was_given(store):
    head = head_of(make(store, "s", "a"))
    store.append("s", head, chained(bodies("b"), after=head))
    store.flush()
    assert len(store.read("s")) == 2


def test_a_batch_that_conflicts_fails_alone(store):
    heads = {name: head_of(make(store, name, "a")) for name in "stu"}
    futures = []
    for name, head in heads.items():
        after = Head(9, bytes(32)) if name == "t" else head
        try:
            futures.append(store.append(name, after, chained(bodies("b"), after=after)))
        except HeadConflict:
            futures.append(None)
    for name, future in zip("stu", futures, strict=True):
        if name == "t" and future is not None:
            with pytest.raises(HeadConflict):
                wait_until_done(future)
        else:
            wait_until_done(future)
    assert {name: len(store.read(name)) for name in "stu"} == {"s": 2, "t": 1, "u": 2}


def test_large_batches_and_large_entries_are_kept(store):
    entries = make(store, "s", *map(str, range(1000)))
    big = chained([b'"' + b"x" * 3_000_000 + b'"', *bodies("b")], after=head_of(entries))
    wait_until_done(store.append("s", head_of(entries), big))
    assert verified("s", store.read("s")) == entries + big


def test_sessions_are_listed_last_changed_first(store):
    heads = {name: head_of(make(store, name, "a", pod=f"pod-{name}")) for name in "stu"}
    add(store, "t", heads["t"], "b")
    add(store, "s", heads["s"], "b")
    assert [info.session_id for info in store.sessions()] == ["s", "t", "u"]
    assert [info.session_id for info in store.sessions(limit=2)] == ["s", "t"]
    assert [info.session_id for info in store.sessions(pod="pod-u")] == ["u"]
    assert store.sessions(pod="nobody") == []
    assert store.sessions()[0] == store.info("s")


@pytest.mark.parametrize("reopened", [False, True], ids=["in one process", "in the next"])
def test_the_last_session_is_the_one_written_last_though_the_clock_went_back(
    store, opened, kind, reopened, monkeypatch
):
    heads = {name: head_of(make(store, name, "a")) for name in "stu"}
    store.flush()
    now, now_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now() - 3600)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() - 3600 * 10**9)
    if reopened and kind not in {"memory", "awaited"}:
        store.close()
        store = opened()
    make(store, "v", "a")
    add(store, "s", heads["s"], "b")
    assert [info.session_id for info in store.sessions()] == ["s", "v", "u", "t"]
    assert [info.session_id for info in store.sessions(pod="pod", limit=1)] == ["s"]
    make(store, "w", "x", parent=child_of("v", store.read("v")))
    monkeypatch.setattr(time, "time", lambda: now() - 7200)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() - 7200 * 10**9)
    make(store, "x", "x", parent=child_of("v", store.read("v")))
    assert [info.session_id for info in store.successors("v")] == ["w", "x"]
    add(store, "v", store.info("v").head, "b")
    assert store.sessions(limit=1)[0].session_id == "v"


def test_a_long_entry_is_left_to_who_reads_in_a_thread(store):
    entries = make(store, "s", "a", "b")
    long = chained([b'{"text":"' + b"x" * 3_000_000 + b'"}', *bodies("c")], after=head_of(entries))
    wait_until_done(store.append("s", head_of(entries), long))
    assert store.read_small("s", largest=1_000_000) == entries
    assert store.read_small("s", after=1, limit=1, largest=1_000_000) == entries[1:]
    assert store.read_small("s", after=2, largest=1_000_000) is None
    with ThreadPoolExecutor(2) as threads:
        pages = [threads.submit(store.read, "s", after=2, limit=1) for _ in range(8)]
        assert [page.result() for page in pages] == [long[:1]] * 8
    assert store.read_small("s", after=3, largest=1_000_000) in ([*long[1:]], None)
    assert store.info("s").head == head_of(long)


def test_sessions_are_found_by_the_beginning_of_their_ids(store):
    for name in ("ab-2", "ab", "b", "ab-1", "aB"):
        make(store, name, "x")
    assert [info.session_id for info in store.matching("ab", 9)] == ["ab", "ab-1", "ab-2"]
    assert [info.session_id for info in store.matching("ab", 2)] == ["ab", "ab-1"]
    assert [info.session_id for info in store.matching("b", 9)] == ["b"]
    assert store.matching("c", 9) == []
    assert len(store.matching("", 9)) == 5


def test_sessions_are_found_by_the_beginning_of_their_short_ids_too(store):
    first, second = "01a1fcbe-d9e3-7abc-8def-0123456789ab", "01a1fcbe-d9e4-7abc-8def-fedcba987654"
    for name in (second, first):
        make(store, name, "x")
    assert [info.session_id for info in store.matching("01a1", 9)] == [first, second]
    assert [info.session_id for info in store.matching("0123456789ab", 9)] == [first]
    assert [info.session_id for info in store.matching("fe", 9)] == [second]
    assert [info.session_id for info in store.matching("01", 9)] == [first, second]
    assert store.matching("123456789ab", 9) == []
    assert store.matching("%", 9) == []


def test_the_session_that_is_called_just_so_comes_before_those_that_it_is_the_beginning_of(store):
    for name in ("0-bbbbbbbbbbbb", "bb", "bbb"):
        make(store, name, "x")
    assert [info.session_id for info in store.matching("bb", 9)] == ["bb", "0-bbbbbbbbbbbb", "bbb"]
    assert [info.session_id for info in store.matching("bb", 1)] == ["bb"]


def test_the_sessions_of_a_pod_are_found_among_those_of_others(store):
    for number in range(30):
        make(store, f"s{number}", "x", pod="seldom" if number in {3, 9} else "often")
    assert [info.session_id for info in store.sessions(pod="seldom", limit=1)] == ["s9"]
    assert [info.session_id for info in store.sessions(pod="seldom", limit=5)] == ["s9", "s3"]
    assert [info.session_id for info in store.sessions(pod="often", limit=2)] == ["s29", "s28"]


def test_successors_are_listed_oldest_first_and_outlive_their_parent(store):
    entries = make(store, "s", "a")
    for name, kind in (("b", "forked_from"), ("a", "compacted_from")):
        make(store, name, "x", parent=child_of("s", entries, kind))
    make(store, "other", "a")
    assert [info.session_id for info in store.successors("s")] == ["b", "a"]
    store.release("s")
    store.delete("s")
    assert [info.session_id for info in store.successors("s")] == ["b", "a"]


def test_what_goes_on_from_a_deleted_compaction_is_found_from_the_session_before_it(store, opened):
    made = {"s": make(store, "s", "a", claim=False)}
    for before, name in ("s", "t"), ("t", "u"), ("u", "v"):
        parent = child_of(before, made[before], "compacted_from")
        made[name] = make(store, name, "x", parent=parent, claim=False)
    make(store, "fork", "x", parent=child_of("s", made["s"]), claim=False)
    for name in "ut":
        store.delete(name)
    assert [info.session_id for info in store.successors("s")] == ["v", "fork"]
    store.close()
    again = opened()
    again.delete("fork")
    again.delete("s")
    for name in "stu":
        assert [info.session_id for info in again.successors(name)] == ["v"]
    again.delete("v")
    assert again.successors("s") == []


def test_all_is_there_again_when_the_store_is_opened_again(store, opened):
    entries = make(store, "s", "a", "b", pod="reader")
    make(store, "t", "c", parent=child_of("s", entries))
    before = store.sessions()
    store.close()
    again = opened()
    assert again.read("s") == entries
    assert again.sessions() == before
    add(again, "s", head_of(entries), "c")
    assert verified("s", again.read("s"))[-1].body == bodies("c")[0]


def test_close_can_be_called_twice_and_then_nothing_else(store, outlives):
    entries = make(store, "s", "a")
    store.close()
    store.close()
    for use in (
        lambda: store.read("s"),
        lambda: add(store, "s", head_of(entries), "b"),
        lambda: make(store, "t", "a"),
    ):
        with pytest.raises(Exception, match="is closed"):
            use()


def test_who_makes_a_session_holds_it(store):
    make(store, "s", "a", pod="reader")
    holder = store.holder("s")
    assert holder is not None
    assert (holder.pod, holder.pid) == ("reader", os.getpid())
    with pytest.raises(SessionInUse, match="pod 'reader'") as caught:
        store.claim("s", "writer")
    assert (caught.value.pid, caught.value.pod) == (os.getpid(), "reader")


def test_a_session_can_be_made_for_others(store):
    make(store, "s", "a", claim=False)
    assert store.holder("s") is None
    assert store.claim("s", "reader").pod == "reader"


def test_each_claim_is_a_generation_later(store):
    head = head_of(make(store, "s", "a"))
    store.release("s")
    store.flush()
    assert store.holder("s") is None
    first = store.claim("s", "one")
    store.release("s")
    second = store.claim("s", "two")
    assert (first.generation, second.generation) == (2, 3)
    add(store, "s", head, "b")


def test_letting_go_of_what_is_not_held_is_no_error(store):
    make(store, "s", "a")
    store.release("s")
    store.release("s")
    store.release("x")


def test_another_user_of_the_store_cannot_take_what_is_held(store, opened, outlives):
    head = head_of(make(store, "s", "a", pod="reader"))
    other = opened()
    for use in (
        lambda: other.claim("s", "writer"),
        lambda: add(other, "s", head, "b"),
        lambda: other.delete("s"),
    ):
        with pytest.raises(SessionInUse, match="reader"):
            use()
    assert other.holder("s") == store.holder("s")
    store.release("s")
    store.flush()
    other.claim("s", "writer")
    with pytest.raises(SessionInUse, match="writer"):
        store.claim("s", "reader")
    with pytest.raises(SessionInUse, match="writer"):
        add(store, "s", head, "b")
    add(other, "s", head, "b")


def test_what_a_closed_store_held_is_free(store, opened):
    make(store, "s", "a")
    store.close()
    other = opened()
    assert other.holder("s") is None
    assert other.claim("s", "writer").generation == 2


def test_many_users_of_one_store_write_side_by_side(store, opened, outlives):
    other = opened()
    one, two = head_of(make(store, "s", "a")), head_of(make(other, "t", "a"))
    for _ in range(20):
        one, two = add(store, "s", one, "b"), add(other, "t", two, "b")
    assert len(verified("s", other.read("s"))) == len(verified("t", store.read("t"))) == 21


def test_a_session_that_nobody_holds_can_be_deleted(store):
    make(store, "s", "a")
    make(store, "t", "a")
    with pytest.raises(SessionInUse):
        store.delete("s")
    store.release("s")
    store.delete("s")
    assert [info.session_id for info in store.sessions()] == ["t"]
    with pytest.raises(SessionNotFound):
        store.read("s")
    make(store, "s", "anew")


def test_a_sound_store_has_no_problems(store):
    make(store, "s", "a")
    assert store.problems() == []
    assert store.torn("s") == 0


# -- answers to approvals --------------------------------------------------------------------------


@pytest.fixture
def keeping(store) -> SessionStore:
    """A store that keeps answers to approvals."""
    if not store.keeps_answers:
        with pytest.raises(StoreError, match="cannot store answers"):
            store.put_answer(ApprovalAnswer("x", "s", approved=True, at=1.0))
        assert (store.answers(["x"]), store.answers_since(None)) == ([], (None, []))
        pytest.skip("it keeps none")
    return store


def test_the_first_answer_to_a_call_is_kept_and_is_that_of_its_session_alone(keeping, opened):
    first = ApprovalAnswer("x", "s", approved=True, at=1.0, note="ü\n", arguments={"a": [1]})
    assert keeping.answers(["x"]) == []
    assert keeping.put_answer(first)
    assert not keeping.put_answer(ApprovalAnswer("x", "s", approved=False, at=2.0))
    other = opened()
    assert not other.put_answer(ApprovalAnswer("x", "s", approved=False, at=3.0))
    in_fork = ApprovalAnswer("x", "fork", approved=False, at=4.0)
    assert other.put_answer(in_fork)
    assert keeping.answers(["x", "../../y", ""]) == [first, in_fork]


def test_answers_that_come_are_learnt_of_once_a_mark_was_set(keeping, opened):
    keeping.put_answer(ApprovalAnswer("before", "s", approved=True, at=1.0))
    mark, found = keeping.answers_since(None)
    assert found == []
    assert keeping.answers_since(mark) == (mark, [])
    after = ApprovalAnswer("after", "s", approved=True, at=1.0)
    opened().put_answer(after)
    mark, found = keeping.answers_since(mark)
    assert found == [after]
    assert keeping.answers_since(mark) == (mark, [])


def test_with_a_session_its_answers_go_and_later_ones_are_learnt_of(keeping):
    make(keeping, "s", "a")
    keeping.put_answer(ApprovalAnswer("x", "s", approved=True, at=1.0))
    mark, _ = keeping.answers_since(None)
    keeping.release("s")
    keeping.delete("s")
    assert keeping.answers(["x"]) == []
    again = ApprovalAnswer("y", "t", approved=True, at=1.0)
    keeping.put_answer(again)
    assert again in keeping.answers_since(mark)[1]


def test_of_many_answers_at_once_one_is_kept(keeping, opened):
    stores = [opened() for _ in range(8)]

    def put(number: int) -> bool:
        return stores[number].put_answer(ApprovalAnswer("x", "s", approved=True, at=float(number)))

    with ThreadPoolExecutor(8) as threads:
        outlives = list(threads.map(put, range(8)))
    assert outlives.count(True) == 1
    (answer,) = keeping.answers(["x"])
    assert answer.at == outlives.index(True)


def test_no_other_user_may_read_answers(keeping):
    before = os.umask(0)
    try:
        keeping.put_answer(ApprovalAnswer("x", "s", approved=True, at=1.0))
    finally:
        os.umask(before)
    files = [path for path in keeping.folder.rglob("*") if path.is_file()]
    assert any("answers" in path.name or path.suffix == ".db" for path in files)
    assert [path for path in files if path.stat().st_mode & 0o077] == []
