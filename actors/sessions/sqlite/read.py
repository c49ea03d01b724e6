"""What is asked of a SQLite store: its entries, sessions and holders, as plain queries."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import chain
from typing import Any, NamedTuple

from actors.sessions.head import SHORT
from actors.sessions.sqlite.rows import HASH, LARGEST_ROW, MARK, unpack
from actors.sessions.store import SessionInfo
from protocol.entries import Head, Parent, StoredEntry

# Of a row, which has the number of its first entry: the number of its last one, and the hash of that.
_LAST_N = f"n + max(length(hash) / {MARK}, 1) - 1"
_LAST_HASH = f"substr(hash, -{HASH})"
# Where reading begins: at the row in which entry ``:first`` stands.
_ROWS = f"""
WHERE session = :row AND n >= ifnull(
    (SELECT iif({_LAST_N} < :first, n + 1, n) FROM entries
     WHERE session = :row AND n <= :first ORDER BY n DESC LIMIT 1),
    0
)
ORDER BY n
"""  # noqa: S608 - made of our own words
# Cast, since what somebody changed by hand comes as text, and has to come out to be found.
_ENTRIES = f"SELECT n, CAST(hash AS BLOB), CAST(body AS BLOB) FROM entries {_ROWS}"  # noqa: S608 - our own words
# The length of a body stands before it, so that one which is too long is not read.
_SMALL = f"""
SELECT n, CAST(hash AS BLOB), CASE WHEN length(body) <= :largest THEN CAST(body AS BLOB) END
FROM entries {_ROWS}
"""  # noqa: S608 - made of our own words
_HEAD = f"SELECT {_LAST_N}, {_LAST_HASH} FROM entries WHERE session = ? ORDER BY n DESC LIMIT 1"  # noqa: S608
_ENTRY = f"""
SELECT {_LAST_N} = :n AND {_LAST_HASH} = :hash FROM entries
WHERE session = :row AND n <= :n ORDER BY n DESC LIMIT 1
"""  # noqa: S608 - made of our own words
_CLAIM = "SELECT id, generation, holder, holder_pod, held_since FROM sessions WHERE uuid = ?"

# A session's row never changes with its entries, which would cost pages on every commit; the head is
# looked up, one step in the index. Entry ids rise with time, so they show which session changed last.
_INFO = f"""
SELECT s.uuid, s.pod, s.created_at, e.at, {_LAST_N}, {_LAST_HASH},
    s.parent_kind, s.parent, s.parent_hash, s.parent_seq
FROM sessions s JOIN entries e
ON e.id = (SELECT id FROM entries WHERE session = s.id ORDER BY n DESC LIMIT 1)
"""  # noqa: S608 - made of our own words
_ONE = _INFO + "WHERE s.uuid = ?"
_ALL = _INFO + "ORDER BY e.id DESC LIMIT ?"
# Which they are is found in the indexes alone; of a pod with many sessions only those few rows are read.
_OF_POD = f"""
{_INFO}
WHERE s.id IN (
    SELECT id FROM sessions WHERE pod = :pod
    ORDER BY (SELECT id FROM entries WHERE session = sessions.id ORDER BY n DESC LIMIT 1) DESC LIMIT :limit
)
ORDER BY e.id DESC
"""  # noqa: S608 - made of our own words
# A range of the index, since LIKE takes no index here; no id goes on with the last of all characters.
_BEGINNING = """
SELECT id FROM (
    SELECT id FROM sessions WHERE uuid >= :beginning AND uuid < :beginning || char(1114111)
    ORDER BY uuid LIMIT :limit
)
"""
# A walk through that index (20 ms for 100,000 sessions), spared where what was given is too long.
_SHORT = f"""
SELECT id FROM (
    SELECT id FROM sessions
    WHERE length(:beginning) <= {SHORT}
    AND substr(substr(uuid, -{SHORT}), 1, length(:beginning)) = :beginning
    ORDER BY uuid LIMIT :limit
)
"""  # noqa: S608 - made of our own words
_MATCHING = (
    f"{_INFO} WHERE s.id IN ({_BEGINNING} UNION {_SHORT}) ORDER BY s.uuid <> :beginning, s.uuid LIMIT :limit"
)
_CHILDREN = _INFO + "WHERE s.parent = ? ORDER BY s.id"
_RECENT = f"""{_INFO}
WHERE s.id IN (
    SELECT session FROM (SELECT session, id FROM entries ORDER BY id DESC LIMIT :looked_at)
    WHERE :pod IS NULL OR (SELECT pod FROM sessions WHERE id = session) = :pod
    GROUP BY session ORDER BY max(id) DESC LIMIT :limit
)
ORDER BY e.id DESC
"""  # noqa: S608 - made of our own words


class ClaimRow(NamedTuple):
    """Who a session's row says holds it."""

    row: int
    generation: int
    holder: str | None
    pod: str | None
    since: float | None


def entries(db: sqlite3.Connection, row: int, after: int, limit: int | None) -> list[StoredEntry]:
    """The entries of a session with numbers above ``after``."""
    with closing(db.execute(_ENTRIES, {"row": row, "first": after + 1})) as found:
        return unpack(found, after, limit)


def small_entries(
    db: sqlite3.Connection, row: int, after: int, limit: int | None, largest: int
) -> list[StoredEntry] | None:
    """The same, up to the first with more than ``largest`` bytes; None where that is the very next one."""
    values = {"row": row, "first": after + 1, "largest": max(largest, 2 * LARGEST_ROW)}
    with closing(db.execute(_SMALL, values)) as rows:
        first = rows.fetchone()
        if first is None:
            return []
        return unpack(chain((first,), rows), after, limit) or None


def head(db: sqlite3.Connection, row: int) -> Head:
    """The end of a session."""
    return Head(*db.execute(_HEAD, (row,)).fetchone())


def has_entry(db: sqlite3.Connection, row: int, head: Head) -> bool:
    """Whether a session has that entry, at the end of what one commit has added."""
    found = db.execute(_ENTRY, {"row": row, "n": head.seq, "hash": head.hash}).fetchone()
    return found is not None and found[0] == 1


def claim_row(db: sqlite3.Connection, session_id: str) -> ClaimRow | None:
    """The claim on a session; None where there is no such session."""
    found = db.execute(_CLAIM, (session_id,)).fetchone()
    return found and ClaimRow(*found)


def info(db: sqlite3.Connection, session_id: str) -> SessionInfo | None:
    """What is known of one session; None where there is none."""
    found = db.execute(_ONE, (session_id,)).fetchone()
    return found and _info(found)


def sessions(db: sqlite3.Connection, pod: str | None, limit: int | None) -> list[SessionInfo]:
    """The sessions (of one pod), the last changed one first."""
    if limit is not None:
        # Most often the last rows show the last sessions, without a look at all there are.
        for looked_at in 8 * limit, 1000 + 20 * limit:
            recent = _infos(db, _RECENT, {"looked_at": looked_at, "pod": pod, "limit": limit})
            if len(recent) == limit:
                return recent
    most = -1 if limit is None else limit
    return _infos(db, _ALL, (most,)) if pod is None else _infos(db, _OF_POD, {"pod": pod, "limit": most})


def matching(db: sqlite3.Connection, beginning: str, limit: int) -> list[SessionInfo]:
    """The sessions whose ids or short ids begin so, in order of their ids."""
    return _infos(db, _MATCHING, {"beginning": beginning, "limit": limit})


def successors(db: sqlite3.Connection, session_id: str) -> list[SessionInfo]:
    """The sessions whose parent this one is, oldest first."""
    return _infos(db, _CHILDREN, (session_id,))


def _infos(
    db: sqlite3.Connection,
    query: str,
    values: tuple[str | int | None, ...] | dict[str, str | int | None],
) -> list[SessionInfo]:
    return list(map(_info, db.execute(query, values).fetchall()))


def _info(found: tuple[Any, ...]) -> SessionInfo:
    uuid, pod, created_at, at, n, digest, kind, parent, parent_hash, parent_seq = found
    return SessionInfo(
        uuid,
        pod,
        created_at,
        at,
        Head(n, digest),
        None if parent is None else Parent(kind, parent, parent_hash, parent_seq),
    )
