"""The JSON-lines store: one file a session."""

from typing import Any


def __getattr__(name: str) -> Any:
    """``JsonLinesStore``, imported when it is first asked for."""
    if name == "JsonLinesStore":
        from actors.sessions.jsonl.store import JsonLinesStore  # noqa: PLC0415 - paid for by who uses it

        return JsonLinesStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
