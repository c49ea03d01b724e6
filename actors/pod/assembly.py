"""Assembly: a manifest made live; with ``system.py`` the only place that names concrete classes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from msgspec import Raw

from actors.compaction.policy import Limits
from actors.llm.base import LLMClient
from actors.pod.budget import Budget
from actors.pod.calls import ToolRunner
from actors.pod.models import Models, label
from actors.pod.parts import PodParts
from actors.runtime.bus import Bus
from actors.sessions.head import SessionHead, new_session_id
from actors.sessions.log import SessionLog
from actors.sessions.store import SessionStore
from actors.tools.base import Tool, Toolbox
from protocol.manifest import BudgetSection, PodManifest
from protocol.wire import encode

_NO_BUDGET = BudgetSection()


class Assembly:
    """Makes the parts of pods for one system; pods of the same manifest share what can be shared."""

    def __init__(
        self, store: SessionStore, bus: Bus, outputs: Path | None, on_conflict: Literal["fork", "refuse"]
    ) -> None:
        self._store = store
        self._bus = bus
        self._outputs = outputs
        self._on_conflict = on_conflict
        self.models = Models()
        self._opening: tuple[PodManifest, Raw] | None = None
        self._limits: tuple[PodManifest, Limits] | None = None
        self._tools: tuple[PodManifest, tuple[Any, ...], ToolRunner] | None = None

    def parts(
        self, manifest: PodManifest, name: str, client: LLMClient | None, tools: tuple[Any, ...]
    ) -> PodParts:
        """The parts of one pod. Raises ManifestError, ModelError, BudgetError, ToolDefinitionError."""
        chosen = self.models.client(manifest.model) if client is None else client
        return PodParts(
            name=name,
            manifest=manifest,
            model=label(manifest.model) if client is None else _name_of(client),
            client=chosen,
            tools=self._runner(manifest, tools),
            bus=self._bus,
            log=SessionLog(self._store, name, SessionHead(new_session_id()), self._bus.publish),
            store=self._store,
            opening=self._opened_with(manifest),
            limits=self._limits_of(manifest),
            on_conflict=self._on_conflict,
            budget=None if manifest.budget == _NO_BUDGET else Budget(manifest.budget),
        )

    def _runner(self, manifest: PodManifest, tools: tuple[Any, ...]) -> ToolRunner:
        last = self._tools
        if last is None or last[0] is not manifest or last[1] != tools:
            chosen: Iterable[Any] = (*_builtin(manifest.tools.builtin), *tools)
            toolbox = Toolbox(chosen, output_cap=manifest.tools.output_cap, keep_in=self._outputs)
            last = self._tools = (manifest, tools, ToolRunner(toolbox, manifest))
        return last[2]

    def _limits_of(self, manifest: PodManifest) -> Limits:
        if self._limits is None or self._limits[0] is not manifest:
            self._limits = (manifest, Limits.of(manifest))
        return self._limits[1]

    def _opened_with(self, manifest: PodManifest) -> Raw:
        """The manifest's bytes, encoded once for all pods that are made from it."""
        if self._opening is None or self._opening[0] is not manifest:
            self._opening = (manifest, Raw(encode(manifest)))
        return self._opening[1]


def _name_of(client: LLMClient) -> str:
    """What a client that was given is called in events."""
    return str(getattr(client, "model", None) or type(client).__name__)


def _builtin(names: tuple[str, ...]) -> Iterable[Tool]:
    if not names:
        return ()
    from actors.tools.builtin import builtin  # noqa: PLC0415 - paid for by pods that have any

    return builtin(names)
