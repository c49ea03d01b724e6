"""The hash chain: pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from protocol.entries import StoredEntry
from protocol.errors import SessionCorrupt


def verified(session_id: str, entries: Iterable[StoredEntry], prev: bytes) -> None:
    """Raise SessionCorrupt at the first entry that does not follow from the one before."""
    for entry in entries:
        if hashlib.sha256(prev + entry.body).digest() != entry.hash:
            raise SessionCorrupt(session_id, entry.seq, "its hash does not fit its bytes")
        prev = entry.hash
