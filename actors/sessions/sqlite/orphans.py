"""Sessions of a SQLite store whose rows somebody has deleted, while their entries are there."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import NamedTuple

from msgspec.structs import astuple

from actors.sessions.sqlite.read import Queries, claim_row
from protocol.entries import Parent, SessionOpened
from protocol.errors import WireError
from protocol.wire import decode_entry

_BRING_BACK = """
INSERT INTO sessions (id, uuid, pod, created_at, parent_kind, parent, parent_hash, parent_seq, generation)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)
"""


class Orphan(NamedTuple):
    """What a session's row held, as far as its first entry says so."""

    row: int
    pod: str = "unknown"
    created_at: float = 0.0
    parent: Parent | None = None


def orphans(db: sqlite3.Connection, queries: Queries) -> dict[str, Orphan]:
    """The sessions without a row, by their ids; ``lost-NUMBER`` where another has it or nobody knows it."""
    found: dict[str, Orphan] = {}
    for row in queries.lost(db):
        if not isinstance(row, int):
            continue
        name, orphan = f"lost-{row}", Orphan(row)
        with suppress(WireError, TypeError):
            for entry in queries.entries(db, row, 0, 1):
                opened = decode_entry(entry.body)
                if isinstance(opened, SessionOpened):
                    orphan = Orphan(row, opened.pod, opened.at, opened.parent)
                    if opened.session_id not in found and claim_row(db, opened.session_id) is None:
                        name = opened.session_id
        found[name] = orphan
    return found


def bring_back(db: sqlite3.Connection, session_id: str, orphan: Orphan) -> None:
    """Make its row anew, within a transaction: nobody holds it."""
    _, pod, created_at, parent = orphan
    of_parent = (None,) * 4 if parent is None else astuple(parent)
    db.execute(_BRING_BACK, (orphan.row, session_id, pod, created_at, *of_parent))
