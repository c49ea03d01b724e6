"""Finds and restores sessions of a SQLite store whose rows somebody has deleted while their entries are still
there.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import NamedTuple

from msgspec.structs import astuple

from actors.sessions.head import lost_id
from actors.sessions.sqlite.read import Queries, claim_row
from protocol.entries import Parent, SessionOpened
from protocol.errors import WireError
from protocol.wire import decode_entry

_BRING_BACK = """
INSERT INTO sessions (id, uuid, pod, created_at, parent_kind, parent, parent_hash, parent_seq, generation)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)
"""


class Orphan(NamedTuple):
    """What the deleted row of a session contained, as far as the session's first entry shows."""

    row: int
    pod: str = "unknown"
    created_at: float = 0.0
    parent: Parent | None = None


def orphans(db: sqlite3.Connection, queries: Queries) -> dict[str, Orphan]:
    """The sessions without a row, by their ids; a ``lost_id`` where another has it or nobody knows it."""
    found: dict[str, Orphan] = {}

    def is_taken(session_id: str) -> bool:
        return session_id in found or claim_row(db, session_id) is not None

    for row in queries.lost(db):
        if not isinstance(row, int):
            continue
        name, orphan = None, Orphan(row)
        with suppress(WireError, TypeError):
            for entry in queries.entries(db, row, 0, 1):
                opened = decode_entry(entry.body)
                if isinstance(opened, SessionOpened):
                    orphan = Orphan(row, opened.pod, opened.at, opened.parent)
                    if not is_taken(opened.session_id):
                        name = opened.session_id
        found[name or lost_id(row, is_taken)] = orphan
    return found


def bring_back(db: sqlite3.Connection, session_id: str, orphan: Orphan) -> None:
    """Create the session's row again, within a transaction. Nobody holds it."""
    _, pod, created_at, parent = orphan
    of_parent = (None,) * 4 if parent is None else astuple(parent)
    db.execute(_BRING_BACK, (orphan.row, session_id, pod, created_at, *of_parent))
