"""OpenAI's chat completions: requests, answers, and the client of servers that speak them."""

from actors.runtime.on_demand import on_demand

__getattr__, __dir__ = on_demand(__name__, {"OpenAIClient": "actors.llm.openai.client"})
