"""The memory store: sessions that end with the process."""

from actors.runtime.on_demand import on_demand

__getattr__, __dir__ = on_demand(__name__, {"MemoryStore": "actors.sessions.memory.store"})
