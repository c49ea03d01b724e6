"""Runs of rows: how the rows of a session are found, though not each of them is in an index.

A run is a row and those that follow it id by id and are of the same session, up to ``LONGEST``; where others
write in between, a row is a run by itself. Since the third format the index of sessions and numbers has only
the first row of each run, so a session that is alone at work seldom writes a page of it. In the formats
before, it has each row. What is here are pieces of SQL, for either.
"""

from __future__ import annotations

from actors.sessions.sqlite.rows import HASH, MARK

#: The first format with runs.
FIRST_WITH_RUNS = 3
#: Rows in a run, at most: no run goes on behind an id that this divides.
LONGEST = 8

#: Of a row, which has the number of its first entry: the number of its last one, and the hash of that.
LAST_N = f"n + max(length(hash) / {MARK}, 1) - 1"
LAST_HASH = f"substr(hash, -{HASH})"

#: Above all ids and numbers.
_MAX = "9223372036854775807"


def run_at(column: str, session: str, number: str = _MAX, *, runs: bool) -> str:
    """That column of the first row of a session's last run that begins with that number or a lower one.

    Runs do not overlap, so the ids of these rows have the order of those of the sessions' last rows.
    """
    begins = "AND follows = 0" if runs else ""
    return f"""(
        SELECT {column} FROM entries WHERE session = {session} AND n <= {number} {begins}
        ORDER BY n DESC LIMIT 1
    )"""


def row_at(session: str, number: str = _MAX, *, runs: bool) -> str:
    """The id of a session's last row that begins with that number or a lower one; NULL without any."""
    run = run_at("id", session, number, runs=runs)
    if not runs:
        return run
    return f"""(
        SELECT id FROM entries WHERE id >= {run} AND id < {_end_of(run)} AND n <= {number}
        ORDER BY id DESC LIMIT 1
    )"""


def rows(*, runs: bool) -> str:
    """From where, and in which order, the rows ``e`` of the session ``:row`` come, beginning with the one in
    which the entry ``:first`` stands.
    """
    at = row_at(":row", ":first", runs=runs)
    if not runs:
        begin = f"(SELECT iif({LAST_N} < :first, n + 1, n) FROM entries WHERE id = {at})"
        return f"FROM entries e WHERE e.session = :row AND e.n >= ifnull({begin}, 0) ORDER BY e.n"
    begin = f"(SELECT iif({LAST_N} < :first, id + 1, id) FROM entries WHERE id = {at})"
    first = run_at("n", ":row", ":first", runs=True)
    # Those of a run come by their ids, since SQLite walks through a range of a table that way; to ask for it
    # would have it sort them, which takes a sixth of the time that reading does.
    return f"""
    FROM entries r CROSS JOIN entries e ON e.id >= max(r.id, ifnull({begin}, 0)) AND e.id < {_end_of("r.id")}
    WHERE r.session = :row AND r.follows = 0 AND r.n >= ifnull({first}, 0)
    ORDER BY r.n
    """


def _end_of(run: str) -> str:
    """The id behind those of the run that begins at the id ``run``."""
    found = f"SELECT id FROM entries WHERE id > {run} AND follows = 0 ORDER BY id LIMIT 1"
    return f"ifnull(({found}), {_MAX})"
