"""The queries of a SQLite store: its entries, sessions and holders."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

from actors.sessions.head import SHORT
from actors.sessions.sqlite.deleted_sessions import line_of
from actors.sessions.sqlite.rows import LARGEST_ROW, unpack
from actors.sessions.sqlite.runs import FIRST_WITH_RUNS, LAST_HASH, LAST_N, row_at, rows, run_at
from actors.sessions.store import SessionInfo
from protocol.entries import Head, Parent, StoredEntry

# With CASTs, since damage may have changed the types.
_CLAIM = """
SELECT id, CAST(generation AS INTEGER), CAST(holder AS TEXT), CAST(holder_pod AS TEXT),
    CAST(held_since AS REAL)
FROM sessions WHERE uuid = ?
"""
# A range in the index, because LIKE uses no index here; no id continues with the last of all characters.
_BEGINNING = """
SELECT id FROM (
    SELECT id FROM sessions WHERE uuid >= :beginning AND uuid < :beginning || char(1114111)
    ORDER BY uuid LIMIT :limit
)
"""
# A walk through that index (20 ms for 100,000 sessions), skipped if the given text is too long.
_SHORT = f"""
SELECT id FROM (
    SELECT id FROM sessions
    WHERE length(:beginning) <= {SHORT}
    AND substr(substr(uuid, -{SHORT}), 1, length(:beginning)) = :beginning
    ORDER BY uuid LIMIT :limit
)
"""

#: The types of a session row's first columns, and how the session may have come from its parent.
_TYPES = [str, str, float, float, int, bytes]
_KINDS = frozenset({"forked_from", "compacted_from"})


class ClaimRow(NamedTuple):
    """Who holds a session, according to its row."""

    row: int
    generation: int
    holder: str | None
    pod: str | None
    since: float | None


class Queries:
    """Queries on the sessions and entries of a file. ``runs`` says that its rows are found by runs."""

    def __init__(self, *, runs: bool) -> None:
        found = rows(runs=runs)
        # With CASTs: what somebody has changed by hand is text, and must be returned to be detected.
        self._entries = f"SELECT e.n, CAST(e.hash AS BLOB), CAST(ifnull(e.body, '') AS BLOB) {found}"
        # The length comes before the body, so that a body which is too long is not read.
        self._small = f"""
        SELECT e.n, CAST(e.hash AS BLOB), CASE WHEN length(e.body) <= :largest THEN CAST(e.body AS BLOB) END
        {found}
        """
        self._head = f"SELECT {LAST_N}, {LAST_HASH}, id FROM entries WHERE id = {row_at(':row', runs=runs)}"
        self._has = f"""
        SELECT {LAST_N} = :n AND {LAST_HASH} = :hash FROM entries WHERE id = {row_at(":row", ":n", runs=runs)}
        """
        # A session's row does not change with its entries, which would cost pages on every commit. The head
        # is looked up with one step in the index. Entry ids rise with time, so they show which session
        # changed last.
        info = f"""
        SELECT s.uuid, s.pod, s.created_at, e.at, {LAST_N}, {LAST_HASH},
            s.parent_kind, s.parent, s.parent_hash, s.parent_seq
        FROM sessions s JOIN entries e ON e.id = {row_at("s.id", runs=runs)}
        """
        self._one = f"{info} WHERE s.uuid = ?"
        self._all = f"{info} ORDER BY e.id DESC LIMIT ?"
        # The newest sessions are found in the indexes alone; only their rows are read.
        self._of_pod = f"""
        {info}
        WHERE s.id IN (
            SELECT s.id FROM sessions s WHERE s.pod = :pod
            ORDER BY {run_at("id", "s.id", runs=runs)} DESC LIMIT :limit
        )
        ORDER BY e.id DESC
        """
        self._matching = f"""
        {info} WHERE s.id IN ({_BEGINNING} UNION {_SHORT}) ORDER BY s.uuid <> :beginning, s.uuid LIMIT :limit
        """
        # Look-ups in each other's index, which take half the time of comparing the whole indexes.
        self._emptied = f"""
        SELECT uuid FROM sessions s
        WHERE NOT EXISTS (SELECT 1 FROM entries WHERE session = s.id {"AND follows = 0" if runs else ""})
        ORDER BY id
        """
        self._lost = f"""
        SELECT DISTINCT session FROM entries
        WHERE {"follows = 0 AND" if runs else ""} session NOT IN (SELECT id FROM sessions)
        """
        self._children = f"{info} WHERE s.parent IN (%s) ORDER BY s.id"
        self._recent = f"""
        {info}
        WHERE s.id IN (
            SELECT session FROM (SELECT session, id FROM entries ORDER BY id DESC LIMIT :looked_at)
            WHERE :pod IS NULL OR (SELECT pod FROM sessions WHERE id = session) = :pod
            GROUP BY session ORDER BY max(id) DESC LIMIT :limit
        )
        ORDER BY e.id DESC
        """

    def entries(self, db: sqlite3.Connection, row: int, after: int, limit: int | None) -> list[StoredEntry]:
        """The entries of a session with numbers above ``after``."""
        with closing(db.execute(self._entries, {"row": row, "first": after + 1})) as found:
            return unpack(found, after, limit)

    def small_entries(
        self, db: sqlite3.Connection, row: int, after: int, limit: int | None, largest: int
    ) -> list[StoredEntry] | None:
        """The entries of a session with numbers above ``after``, up to the first with more than ``largest``
        bytes; None if that is the next one.
        """
        values = {"row": row, "first": after + 1, "largest": max(largest, 2 * LARGEST_ROW)}
        with closing(db.execute(self._small, values)) as found:
            first = found.fetchone()
            if first is None:
                return []
            return unpack(chain((first,), found), after, limit) or None

    def head(self, db: sqlite3.Connection, row: int) -> tuple[Head, int] | None:
        """The end of a session, and the id of the row that contains it; None if the session has no entries,
        because somebody has deleted them.
        """
        found = db.execute(self._head, {"row": row}).fetchone()
        return found and (Head(found[0], found[1]), found[2])

    def has_entry(self, db: sqlite3.Connection, row: int, head: Head) -> bool:
        """Whether a session has that entry, at the end of what one commit has added."""
        found = db.execute(self._has, {"row": row, "n": head.seq, "hash": head.hash}).fetchone()
        return found is not None and found[0] == 1

    def info(self, db: sqlite3.Connection, session_id: str) -> SessionInfo | None:
        """What is known of one session; None if it does not exist."""
        found = db.execute(self._one, (session_id,)).fetchone()
        return found and _info(found)

    def sessions(self, db: sqlite3.Connection, pod: str | None, limit: int | None) -> list[SessionInfo]:
        """The sessions (of one pod), the last changed first."""
        if limit is not None:
            # Usually the last rows show the last sessions, without looking at all of them.
            for looked_at in 8 * limit, 1000 + 20 * limit:
                recent = _infos(db, self._recent, {"looked_at": looked_at, "pod": pod, "limit": limit})
                if len(recent) == limit:
                    return recent
        most = -1 if limit is None else limit
        if pod is None:
            return _infos(db, self._all, (most,))
        return _infos(db, self._of_pod, {"pod": pod, "limit": most})

    def matching(self, db: sqlite3.Connection, beginning: str, limit: int) -> list[SessionInfo]:
        """The sessions whose ids or short ids begin so, ordered by id."""
        return _infos(db, self._matching, {"beginning": beginning, "limit": limit})

    def emptied(self, db: sqlite3.Connection) -> list[str]:
        """The sessions without entries, oldest first: somebody has deleted those. No listing shows them."""
        return [session_id for (session_id,) in db.execute(self._emptied)]

    def lost(self, db: sqlite3.Connection) -> list[object]:
        """The numbers of sessions whose rows somebody has deleted while their entries exist. Damage may have
        given them any type.
        """
        return [row for (row,) in db.execute(self._lost)]

    def successors(self, db: sqlite3.Connection, session_id: str) -> list[SessionInfo]:
        """The sessions whose parent is this session, or a deleted one of its line, oldest first."""
        line = line_of(db, session_id)
        return _infos(db, self._children % ", ".join("?" * len(line)), line)


@cache
def queries(format_: int) -> Queries:
    """The queries for a file of that format."""
    return Queries(runs=format_ >= FIRST_WITH_RUNS)


def claim_row(db: sqlite3.Connection, session_id: str) -> ClaimRow | None:
    """The claim on a session; None if the session does not exist."""
    found = db.execute(_CLAIM, (session_id,)).fetchone()
    return found and ClaimRow(*found)


def _infos(
    db: sqlite3.Connection,
    query: str,
    values: tuple[str | int | None, ...] | dict[str, str | int | None],
) -> list[SessionInfo]:
    return list(map(_info, db.execute(query, values).fetchall()))


def _info(found: tuple[Any, ...]) -> SessionInfo:
    uuid, pod, created_at, at, n, digest, kind, parent, parent_hash, parent_seq = found
    if list(map(type, found[:6])) != _TYPES:  # a row whose types are damaged does not hide its session
        uuid, pod = str(uuid), str(pod)
        created_at, at = (each if isinstance(each, float) else 0.0 for each in (created_at, at))
        n, digest = n if isinstance(n, int) else 0, digest if isinstance(digest, bytes) else b""
    if parent is not None and list(map(type, found[7:])) != [str, str, int]:
        parent = None
    return SessionInfo(
        uuid,
        pod,
        created_at,
        at,
        Head(n, digest),
        None if parent is None or kind not in _KINDS else Parent(kind, parent, parent_hash, parent_seq),
    )
