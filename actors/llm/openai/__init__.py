"""Servers that speak OpenAI's chat completions."""

from actors.runtime.on_demand import on_demand

__getattr__ = on_demand(__name__, {"OpenAIClient": "actors.llm.openai.client"})
