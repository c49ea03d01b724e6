"""The parts of the offline model: words in, intents, plans, and words chosen from texts."""

from actors.runtime.on_demand import on_demand

__getattr__ = on_demand(__name__, {"OfflineClient": "actors.llm.offline.client"})
