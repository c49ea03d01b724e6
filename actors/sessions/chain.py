"""The hash chain of a session: links each entry to the one before, and verifies a log."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from protocol.entries import GENESIS, Head, StoredEntry
from protocol.errors import SessionCorrupt

#: A copy of an empty hash is faster than a look-up by name in OpenSSL.
new_hash = hashlib.sha256().copy


def link(prev_hash: bytes, body: bytes) -> bytes:
    """The hash of an entry with these bytes, after an entry with the hash ``prev_hash``."""
    hashing = new_hash()
    hashing.update(prev_hash)
    hashing.update(body)
    return hashing.digest()


def chained(bodies: Iterable[bytes], *, after: Head | None = None, first_seq: int = 1) -> list[StoredEntry]:
    """Chain bodies as entries after ``after``, or without it as the first ones of a session, numbered from
    ``first_seq``.
    """
    last, digest = (first_seq - 1, GENESIS) if after is None else (after.seq, after.hash)
    entries = []
    for seq, body in enumerate(bodies, last + 1):
        digest = link(digest, body)
        entries.append(StoredEntry(seq, digest, body))
    return entries


def head_of(entries: Sequence[StoredEntry]) -> Head:
    """The last entry of these, of which there must be one, as a head."""
    last = entries[-1]
    return Head(last.seq, last.hash)


def verified(
    session_id: str, entries: Sequence[StoredEntry], prev: Head | None = None
) -> Sequence[StoredEntry]:
    """Check ``entries``, and return them: numbers without a gap, each hash over the one before and the bytes.

    ``prev`` is the entry before the first of them (the last of the previous slice), None at the start of a
    session. Raises SessionCorrupt with the number of the first entry that is not sound.
    """
    broken = first_break(entries, prev)
    if broken is None:
        return entries
    raise SessionCorrupt(session_id, *broken)


def first_break(entries: Sequence[StoredEntry], prev: Head | None = None) -> tuple[int, str] | None:
    """The number of the first entry that is not sound, and why, or None; see ``verified``."""
    if not entries:
        return None
    expected, digest = (entries[0].seq, GENESIS) if prev is None else (prev.seq + 1, prev.hash)
    for entry in entries:
        if entry.seq != expected:
            return expected, f"entry {expected} is missing; the next existing one is {entry.seq}"
        hashing = new_hash()  # ``link`` inlined, since reading a long history depends on it
        hashing.update(digest)
        hashing.update(entry.body)
        digest = hashing.digest()
        if digest != entry.hash:
            return expected, "its hash does not match its bytes and the entry before it"
        expected += 1
    return None
