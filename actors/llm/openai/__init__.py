"""Servers that speak OpenAI's chat completions."""

from typing import Any


def __getattr__(name: str) -> Any:
    """``OpenAIClient``, imported when it is first asked for."""
    if name == "OpenAIClient":
        from actors.llm.openai.client import OpenAIClient  # noqa: PLC0415 - paid for by who uses it

        return OpenAIClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
