"""What a pod is made of, as assembly hands it over."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from msgspec import Raw

from actors.llm.base import LLMClient
from actors.pod.budget import Budget
from actors.runtime.bus import Bus
from actors.sessions.log import SessionLog
from actors.sessions.store import SessionStore
from protocol.items import ToolCall, ToolResult
from protocol.manifest import PodManifest
from protocol.tools import ToolSpec

Starting = Callable[[ToolCall], None]
Ending = Callable[[int, ToolResult, float | None], None]


class PodParts:
    """Everything a pod works with; most of it is shared with other pods of the same make."""

    __slots__ = (
        "budget",
        "bus",
        "client",
        "log",
        "manifest",
        "model",
        "name",
        "opening",
        "run_batch",
        "specs",
        "store",
    )

    def __init__(
        self,
        *,
        name: str,
        manifest: PodManifest,
        model: str,
        client: LLMClient,
        specs: tuple[ToolSpec, ...],
        run_batch: Callable[[list[ToolCall], Starting, Ending], Coroutine[Any, Any, None]],
        bus: Bus,
        log: SessionLog,
        store: SessionStore,
        opening: Raw,
        budget: Budget | None,
    ) -> None:
        self.name = name
        self.manifest = manifest
        self.model = model
        self.client = client
        self.specs = specs
        self.run_batch = run_batch
        self.bus = bus
        self.log = log
        self.store = store
        #: The manifest as the session's first entry keeps it.
        self.opening = opening
        self.budget = budget
