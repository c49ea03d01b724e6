"""The JSON-lines store: one file a session."""

from actors.runtime.on_demand import on_demand

__getattr__ = on_demand(__name__, {"JsonLinesStore": "actors.sessions.jsonl.store"})
