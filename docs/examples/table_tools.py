"""A source of tools: one for each table of a SQLite database, which comes with its table and goes with it."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path
from typing import Any

from polypod import Tool, ToolArgumentsInvalid

MOST_ROWS = 50
PLAIN_NAME = re.compile(r"\w{1,50}", re.ASCII)


class TableTools:
    """Lets models look rows up in the tables of a database: ``spawn(tools=[TableTools("shop.db")])``."""

    def __init__(self, path: str | Path) -> None:
        self.name = f"tables of {Path(path).name}"
        self._url = f"{Path(path).absolute().as_uri()}?mode=ro"
        self._db: sqlite3.Connection | None = None
        self._listed: list[Tool] = []
        self._version: int | None = None

    async def open(self) -> None:
        """Raises sqlite3.OperationalError where there is no such file."""
        db = sqlite3.connect(self._url, uri=True, timeout=0)  # the event loop waits for no writer
        try:
            db.execute("PRAGMA schema_version")
        except BaseException:
            db.close()
            raise
        self._db, self._version = db, None

    def tools(self) -> list[Tool]:
        """The same list until the schema changes, which SQLite counts."""
        assert self._db is not None
        with contextlib.suppress(sqlite3.OperationalError):  # a writer is at it: the list is as it was
            (version,) = self._db.execute("PRAGMA schema_version").fetchone()
            if version != self._version:
                self._listed = [self._tool(*table) for table in self._tables(self._db)]
                self._version = version
        return self._listed

    async def close(self) -> None:
        """Calls have connections of their own."""
        if self._db is not None:
            self._db.close()

    def _tables(self, db: sqlite3.Connection) -> list[tuple[str, list[str]]]:
        """The tables with their columns; those whose names need quotes are left out."""
        query = (
            "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table'"
            " ORDER BY t.name, c.cid"
        )
        tables: dict[str, list[str]] = {}
        for table, column in db.execute(query):
            if PLAIN_NAME.fullmatch(table) and PLAIN_NAME.fullmatch(column):
                tables.setdefault(table, []).append(column)
        return list(tables.items())

    def _tool(self, table: str, columns: list[str]) -> Tool:
        def find_rows(arguments: dict[str, Any]) -> list[dict[str, Any]]:
            """In a thread, so that a slow query holds nobody up."""
            if unknown := arguments.keys() - columns:
                raise ToolArgumentsInvalid(f"{table} has no column {min(unknown)!r}")
            where = " AND ".join(f'"{column}" IS ?' for column in arguments) or "true"
            with contextlib.closing(sqlite3.connect(self._url, uri=True)) as db:
                db.row_factory = sqlite3.Row
                query = f"SELECT * FROM {table} WHERE {where} LIMIT {MOST_ROWS}"
                found = db.execute(query, list(arguments.values()))
                return [dict(row) for row in found]

        return Tool(
            find_rows,
            name=f"find_{table}",
            description=f"Rows of the table {table} by values of its columns, {MOST_ROWS} at most.",
            input_schema={
                "type": "object",
                "properties": {column: {"type": ["string", "number", "null"]} for column in columns},
                "additionalProperties": False,
            },
            concurrency="read_only",
        )
