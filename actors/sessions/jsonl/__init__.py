"""The JSON-lines store: one readable file for each session."""

from actors.runtime.on_demand import on_demand

__getattr__, __dir__ = on_demand(__name__, {"JsonLinesStore": "actors.sessions.jsonl.store"})
