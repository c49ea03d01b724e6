"""What a commit adds to a session shares a row, and comes apart again as it was given."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_kit import add, bodies, change_entry, first_format, make, wait_until_done

from actors.sessions.chain import chained, head_of, verified
from actors.sessions.repair import check
from actors.sessions.sqlite.rows import LARGEST_ROW, pack, unpack
from actors.sessions.sqlite.store import SQLiteStore
from protocol.entries import StoredEntry
from protocol.errors import SessionCorrupt

#: Some of a few bytes, with line breaks too; some that fill a row, or are too long for one.
any_bodies = st.lists(
    st.binary(max_size=20) | st.integers(0, 2 * LARGEST_ROW).map(lambda size: b"x" * size), max_size=8
)


def size_of(batch: list[StoredEntry]) -> int:
    return sum(len(entry.body) for entry in batch)


def numbers(path: Path) -> list[int]:
    """The number that each row of the store has."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        return [n for (n,) in db.execute("SELECT n FROM entries ORDER BY id")]


def format_of(path: Path) -> Any:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA user_version").fetchone()[0]


@given(st.lists(any_bodies, max_size=4), st.integers(0, 40), st.none() | st.integers(0, 12))
def test_batches_come_apart_as_they_were_packed(batches: list[list[bytes]], after: int, limit: int | None):
    entries = chained(body for batch in batches for body in batch)
    rows, start = [], 0
    for batch in batches:
        part = entries[start : start + len(batch)]
        rows += pack(part, size_of(part))
        start += len(batch)
    lasts = [first - 1 for first, _, _ in rows[1:]] + [len(entries)] * bool(rows)
    begin = sum(last <= after for last in lasts)
    wanted = entries[after:] if limit is None else entries[after : after + limit]
    assert unpack(rows[begin:], after, limit) == wanted


@given(any_bodies)
def test_a_row_of_several_is_never_long(texts: list[bytes]):
    batch = chained(texts)
    rows = pack(batch, size_of(batch))
    firsts = [first for first, _, _ in rows]
    counts = (
        [after - first for first, after in zip(firsts, [*firsts[1:], len(batch) + 1], strict=True)]
        if rows
        else []
    )
    for (_, _, body), count in zip(rows, counts, strict=True):
        assert count == 1 or len(body) < LARGEST_ROW + count


@given(st.binary(max_size=120), st.binary(max_size=120))
def test_a_row_that_somebody_changed_gives_no_entry_that_seems_sound(mark: bytes, body: bytes):
    [(first, packed, text)] = pack(chained([b"a", b"b", b"c"]), 3)
    entries = unpack([(first, mark, text)], 0, None)
    assert entries
    assert all(entry.seq > 1 for entry in unpack([(first, mark, text)], 1, None)), "readers get on"
    if mark != packed:
        with pytest.raises(SessionCorrupt):
            verified("s", entries)
    found = unpack([(first, packed, body)], 0, None)
    assert len(found) == 3


@given(st.binary(max_size=5))
def test_a_row_of_two_that_somebody_changed_gives_two_which_are_not_both_sound(body: bytes):
    [(first, packed, text)] = pack(chained([b"a", b"b"]), 2)
    assert text == b"a\nb"
    entries = unpack([(first, packed, body)], 0, None)
    assert [entry.seq for entry in entries] == [1, 2]
    assert unpack([(first, packed, body)], 1, None) == entries[1:]
    if (body[:1], body[2:]) != (b"a", b"b"):
        with pytest.raises(SessionCorrupt):
            verified("s", entries)


def test_the_entries_of_a_commit_share_a_row_and_a_long_one_has_its_own(tmp_path: Path):
    store = SQLiteStore(tmp_path / "pods.db")
    head = head_of(make(store, "s", "a", "b", "c"))
    head = add(store, "s", head, "d")
    head = add(store, "s", head, "e", "x" * LARGEST_ROW, "f", "g")
    assert numbers(tmp_path / "pods.db") == [1, 4, 5, 6, 7]
    entries = store.read("s")
    assert verified("s", entries) == entries
    assert store.info("s").head == head == head_of(entries)
    for after in range(9):
        for limit in (None, 0, 1, 2, 9):
            wanted = entries[after:] if limit is None else entries[after : after + limit]
            assert store.read("s", after=after, limit=limit) == wanted
    store.close()


def test_a_changed_entry_is_found_though_it_shares_its_row(tmp_path: Path):
    store = SQLiteStore(tmp_path / "pods.db")
    make(store, "s", "a", "b", "c", "d")
    for old, new in ((b"c", b"C"), (b"C", b"longer"), (b"longer", b"")):
        change_entry(tmp_path / "pods.db", 3, old, new)
        with pytest.raises(SessionCorrupt, match="entry 3"):
            verified("s", store.read("s"))
    store.close()


def test_what_is_added_to_a_row_is_found(tmp_path: Path):
    store = SQLiteStore(tmp_path / "pods.db")
    make(store, "s", "a", "b", "c")
    with contextlib.closing(sqlite3.connect(tmp_path / "pods.db")) as db, db:
        db.execute("UPDATE entries SET body = body || ' '")
    with pytest.raises(SessionCorrupt, match="entry 3"):
        verified("s", store.read("s"))
    store.close()


def test_a_long_entry_at_the_end_is_not_read_again_for_what_follows(tmp_path: Path):
    store = SQLiteStore(tmp_path / "pods.db")
    head = head_of(make(store, "s", "a"))
    head = add(store, "s", head, "x" * 1_000_000)
    assert store.read_small("s", after=1, largest=1000) is None
    assert store.read_small("s", after=2, largest=1000) == []
    store.close()


def test_a_file_of_the_first_format_goes_on_in_it(tmp_path: Path):
    store = first_format(tmp_path)
    entries = make(store, "s", "a", "b")
    more = chained(bodies("c", "d", "x" * LARGEST_ROW), after=head_of(entries))
    wait_until_done(store.append("s", head_of(entries), more))
    assert store.read("s") == entries + more
    store.close()
    path = tmp_path / "pods.db"
    assert format_of(path) == 1
    with contextlib.closing(sqlite3.connect(path)) as db:
        found = db.execute("SELECT n, hash, body FROM entries ORDER BY n").fetchall()
    assert [StoredEntry(*row) for row in found] == entries + more, "as the first versions read it"


def test_a_backup_of_the_first_format_in_the_place_of_a_file_goes_on_in_it(tmp_path: Path):
    old = first_format(tmp_path)
    entries = make(old, "s", "a", "b", claim=False)
    old.close()
    path = tmp_path / "pods.db"
    backup = path.rename(tmp_path / "backup.db")
    store = SQLiteStore(path)
    make(store, "t", "a", "b")
    assert (format_of(path), numbers(path)) == (3, [1])
    backup.rename(path)
    with contextlib.suppress(Exception):  # the commit that notices it is refused
        store.append("t", head_of(entries), chained(bodies("c"), after=head_of(entries)))
    add(store, "s", head_of(entries), "c", "d")
    assert (format_of(path), numbers(path)) == (1, [1, 2, 3, 4])
    store.close()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE sessions SET pod = x'ff', created_at = 'once', parent = 5, parent_kind = 'x', parent_seq = 'y'",
        "UPDATE sessions SET generation = 'many', holder = x'01', holder_pod = 5, held_since = 'a'",
        "UPDATE entries SET at = 'soon'",
    ],
)
def test_values_of_other_types_in_a_row_of_a_session_hide_nothing(tmp_path, change):
    """As a bit that a disk has turned makes them."""
    store = SQLiteStore(tmp_path / "pods.db")
    entries = make(store, "s", "one", "two", claim=False)
    with contextlib.closing(sqlite3.connect(store.path)) as db, db:
        db.execute(change)
    assert [each.session_id for each in store.sessions()] == ["s"]
    assert list(check(store)) == []
    assert store.claim("s", "pod").session_id == "s"
    add(store, "s", head_of(entries), "three")
    store.close()


@pytest.mark.parametrize("column", ["n = 'x'", "n = x'00'"])
def test_values_of_other_types_in_a_row_of_entries_are_a_break_in_the_chain(tmp_path, column):
    store = SQLiteStore(tmp_path / "pods.db")
    head = head_of(make(store, "s", "one", claim=False))
    head = add(store, "s", head, "two")
    store.release("s")
    store.flush()
    with contextlib.closing(sqlite3.connect(store.path)) as db, db:
        db.execute(f"UPDATE entries SET {column} WHERE n = 2")
    [finding] = check(store)
    assert (finding.kind, finding.seq, finding.sound) == ("broken", 2, 1)
    with pytest.raises(SessionCorrupt, match="damaged at entry 2"):
        store.read("s", after=1)
    store.close()
