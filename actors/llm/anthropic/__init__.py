"""Servers that speak Anthropic's messages."""

from actors.runtime.on_demand import on_demand

__getattr__, __dir__ = on_demand(__name__, {"AnthropicClient": "actors.llm.anthropic.client"})
