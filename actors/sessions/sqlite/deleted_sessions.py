"""Remembers deleted sessions that were continued after a compaction, so that older ones still lead to the
newest.
"""

from __future__ import annotations

import sqlite3

from actors.sessions.sqlite.errors import lacks_table

# Created with the first of them; earlier versions do not have the table, and ignore it.
_TABLE = "CREATE TABLE IF NOT EXISTS gone_sessions (uuid TEXT PRIMARY KEY, parent TEXT NOT NULL)"
_INDEX = "CREATE INDEX IF NOT EXISTS gone_by_parent ON gone_sessions (parent)"
_PARENT = "SELECT parent FROM sessions WHERE uuid = ? AND parent_kind = 'compacted_from'"
_CHILD = "SELECT 1 FROM sessions WHERE parent = ? AND parent_kind = 'compacted_from' LIMIT 1"
_GONE = "SELECT uuid FROM gone_sessions WHERE parent = ?"


def note_gone(db: sqlite3.Connection, session_id: str) -> None:
    """Note what a session was compacted from, if another continues it. Called within the transaction that
    deletes it.
    """
    parent = db.execute(_PARENT, (session_id,)).fetchone()
    if parent is not None and (db.execute(_CHILD, (session_id,)).fetchone() or _gone_after(db, session_id)):
        db.execute(_TABLE)
        db.execute(_INDEX)
        db.execute("INSERT OR REPLACE INTO gone_sessions VALUES (?, ?)", (session_id, *parent))


def line_of(db: sqlite3.Connection, session_id: str) -> tuple[str, ...]:
    """A session, and the deleted ones that continued it, directly or one after the other."""
    line = [session_id]
    for earlier in line:  # the list grows meanwhile
        line += [each for each in _gone_after(db, earlier) if each not in line]
    return tuple(line)


def _gone_after(db: sqlite3.Connection, session_id: str) -> list[str]:
    try:
        return [each for (each,) in db.execute(_GONE, (session_id,))]
    except sqlite3.OperationalError as error:
        if not lacks_table(error):
            raise
        return []
