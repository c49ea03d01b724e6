"""Keeps answers to calls that wait for approval, in a table of the SQLite store that is created with the
first answer.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection

import msgspec

from actors.sessions.sqlite.errors import lacks_table
from protocol.approval import ApprovalAnswer
from protocol.text import UNDECODABLE

# Stores of earlier versions do not have it, and those versions ignore it. Numbers are never reused, because
# readers ask for the answers after the last one that they have seen.
_TABLE = """
CREATE TABLE IF NOT EXISTS approval_answers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    approval TEXT NOT NULL,
    session TEXT NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (approval, session)
)
"""
#: The approximate size of an answer, in bytes.
SIZE = 300
_PUT = "INSERT OR IGNORE INTO approval_answers (approval, session, body) VALUES (?, ?, ?)"
_BEHIND = "SELECT id, body FROM approval_answers WHERE id > ? ORDER BY id"
# Only if the files are those that were opened, which a transaction checks by itself.
_PUT_ALONE = f"{_PUT.partition(' VALUES')[0]} SELECT ?, ?, ? WHERE undisturbed()"


def put_alone(db: sqlite3.Connection, answer: ApprovalAnswer) -> bool:
    """Add an answer by a single statement. False if that cannot be done, without a reason: ``put`` finds it
    out.
    """
    return db.execute(_PUT_ALONE, _values(answer)).rowcount == 1


def put(db: sqlite3.Connection, answer: ApprovalAnswer) -> bool:
    """Add an answer, within a transaction. False if there is one already."""
    values = _values(answer)
    try:
        return db.execute(_PUT, values).rowcount == 1
    except sqlite3.OperationalError as error:
        if not lacks_table(error):
            raise
    db.execute(_TABLE)
    return db.execute(_PUT, values).rowcount == 1


def _values(answer: ApprovalAnswer) -> tuple[str, str, bytes]:
    return answer.approval_id, answer.session_id, msgspec.json.encode(answer)


def among(db: sqlite3.Connection, approval_ids: Collection[str]) -> list[ApprovalAnswer]:
    """The answers to these approvals."""
    marks = ", ".join("?" * len(approval_ids))
    query = f"SELECT id, body FROM approval_answers WHERE approval IN ({marks}) ORDER BY id"  # noqa: S608
    return _decoded(_rows(db, query, *approval_ids))


def since(db: sqlite3.Connection, mark: object) -> tuple[object, list[ApprovalAnswer]]:
    """The answers after the row ``mark``, and the last row; with None only the last row. All answers, if an
    older file has replaced the one that had that row.
    """
    if not isinstance(mark, int):
        return _last(db), []
    # The last number may be higher than any row's: an answer with it was refused or deleted.
    if not (rows := _rows(db, _BEHIND, mark)) and (last := _last(db)) < mark:
        mark, rows = last, _rows(db, _BEHIND, 0)
    return (rows[-1][0] if rows else mark), _decoded(rows)


def _last(db: sqlite3.Connection) -> int:
    """The number of the last answer that was ever added."""
    rows = _rows(db, "SELECT seq, NULL FROM sqlite_sequence WHERE name = 'approval_answers'")
    return rows[0][0] if rows else 0


def forget(db: sqlite3.Connection, session_id: str) -> None:
    """Remove the answers of a session, within a transaction."""
    _rows(db, "DELETE FROM approval_answers WHERE session = ?", session_id)


def _rows(db: sqlite3.Connection, statement: str, *values: object) -> list[tuple[int, bytes]]:
    """The result of a statement; empty if there is no table yet."""
    try:
        return db.execute(statement, values).fetchall()
    except sqlite3.OperationalError as error:
        if not lacks_table(error):
            raise
        return []


def _decoded(rows: list[tuple[int, bytes]]) -> list[ApprovalAnswer]:
    """The answers in these rows; damaged ones are skipped."""
    found: list[ApprovalAnswer] = []
    for _, body in rows:
        with contextlib.suppress(*UNDECODABLE, TypeError):
            found.append(msgspec.json.decode(body, type=ApprovalAnswer))
    return found
