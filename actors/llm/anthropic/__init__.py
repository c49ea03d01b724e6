"""Servers that speak Anthropic's messages."""

from typing import Any


def __getattr__(name: str) -> Any:
    """``AnthropicClient``, imported when it is first asked for."""
    if name == "AnthropicClient":
        from actors.llm.anthropic.client import AnthropicClient  # noqa: PLC0415 - paid for by who uses it

        return AnthropicClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
