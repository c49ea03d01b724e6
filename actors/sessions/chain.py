"""The hash chain of a session: how an entry is linked to the one before, and how a log is checked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from protocol.entries import GENESIS, Head, StoredEntry
from protocol.errors import SessionCorrupt

#: A hash of no bytes yet: a copy of one takes less than to have OpenSSL look it up by its name.
new_hash = hashlib.sha256().copy


def link(prev_hash: bytes, body: bytes) -> bytes:
    """The hash of an entry with these bytes behind the entry with that hash."""
    hashing = new_hash()
    hashing.update(prev_hash)
    hashing.update(body)
    return hashing.digest()


def chained(bodies: Iterable[bytes], *, after: Head | None = None, first_seq: int = 1) -> list[StoredEntry]:
    """Bodies as entries behind ``after``; without it as the first of a session, from ``first_seq`` on."""
    last, digest = (first_seq - 1, GENESIS) if after is None else (after.seq, after.hash)
    entries = []
    for seq, body in enumerate(bodies, last + 1):
        digest = link(digest, body)
        entries.append(StoredEntry(seq, digest, body))
    return entries


def head_of(entries: Sequence[StoredEntry]) -> Head:
    """Where a log ends that consists of (or ends in) these entries; there must be one."""
    last = entries[-1]
    return Head(last.seq, last.hash)


def verified(
    session_id: str, entries: Sequence[StoredEntry], prev: Head | None = None
) -> Sequence[StoredEntry]:
    """``entries``, checked: numbers without a gap, each hash over the one before and the bytes.

    ``prev`` is the entry before the first of them (the last one of the slice read before), None at
    the start of a session. Raises SessionCorrupt with the number of the first entry that is not sound.
    """
    broken = first_break(entries, prev)
    if broken is None:
        return entries
    raise SessionCorrupt(session_id, *broken)


def first_break(entries: Sequence[StoredEntry], prev: Head | None = None) -> tuple[int, str] | None:
    """The number of the first entry that is not sound and why, or None; see ``verified``."""
    if not entries:
        return None
    expected, digest = (entries[0].seq, GENESIS) if prev is None else (prev.seq + 1, prev.hash)
    for entry in entries:
        if entry.seq != expected:
            return expected, f"entry {expected} is missing; the next one there is {entry.seq}"
        hashing = new_hash()  # written out, since a long history is read for this alone
        hashing.update(digest)
        hashing.update(entry.body)
        digest = hashing.digest()
        if digest != entry.hash:
            return expected, "its hash does not fit its bytes and the entry before it"
        expected += 1
    return None
