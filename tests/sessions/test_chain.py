"""The hash chain: any change to a log is found, at the first entry that it touches."""

from __future__ import annotations

import hashlib
import tracemalloc

import pytest
from effort import times
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.sessions.chain import chained, first_break, head_of, link, verified
from protocol.entries import GENESIS, StoredEntry
from protocol.errors import SessionCorrupt

BODIES = st.lists(st.binary(max_size=20), min_size=1, max_size=20)


def test_a_hash_is_the_sha256_of_the_hash_before_and_the_bytes():
    assert link(GENESIS, b"{}") == hashlib.sha256(bytes(32) + b"{}").digest()
    first, second = chained([b"a", b"b"], first_seq=5)
    assert first == StoredEntry(5, link(GENESIS, b"a"), b"a")
    assert second == StoredEntry(6, link(first.hash, b"b"), b"b")


@settings(deadline=None, max_examples=times(20))
@given(BODIES, st.integers(1, 1000), st.data())
def test_a_sound_log_passes_whole_and_in_slices(bodies, first, data):
    entries = chained(bodies, first_seq=first)
    cut = data.draw(st.integers(1, len(entries)))
    assert verified("s", entries) == entries
    assert verified("s", entries[cut:], head_of(entries[:cut])) == entries[cut:]
    assert chained(bodies[cut:], after=head_of(entries[:cut])) == entries[cut:]


@settings(deadline=None, max_examples=times(20))
@given(BODIES, st.data())
def test_a_changed_entry_is_found_by_its_number(bodies, data):
    entries = chained(bodies)
    at = data.draw(st.integers(0, len(entries) - 1))
    seq, digest, body = entries[at].seq, entries[at].hash, entries[at].body
    entries[at] = data.draw(
        st.sampled_from([StoredEntry(seq, digest, body + b"x"), StoredEntry(seq, bytes(32), body)])
    )
    with pytest.raises(SessionCorrupt, match="session s is damaged at entry") as caught:
        verified("s", entries)
    assert caught.value.seq == seq


@settings(deadline=None, max_examples=times(20))
@given(BODIES.filter(lambda bodies: len(bodies) > 2), st.data())
def test_a_missing_entry_is_found_by_its_number(bodies, data):
    entries = chained(bodies)
    at = data.draw(st.integers(1, len(entries) - 2))
    del entries[at]
    with pytest.raises(SessionCorrupt, match="is missing") as caught:
        verified("s", entries)
    assert caught.value.seq == at + 1


def test_a_log_that_lost_its_first_entry_is_not_sound():
    with pytest.raises(SessionCorrupt):
        verified("s", chained([b"a", b"b"])[1:])


def test_nothing_at_all_is_sound():
    assert verified("s", []) == []


@pytest.mark.parametrize("size", [0, 2047, 2048, 1 << 16])
def test_a_hash_is_that_of_the_hash_before_and_the_bytes_whatever_their_length(size: int) -> None:
    body = b"x" * size
    assert link(GENESIS, body) == hashlib.sha256(GENESIS + body).digest()


def test_a_huge_entry_is_hashed_without_a_copy_of_it() -> None:
    """Copying it held the loop for longer than hashing it."""
    body = b"x" * (8 << 20)
    [entry] = chained([body])
    tracemalloc.start()
    try:
        assert link(GENESIS, body) == entry.hash
        assert first_break([entry]) is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
