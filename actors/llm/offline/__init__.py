"""The parts of the offline model: words in, intents, plans, and words chosen from texts."""

from typing import Any


def __getattr__(name: str) -> Any:
    """``OfflineClient``, imported when it is first asked for."""
    if name == "OfflineClient":
        from actors.llm.offline.client import OfflineClient  # noqa: PLC0415 - paid for by who uses it

        return OfflineClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
