"""The SQLite store: one file for all sessions."""

from typing import Any


def __getattr__(name: str) -> Any:
    """``SQLiteStore``, imported when it is first asked for."""
    if name == "SQLiteStore":
        from actors.sessions.sqlite.store import SQLiteStore  # noqa: PLC0415 - paid for by who uses it

        return SQLiteStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
