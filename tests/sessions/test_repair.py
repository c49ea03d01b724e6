"""Looking after stores: what is damaged is found, what is sound is saved, and sessions can move."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from pathlib import Path

import pytest
from msgspec import Raw
from store_kit import KINDS, add, change_entry, make, wait_until_done

from actors.sessions.chain import chained, head_of, verified
from actors.sessions.jsonl.lines import batch_lines, header_line
from actors.sessions.jsonl.store import JsonLinesStore
from actors.sessions.memory.store import MemoryStore
from actors.sessions.repair import (
    check,
    export_lines,
    export_session,
    fork,
    import_session,
    mend,
    sound_prefix,
    succeed,
    successor_id,
)
from actors.sessions.sqlite.store import SQLiteStore
from protocol.entries import ItemsKept, Parent, SessionOpened
from protocol.errors import HeadConflict, SessionCorrupt, SessionInUse, StoreError, UnknownEntry
from protocol.events import UserMessage
from protocol.items import UserItem
from protocol.wire import decode_entry, encode


@pytest.fixture(params=["memory", *KINDS])
def store(request, tmp_path):
    store = MemoryStore() if request.param == "memory" else KINDS[request.param](tmp_path / "store")
    yield store
    store.close()


def conversation(store, session_id, words, first_seq=1):
    """A session as a pod would write it: opened, then something said in each entry."""
    opened = SessionOpened(
        session_id=session_id, seq=first_seq, at=1.0, pod="reader", manifest=Raw(b'{"pod":{}}')
    )
    said = [
        UserMessage(
            pod="reader", session_id=session_id, seq=first_seq + 1 + index, at=2.0, item=UserItem.of(word)
        )
        for index, word in enumerate(words)
    ]
    entries = chained(map(encode, [opened, *said]), first_seq=first_seq)
    wait_until_done(store.create(session_id, "reader", None, entries))
    return entries


def test_a_fork_keeps_no_credentials_that_an_old_session_was_opened_with(store):
    url = "https://us:Tr0ub4dor@host/v1"
    manifest = Raw(b'{"pod":{"name":"p"},"model":{"base_url":"%s","new":1}}' % url.encode())
    opened = SessionOpened(session_id="s", seq=1, at=1.0, pod="reader", manifest=manifest)
    said = UserMessage(pod="reader", session_id="s", seq=2, at=2.0, item=UserItem.of("hello"))
    wait_until_done(store.create("s", "reader", None, chained(map(encode, [opened, said]))))
    fork(store, "s", "t")
    forked = verified("t", store.read("t"))
    assert b"Tr0ub4dor" not in b"".join(entry.body for entry in forked)
    assert bytes(decode_entry(forked[0].body).manifest) == (
        b'{"pod":{"name":"p"},"model":{"base_url":"https://\xe2\x80\xa6@host/v1","new":1}}'
    )
    assert texts(store, "t") == ["hello"]
    assert bytes(decode_entry(verified("s", store.read("s"))[0].body).manifest) == bytes(manifest)


def items_of(entries):
    """A plain replay, for these tests."""
    found = []
    for entry in map(decode_entry, (entry.body for entry in entries)):
        if isinstance(entry, ItemsKept):
            found += entry.items
        elif isinstance(entry, UserMessage):
            found.append(entry.item)
    return found


def texts(store, session_id):
    return [item.text for item in items_of(verified(session_id, store.read(session_id)))]


def test_a_sound_store_has_no_findings(store):
    conversation(store, "s", "ab")
    conversation(store, "t", "ab")
    assert list(check(store)) == []


def test_a_broken_session_is_found_and_its_sound_prefix_can_be_forked(tmp_path):
    store = SQLiteStore(tmp_path / "pods.db")
    entries = conversation(store, "s", "abcd")
    conversation(store, "t", "ab")
    change_entry(tmp_path / "pods.db", 4, b"2.0", b"3.0")
    (finding,) = check(store)
    assert (finding.kind, finding.session_id, finding.seq, finding.sound) == ("broken", "s", 4, 3)
    info = fork(store, "s", "saved")
    assert info.parent is not None
    assert (info.parent.kind, info.parent.session_id) == ("forked_from", "s")
    assert (info.parent.at_seq, info.parent.at_hash) == (3, entries[2].hash.hex())
    assert texts(store, "saved") == ["a", "b"]
    opened = decode_entry(store.read("saved")[0].body)
    assert isinstance(opened, SessionOpened)
    assert (opened.seq, opened.session_id, opened.pod, opened.parent) == (4, "saved", "reader", info.parent)
    assert bytes(opened.manifest) == b'{"pod":{}}'
    assert store.claim("saved", "reader").generation >= 1
    assert [each.kind for each in check(store)] == ["broken"], "what was damaged stays as it is"
    store.close()


def test_a_session_whose_first_entry_is_broken_cannot_be_saved(tmp_path):
    store = SQLiteStore(tmp_path / "pods.db")
    conversation(store, "s", "ab")
    connection = sqlite3.connect(tmp_path / "pods.db")
    connection.execute("UPDATE entries SET hash = x'00' WHERE n = 1")
    connection.commit()
    connection.close()
    with pytest.raises(SessionCorrupt, match="entry 1"):
        fork(store, "s", "saved")
    store.close()


def test_a_missing_row_in_a_long_session_is_found_by_its_number(tmp_path):
    store = SQLiteStore(tmp_path / "pods.db")
    head = head_of(make(store, "s", *map(str, range(2221))))
    head = add(store, "s", head, "in a row of its own")
    add(store, "s", head, *map(str, range(278)))
    connection = sqlite3.connect(tmp_path / "pods.db")
    connection.execute("DELETE FROM entries WHERE n = 2222")
    connection.commit()
    connection.close()
    entries, broken = sound_prefix(store, "s")
    assert len(entries) == 2221
    assert broken is not None
    assert broken.seq == 2222
    store.close()


def test_a_torn_session_is_found_and_nothing_is_changed(tmp_path):
    store = JsonLinesStore(tmp_path)
    conversation(store, "s", "ab")
    path = tmp_path / "s.jsonl"
    path.write_bytes(path.read_bytes() + b'{"seq":4')
    (finding,) = check(store)
    assert (finding.kind, finding.session_id) == ("torn", "s")
    assert "8 bytes" in finding.text
    assert path.read_bytes().endswith(b'{"seq":4')
    store.close()


def test_a_session_can_be_forked_after_any_entry(store):
    entries = conversation(store, "s", "abc")
    info = fork(store, "s", "t", at=entries[1].hash.hex())
    assert info.parent is not None
    assert info.parent.at_seq == 2
    assert texts(store, "t") == ["a"]
    again = fork(store, "t", "u")
    assert texts(store, "u") == ["a"]
    assert [entry.seq for entry in store.read("u")] == [5, 6]
    assert again.parent is not None
    assert again.parent.session_id == "t"


def test_the_beginning_of_a_hash_names_an_entry_if_only_one_has_it(store):
    entries = conversation(store, "s", "abc")
    info = fork(store, "s", "t", at=entries[1].hash.hex()[:12])
    assert info.parent is not None
    assert info.parent.at_hash == entries[1].hash.hex()
    with pytest.raises(UnknownEntry, match="session s has 4 entries whose hash begins with ''"):
        fork(store, "s", "u", at="")


def test_a_fork_at_an_unknown_hash_is_an_error_and_makes_nothing(store):
    conversation(store, "s", "abc")
    with pytest.raises(UnknownEntry, match="session s has no entry with hash beef"):
        fork(store, "s", "t", at="beef")
    assert len(store.sessions()) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_moves_between_stores_with_its_hashes(store, tmp_path, kind):
    conversation(store, "s", "ab")
    fork(store, "s", "t")
    entries = store.read("t")
    export_session(store, "t", tmp_path / "t.session")
    other = KINDS[kind](tmp_path / "other")
    with (tmp_path / "t.session").open("rb") as file:
        info = import_session(other, file)
    assert other.read("t") == entries
    assert (info.pod, info.parent, info.head) == ("reader", store.info("t").parent, head_of(entries))
    other.claim("t", "reader")
    add(other, "t", info.head, "on")
    with pytest.raises(HeadConflict, match="already exists"):
        import_session(other, export_lines(store, "t"))
    other.close()


def test_an_export_does_not_write_over_a_file(store, tmp_path):
    conversation(store, "s", "a")
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(StoreError, match="mine"):
        export_session(store, "s", tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "precious"
    with pytest.raises(StoreError, match="no/where"):
        export_session(store, "s", tmp_path / "no" / "where")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["mine"]


def test_a_damaged_file_is_not_imported(store):
    conversation(store, "s", "abc")
    data = b"".join(export_lines(store, "s"))
    other = MemoryStore()
    with pytest.raises(SessionCorrupt, match="entry 3"):
        import_session(other, [data.replace(b'"b"', b'"B"')])
    with pytest.raises(StoreError, match="truncated"):
        import_session(other, [data[:-5]])
    with pytest.raises(StoreError, match="letter is not an exported session"):
        import_session(other, [b"hello\n"], name="letter")
    assert other.sessions() == []


@pytest.mark.parametrize("other", ["", "../../x", "a\nb", "t2"])
def test_a_file_whose_first_line_names_another_session_than_its_entries_is_not_imported(store, other):
    conversation(store, "t", "ab")
    data = b"".join(export_lines(store, "t")).replace(
        b'"session":"t"', b'"session":' + json.dumps(other).encode(), 1
    )
    empty = MemoryStore()
    with pytest.raises(StoreError, match="its entries belong to t"):
        import_session(empty, [data])
    assert empty.sessions() == []


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("pod", "x\x1b[31m\n"),
        ("parent", {"kind": "compacted_from", "session_id": "t", "at_hash": "", "at_seq": 1}),
    ],
)
def test_a_file_whose_first_line_says_else_than_its_entries_is_not_imported(store, field, said):
    conversation(store, "t", "ab")
    first, _, rest = b"".join(export_lines(store, "t")).partition(b"\n")
    header = json.dumps({**json.loads(first), field: said}).encode()
    empty = MemoryStore()
    with pytest.raises(StoreError, match=f"the {field} .* but its entries belong to"):
        import_session(empty, [header, b"\n", rest])
    assert empty.sessions() == []


@pytest.mark.parametrize("name", ["", " ", "a\nb", "\x1b]0;mine\x07", "x" * 201])
def test_a_session_with_an_id_that_no_session_can_have_is_not_imported(store, name):
    conversation(store, name, "ab")
    empty = MemoryStore()
    with pytest.raises(StoreError, match="session: "):
        import_session(empty, export_lines(store, name))
    assert empty.sessions() == []


@pytest.mark.parametrize("number", [-1, 0, 1 << 63, 10**30])
def test_an_entry_of_a_number_that_no_store_can_keep_is_not_imported(store, number):
    lines = [header_line("t", "p", 1.0, None), batch_lines(chained([b"{}"], first_seq=number))]
    with pytest.raises(StoreError, match="an impossible number"):
        import_session(store, lines)
    parent = Parent("forked_from", "s", "", number or 1 << 64)
    lines = [header_line("t", "p", 1.0, parent), batch_lines(chained([b"{}"], first_seq=number or 1))]
    with pytest.raises(StoreError, match="an impossible number"):
        import_session(store, lines)
    assert store.sessions() == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_entry_that_was_damaged_into_several_lines_is_mended(tmp_path, kind):
    store = KINDS[kind](tmp_path)
    conversation(store, "s", "abcd")
    store.close()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes().replace(b'"text":"c"', b'"te\nt":"c"'))
    store = KINDS[kind](tmp_path)
    (finding,) = check(store)
    forked, kept = mend(store, finding, "mended", tmp_path / "damaged")
    assert forked is not None
    assert kept is not None
    assert texts(store, "mended") == ["a", "b"]
    assert re.search(rb'"te(\n|\\n)t"', kept.read_bytes())
    assert list(check(store)) == []
    store.close()


def test_a_repair_that_cannot_put_the_damaged_session_aside_leaves_no_other(tmp_path):
    store = SQLiteStore(tmp_path / "pods.db")
    conversation(store, "s", "abcd")
    store.release("s")
    change_entry(tmp_path / "pods.db", 4, b"2.0", b"3.0")
    (finding,) = check(store)
    (tmp_path / "damaged").touch()
    with pytest.raises(StoreError, match="damaged"):
        mend(store, finding, "mended", tmp_path / "damaged")
    assert [each.session_id for each in store.sessions()] == ["s"]
    store.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_repair_that_fails_deletes_nothing_that_another_one_relies_on(tmp_path, kind):
    """Of two at once, the one that came second put the damaged session aside for the first one's successor,
    which that one deleted then.
    """
    with contextlib.closing(KINDS[kind](tmp_path)) as store:
        conversation(store, "s", "abcd")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes().replace(b'"text":"d"', b'"text":"e"'))
    with (
        contextlib.closing(KINDS[kind](tmp_path)) as store,
        contextlib.closing(KINDS[kind](tmp_path)) as other,
    ):
        (finding,) = check(store)

        class Busy(type(store)):
            def put_aside(self, session_id, folder):
                with pytest.raises(SessionInUse):
                    mend(other, finding, successor_id(finding), folder)
                raise StoreError("locked")

        store.__class__ = Busy
        with pytest.raises(StoreError, match="locked"):
            mend(store, finding, successor_id(finding), tmp_path / "damaged")
        assert [each.session_id for each in store.sessions()] == ["s"]
        forked, _ = mend(other, finding, successor_id(finding), tmp_path / "damaged")
        assert texts(store, forked.session_id) == ["a", "b", "c"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_repair_after_one_that_was_killed_takes_what_that_has_made(tmp_path, kind):
    with contextlib.closing(KINDS[kind](tmp_path)) as store:
        conversation(store, "s", "abcd")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes().replace(b'"text":"d"', b'"text":"e"'))
    with contextlib.closing(KINDS[kind](tmp_path)) as store:
        (finding,) = check(store)
        made = succeed(store, "s", successor_id(finding))
        folder = tmp_path / "damaged"
        folder.mkdir()
        (folder / ".s.jsonl.1234").touch()
        forked, kept = mend(store, finding, successor_id(finding), folder)
        assert forked == made
        assert [each.session_id for each in store.sessions()] == [made.session_id]
        assert kind.startswith("jsonl") or list(folder.iterdir()) == [kept]


def test_a_repair_that_is_interrupted_behind_its_end_leaves_what_takes_the_damaged_ones_place(tmp_path):
    class Interrupted(JsonLinesStore):
        def put_aside(self, session_id, folder):
            super().put_aside(session_id, folder)
            raise KeyboardInterrupt

    with contextlib.closing(Interrupted(tmp_path)) as store:
        conversation(store, "s", "abcd")
        store.release("s")
        file = tmp_path / "s.jsonl"
        file.write_bytes(file.read_bytes().replace(b'"text":"d"', b'"text":"e"'))
        (finding,) = check(store)
        with pytest.raises(KeyboardInterrupt):
            mend(store, finding, "mended", tmp_path / "damaged")
        assert texts(store, "mended") == ["a", "b", "c"]


def test_a_broken_session_is_not_exported(tmp_path):
    store = SQLiteStore(tmp_path / "pods.db")
    conversation(store, "s", "abc")
    change_entry(tmp_path / "pods.db", 3, b"2.0", b"3.0")
    with pytest.raises(SessionCorrupt, match="entry 3"):
        export_session(store, "s", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    store.close()


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="Linux has a file that cannot be read")
def test_a_session_that_a_failing_disk_does_not_let_be_read_is_reported_and_stays_where_it_is(tmp_path):
    with contextlib.closing(JsonLinesStore(tmp_path)) as store:
        conversation(store, "s", ["hello"])
        store.release("s")
        file = tmp_path / "s.jsonl"
        sound = file.rename(tmp_path / "sound")
        file.symlink_to("/proc/self/mem")  # of which the first byte is an error of input and output
        (finding,) = check(store)
        assert finding.kind == "unreadable"
        with pytest.raises(StoreError, match="check the disk"):
            mend(store, finding, "t", tmp_path / "damaged")
        sound.rename(file)
        assert list(check(store)) == []


def without_rows(path):
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM sessions")


def test_a_session_whose_row_somebody_has_deleted_is_brought_back_whole(tmp_path):
    store = SQLiteStore(tmp_path / "pods.db")
    conversation(store, "s", ["one"])
    conversation(store, "t", ["two"])
    store.release("s")
    store.release("t")
    before = {each: (store.info(each).head, store.read(each)) for each in "st"}
    without_rows(store.path)
    findings = list(check(store))
    assert [(each.kind, each.session_id) for each in findings] == [("unreadable", "s"), ("unreadable", "t")]
    for finding in findings * 2:  # as two repairs at once find them
        assert mend(store, finding, "new", tmp_path / "damaged") == (None, None)
    assert {each: (store.info(each).head, store.read(each)) for each in "st"} == before
    assert {each.pod for each in store.sessions()} == {"reader"}
    assert list(check(store)) == []
    store.close()


def test_a_session_without_its_row_that_is_damaged_too_is_mended_as_others_are(tmp_path):
    store = SQLiteStore(tmp_path / "pods.db")
    conversation(store, "s", ["one", "two", "three"])
    store.release("s")
    change_entry(store.path, 4, b"three", b"thxee")
    without_rows(store.path)
    [finding] = check(store)
    forked, kept = mend(store, finding, "new", tmp_path / "damaged")
    assert texts(store, forked.session_id) == ["one", "two"]
    assert b"thxee" in kept.read_bytes()
    assert [each.session_id for each in store.sessions()] == [forked.session_id]
    assert list(check(store)) == []
    store.close()


def test_of_two_repairs_that_bring_a_damaged_session_back_neither_takes_it_from_the_other(tmp_path):
    """One put the session aside, as one of which nothing can be read, that the other had just brought back."""
    store, other = SQLiteStore(tmp_path / "pods.db"), SQLiteStore(tmp_path / "pods.db")
    conversation(store, "s", ["one", "two", "three"])
    store.release("s")
    change_entry(store.path, 4, b"three", b"thxee")
    without_rows(store.path)
    [finding] = check(store)
    other.bring_back("s")
    forked, kept = mend(store, finding, "new", tmp_path / "damaged")
    assert texts(other, forked.session_id) == ["one", "two"]
    assert b"thxee" in kept.read_bytes()
    other.close()
    store.close()


def test_entries_that_damage_has_taken_away_from_any_session_are_reported(tmp_path):
    store = SQLiteStore(tmp_path / "pods.db")
    conversation(store, "s", ["one"])
    conversation(store, "t", ["two"])
    with contextlib.closing(sqlite3.connect(store.path)) as db, db:
        db.execute("UPDATE entries SET session = 'x' WHERE session = 1")
    lost, emptied = check(store)
    assert (lost.kind, emptied.kind, emptied.session_id) == ("store", "unreadable", "s")
    assert "the impossible session number 'x'" in lost.text
    store.close()


def repaired(path):
    """A store in which every session without its row has been brought back."""
    store = SQLiteStore(path)
    for finding in list(check(store)):
        mend(store, finding, "new", path.parent / "damaged")
    assert list(check(store)) == []
    return store


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_that_came_back_under_another_id_can_be_exported_and_imported(tmp_path, kind):
    """Its first line said what its entries do not, so an import took it for changed."""
    store = SQLiteStore(tmp_path / "pods.db")
    for _ in range(2):
        conversation(store, "s", ["one", "two"])
        store.release("s")
        without_rows(store.path)
    store.close()
    store = repaired(store.path)
    assert {each.session_id for each in store.sessions()} == {"s", "lost-2"}
    export_session(store, "lost-2", tmp_path / "exported")
    other = KINDS[kind](tmp_path / "other")
    assert import_session(other, [(tmp_path / "exported").read_bytes()]).session_id == "lost-2"
    assert other.read("lost-2") == store.read("lost-2")
    assert list(check(other)) == []
    store.close()
    other.close()


def test_a_session_comes_back_though_one_has_the_id_that_it_would_get(tmp_path):
    """A repair failed for ever with: UNIQUE constraint failed."""
    store = SQLiteStore(tmp_path / "pods.db")
    conversation(store, "s", ["one"])
    store.release("s")
    without_rows(store.path)
    for session_id in ("s", "lost-1", "lost-1-2"):
        conversation(store, session_id, ["two"])
        store.release(session_id)
    store.close()
    store = repaired(store.path)
    assert texts(store, "lost-1-3") == ["one"]
    assert texts(store, "lost-1") == ["two"]
    store.close()


def test_a_session_with_a_hashed_entry_that_is_none_is_damaged_where_it_is_forked_or_replaced(store):
    opened = SessionOpened(session_id="s", seq=1, at=1.0, pod="reader", manifest=Raw(b'{"pod":{}}'))
    bodies = [encode(opened), b'{"type":"RunEnd","outcome":5}', b"{}"]
    wait_until_done(store.create("s", "reader", None, chained(bodies)))
    for continued in (fork, succeed):
        with pytest.raises(SessionCorrupt, match="damaged at entry 2: not an entry"):
            continued(store, "s", "t")
