"""The SQLite store: all sessions in one file, which many processes may use at once."""

from actors.runtime.on_demand import on_demand

__getattr__, __dir__ = on_demand(__name__, {"SQLiteStore": "actors.sessions.sqlite.store"})
