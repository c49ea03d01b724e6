"""What is particular to the JSON-lines store: files that people read, tails that crashes tear."""

from __future__ import annotations

import json
import os

import pytest
from effort import times
from hypothesis import given, settings
from hypothesis import strategies as st
from store_kit import add, bodies, child_of, make, wait_until_done

from actors.sessions.chain import chained, head_of, verified
from actors.sessions.jsonl.files import file_name, session_of
from actors.sessions.jsonl.lines import LineReader, batch_lines
from actors.sessions.jsonl.store import JsonLinesStore
from actors.sessions.repair import check, mend
from protocol.errors import HeadConflict, SessionCorrupt, SessionError, SessionNotFound, StoreError


@pytest.fixture
def store(tmp_path):
    store = JsonLinesStore(tmp_path)
    yield store
    store.close()


def test_a_session_is_a_file_that_people_can_read(tmp_path, store):
    entries = make(store, "s", "a", "b", pod="reader")
    header, *lines = (json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines())
    assert (header["polypod"], header["session"], header["pod"]) == (1, "s", "reader")
    assert lines == [
        {"seq": 1, "hash": entries[0].hash.hex(), "more": 1, "entry": {"text": "a"}},
        {"seq": 2, "hash": entries[1].hash.hex(), "entry": {"text": "b"}},
    ]


def test_a_file_is_only_ever_added_to(tmp_path, store):
    head = head_of(make(store, "s", "a"))
    with (tmp_path / "s.jsonl").open("rb") as follower:
        before = follower.read()
        head = add(store, "s", head, "b")
        store.release("s")
        store.claim("s", "again")
        add(store, "s", head, "c")
        assert len(follower.read().splitlines()) == 2
        follower.seek(0)
        assert follower.read().startswith(before)


def test_a_tail_torn_at_any_byte_is_passed_over_reported_and_cut_when_claimed(tmp_path):
    whole = JsonLinesStore(tmp_path)
    entries = make(whole, "s", "a", "b")
    path = tmp_path / "s.jsonl"
    sound = path.read_bytes()
    batch = chained(bodies("c", "ü", "e"), after=head_of(entries))
    whole.close()
    lines = batch_lines(batch)
    for cut in range(1, len(lines)):
        path.write_bytes(sound + lines[:cut])
        store = JsonLinesStore(tmp_path)
        assert store.read("s") == entries
        assert store.info("s").head == head_of(entries)
        assert store.torn("s") == cut
        assert path.read_bytes() == sound + lines[:cut], "only a writer may cut"
        assert store.claim("s", "pod").torn == cut
        assert path.read_bytes() == sound
        wait_until_done(store.append("s", head_of(entries), batch))
        assert store.read("s") == entries + batch
        store.close()


def test_a_whole_line_that_cannot_be_read_is_damage_and_not_a_tear(tmp_path, store):
    entries = make(store, "s", "a", "b", "c", "d")
    path = tmp_path / "s.jsonl"
    for number in (2, 4):
        lines = path.read_bytes().splitlines(keepends=True)
        lines[number] = b"?" * 20 + b"\n"
        path.write_bytes(b"".join(lines))
        with pytest.raises(SessionCorrupt, match=f"damaged at entry {number}"):
            verified("s", store.read("s", after=number - 2)[1:], head_of(entries[: number - 1]))
        assert store.torn("s") == 0
        path.write_bytes(path.read_bytes().replace(lines[number], batch_lines([entries[number - 1]])))


def test_a_changed_byte_is_found_by_session_and_entry(tmp_path, store):
    make(store, "s", "a", "b", "c")
    path = tmp_path / "s.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"text":"b"', b'"text":"B"'))
    with pytest.raises(SessionCorrupt, match="session s is damaged at entry 2"):
        verified("s", store.read("s"))


def test_a_file_that_is_no_session_is_passed_over_and_reported_as_a_problem(tmp_path, store):
    make(store, "s", "a")
    (tmp_path / "diary.jsonl").write_text("dear diary\n")
    (tmp_path / "notes.txt").write_text("x")
    assert [info.session_id for info in store.sessions()] == ["s"]
    assert len(store.unreadable()) == 1
    assert "diary.jsonl" in str(store.unreadable())


def test_pipes_folders_devices_and_links_to_themselves_among_the_files_hide_no_session(tmp_path, store):
    """Opening a pipe waits for who writes to it, and a device has no end."""
    head = head_of(make(store, "s", "a"))
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "device.jsonl").symlink_to("/dev/zero")
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    odd = ["pipe", "folder", "device", "loop"]
    assert [info.session_id for info in store.sessions()] == ["s"]
    assert [info.session_id for info in store.matching("", 9)] == ["s"]
    assert sorted(store.unreadable()) == sorted(odd)
    for name in odd:
        for ask in (store.info, store.read, lambda session: store.claim(session, "p")):
            with pytest.raises(SessionError, match=name):
                ask(name)
    add(store, "s", head, "b")


def test_a_file_whose_name_is_no_text_hides_no_session(tmp_path, store):
    make(store, "s", "one")
    for name in (b"\xff.jsonl", "caf\u00e9.jsonl".encode(), b"%ff.jsonl"):
        (store.folder / os.fsdecode(name)).write_bytes(b"{}\n")
    assert [each.session_id for each in store.sessions()] == ["s"]
    assert [each.session_id for each in store.matching("", 9)] == ["s"]
    assert store.unreadable() == {}


def test_a_line_of_a_number_of_thousands_of_digits_is_damage(tmp_path, store):
    make(store, "s", "one")
    line = b'{"seq":%b,"hash":"%b","entry":"%b"}\n' % (b"1" * 5000, b"0" * 64, b"x" * 300_000)
    with (store.folder / "s.jsonl").open("ab") as file:
        file.write(line)
    with pytest.raises(SessionCorrupt, match="entry 2"):
        verified("s", store.read("s"))


def test_who_claims_a_damaged_session_in_vain_does_not_hold_it(tmp_path, store):
    (tmp_path / "diary.jsonl").write_text("dear diary\n")
    with pytest.raises(StoreError, match="diary"):
        store.claim("diary", "p")
    other = JsonLinesStore(tmp_path)
    assert other.holder("diary") is None
    other.close()


def test_a_pipe_that_takes_the_place_of_a_session_at_work_is_refused(tmp_path, store):
    head = head_of(make(store, "s", "a"))
    (tmp_path / "s.jsonl").unlink()
    os.mkfifo(tmp_path / "s.jsonl")
    with pytest.raises(SessionError, match=r"s\.jsonl"):
        add(store, "s", head, "b")
    with pytest.raises(SessionError, match=r"s\.jsonl"):
        store.read("s")


def test_a_file_that_was_brought_in_by_hand_is_a_session(tmp_path, store):
    entries = make(store, "s", "a")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "s.jsonl").write_bytes((tmp_path / "s.jsonl").read_bytes())
    other = JsonLinesStore(tmp_path / "there")
    assert [info.session_id for info in other.sessions()] == ["s"]
    assert other.claim("s", "pod").generation == 1
    add(other, "s", head_of(entries), "b")
    other.close()


def test_a_session_can_be_called_anything(store):
    for name in ("../../etc/passwd", ".hidden", "a/b", "ü", "a b?c=d", "."):
        make(store, name, "a", pod=name)
        assert store.info(name).pod == name
    assert len(store.sessions()) == 6
    assert len(list(store.folder.glob("*.jsonl"))) == 6


@settings(deadline=None, max_examples=times(25))
@given(st.text(min_size=1, max_size=20))
def test_a_sessions_name_comes_back_from_its_files(name):
    assert session_of(file_name(name)) == name
    assert "/" not in file_name(name)
    assert not file_name(name).startswith(".")


def test_an_entry_of_several_lines_is_refused(store):
    head = head_of(make(store, "s", "a"))
    with pytest.raises(ValueError, match="not one line"):
        store.append("s", head, chained([b"{\n}"], after=head))


def test_a_draft_of_a_dead_process_is_cleared_away(tmp_path, store):
    make(store, "s", "a")
    drafts = tmp_path / ".polypod" / "drafts"
    (drafts / "0123456789abcdef.t.jsonl").write_bytes(b"half")
    (drafts / f"{store._lock.id}.u.jsonl").write_bytes(b"being written")
    JsonLinesStore(tmp_path).close()
    assert [draft.name for draft in drafts.iterdir()] == [f"{store._lock.id}.u.jsonl"]


def test_a_child_that_never_came_to_be_is_no_successor(tmp_path, store):
    entries = make(store, "s", "a")
    make(store, "t", "b", parent=child_of("s", entries))
    (tmp_path / "t.jsonl").unlink()
    assert store.successors("s") == []
    with pytest.raises(SessionNotFound):
        JsonLinesStore(tmp_path).read("t")


@settings(deadline=None, max_examples=times(25))
@given(st.lists(st.lists(st.text(max_size=10), min_size=1, max_size=3), max_size=5), st.data())
def test_lines_come_out_as_they_went_in_however_the_bytes_are_split(batches, data):
    head, lines, entries = None, b"", []
    for texts in batches:
        batch = chained([json.dumps({"text": text}).encode() for text in texts], after=head)
        head = head_of(batch)
        lines += batch_lines(batch)
        entries += batch
    reader, found = LineReader(), []
    rest = lines
    while rest:
        cut = data.draw(st.integers(1, len(rest)))
        found += reader.feed(rest[:cut])
        rest = rest[cut:]
    assert found == entries
    assert (reader.head, reader.sound) == (head, len(lines))


def test_a_session_that_could_not_be_made_is_nobodys_successor(store):
    first, second = make(store, "s", "a"), make(store, "t", "a")
    make(store, "child", "b", parent=child_of("s", first))
    with pytest.raises(HeadConflict):
        make(store, "child", "b", parent=child_of("t", second))
    assert [info.session_id for info in store.successors("s")] == ["child"]
    assert store.successors("t") == []


def test_a_file_that_was_cut_off_within_its_first_batch_is_reported_and_put_aside(tmp_path, store):
    """As of a copy that was made while it was written: it was in the listings, and nothing could mend it."""
    make(store, "s", "a", claim=False)
    make(store, "t", "a", "b", claim=False)
    path = tmp_path / "t.jsonl"
    cut = path.read_bytes()[:-5]
    path.write_bytes(cut)
    assert [each.session_id for each in store.sessions()] == ["s"]
    for ask in (store.info, lambda session: store.claim(session, "p")):
        with pytest.raises(SessionCorrupt, match="it has no complete entry"):
            ask("t")
    [finding] = check(store)
    assert (finding.kind, finding.session_id) == ("unreadable", "t")
    _, kept = mend(store, finding, "new", tmp_path / "damaged")
    assert kept is not None
    assert kept.read_bytes() == cut
    assert list(check(store)) == []
