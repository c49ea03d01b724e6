"""What a pod is made of, as assembly hands it over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Raw

from actors.compaction.policy import Limits
from actors.llm.base import LLMClient
from actors.pod.budget import Budget, Totals
from actors.pod.calls import ToolRunner
from actors.pod.lasting import LastingMemory
from actors.pod.tasks import TaskDesk
from actors.runtime.bus import Bus
from actors.sessions.log import SessionLog
from actors.sessions.store import SessionStore
from protocol.manifest import PodManifest
from protocol.usage import Usage


class PodParts:
    """Everything a pod works with; most of it is shared with other pods of the same make."""

    __slots__ = (
        "budget",
        "bus",
        "client",
        "limits",
        "log",
        "manifest",
        "memory",
        "model",
        "name",
        "on_conflict",
        "opening",
        "price",
        "store",
        "tasks",
        "tools",
        "totals",
    )

    def __init__(
        self,
        *,
        name: str,
        manifest: PodManifest,
        model: str,
        client: LLMClient,
        tools: ToolRunner,
        bus: Bus,
        log: SessionLog,
        store: SessionStore,
        opening: Raw,
        memory: LastingMemory,
        price: Callable[[Usage | None], float | None],
        totals: Totals,
        budget: Budget | None,
        limits: Limits,
        tasks: TaskDesk | None = None,
        on_conflict: Literal["fork", "refuse"] = "fork",
    ) -> None:
        self.name = name
        self.manifest = manifest
        self.model = model
        self.client = client
        self.tools = tools
        self.bus = bus
        self.log = log
        self.store = store
        #: The manifest as the session's first entry keeps it.
        self.opening = opening
        #: The folder of what outlives sessions, shared by all pods of the system.
        self.memory = memory
        #: What a call cost in US dollars, None where nobody knows.
        self.price = price
        #: Where the whole system's calls are summed.
        self.totals = totals
        self.budget = budget
        self.limits = limits
        #: The pod's task list, None where it has no tools for one.
        self.tasks = tasks
        self.on_conflict = on_conflict
