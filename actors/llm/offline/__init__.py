"""The offline model: a small deterministic model without a network, which turns plain requests into tool
calls.

Requests are read as intents, and each intent has a plan of calls that ends with an answer.
"""

from actors.runtime.on_demand import on_demand

__getattr__, __dir__ = on_demand(__name__, {"OfflineClient": "actors.llm.offline.client"})
