"""``ToolSpec``: a tool as a model sees it, and whether its calls may run beside others."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

#: ``read_only`` calls run together, ``exclusive`` is a barrier, ``interactive`` holds the one channel
#: to a person.
Concurrency = Literal["read_only", "exclusive", "interactive"]


class ToolSpec(Struct, frozen=True, omit_defaults=True):
    """A tool as a model sees it; ``input_schema`` is the JSON Schema of its arguments. No model is shown the
    ``concurrency``; a client may use it to offer only tools without effects.
    """

    name: str
    description: str
    input_schema: dict[str, Any]
    concurrency: Concurrency = "exclusive"
