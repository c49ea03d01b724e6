"""SQL that finds the rows of a session by *runs*, because not every row is in an index.

A run is a row and those that follow it with consecutive ids in the same session, up to ``LONGEST``. If others
write in between, a row is a run by itself. Since the third format the index of sessions and numbers has only
the first row of each run, so a session that works alone rarely writes a page of it. In earlier formats it has
each row. The SQL here is for both.
"""

from __future__ import annotations

from actors.sessions.sqlite.rows import HASH, MARK

#: The first format with runs.
FIRST_WITH_RUNS = 3
#: The most rows in a run: no run continues after an id that is divisible by this.
LONGEST = 8

#: The number and the hash of a row's last entry; the row itself has the number of its first one.
LAST_N = f"n + max(length(hash) / {MARK}, 1) - 1"
LAST_HASH = f"substr(hash, -{HASH})"

#: Greater than all ids and numbers.
_MAX = "9223372036854775807"


def run_at(column: str, session: str, number: str = _MAX, *, runs: bool) -> str:
    """A column of the first row of a session's last run that begins at ``number`` or before.

    Runs do not overlap, so the ids of these rows are ordered like those of the sessions' last rows.
    """
    begins = "AND follows = 0" if runs else ""
    return f"""(
        SELECT {column} FROM entries WHERE session = {session} AND n <= {number} {begins}
        ORDER BY n DESC LIMIT 1
    )"""


def row_at(session: str, number: str = _MAX, *, runs: bool) -> str:
    """The id of a session's last row that begins at ``number`` or before; NULL if there is none."""
    run = run_at("id", session, number, runs=runs)
    if not runs:
        return run
    return f"""(
        SELECT id FROM entries WHERE id >= {run} AND id < {_end_of(run)} AND n <= {number}
        ORDER BY id DESC LIMIT 1
    )"""


def rows(*, runs: bool) -> str:
    """The FROM clause and order for the rows ``e`` of the session ``:row``, from the one with the entry
    ``:first`` on.
    """
    at = row_at(":row", ":first", runs=runs)
    if not runs:
        begin = f"(SELECT iif({LAST_N} < :first, n + 1, n) FROM entries WHERE id = {at})"
        return f"FROM entries e WHERE e.session = :row AND e.n >= ifnull({begin}, 0) ORDER BY e.n"
    begin = f"(SELECT iif({LAST_N} < :first, id + 1, id) FROM entries WHERE id = {at})"
    first = run_at("n", ":row", ":first", runs=True)
    # Rows of a run come by their ids, since SQLite scans a range of a table in that order. An ORDER BY would
    # have it sort them, which takes a sixth of the time of reading.
    return f"""
    FROM entries r CROSS JOIN entries e ON e.id >= max(r.id, ifnull({begin}, 0)) AND e.id < {_end_of("r.id")}
    WHERE r.session = :row AND r.follows = 0 AND r.n >= ifnull({first}, 0)
    ORDER BY r.n
    """


def _end_of(run: str) -> str:
    """The id after those of the run that begins at the id ``run``."""
    found = f"SELECT id FROM entries WHERE id > {run} AND follows = 0 ORDER BY id LIMIT 1"
    return f"ifnull(({found}), {_MAX})"
