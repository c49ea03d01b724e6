"""The SQLite store: one file for all sessions."""

from actors.runtime.on_demand import on_demand

__getattr__ = on_demand(__name__, {"SQLiteStore": "actors.sessions.sqlite.store"})
