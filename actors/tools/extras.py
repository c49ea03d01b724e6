"""Keys of ``ToolContext.extras``: what a pod's assembly hands to built-in tools."""

from __future__ import annotations

#: What searches lasting memory: ``Search`` of ``tools/memory.py``.
MEMORY = "memory"
