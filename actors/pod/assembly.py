"""Assembly: a manifest made live; with ``system.py`` the only place that names concrete classes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Raw

from actors.llm.base import LLMClient
from actors.pod.budget import Budget
from actors.pod.parts import PodParts
from actors.runtime.bus import Bus
from actors.sessions.head import SessionHead, new_session_id
from actors.sessions.log import SessionLog
from actors.sessions.store import SessionStore
from protocol.manifest import BudgetSection, PodManifest
from protocol.wire import encode


class Assembly:
    """Makes the parts of pods for one system, shared where pods have the same manifest."""

    def __init__(self, store: SessionStore, bus: Bus) -> None:
        self._store = store
        self._bus = bus
        self._last: tuple[PodManifest, Raw] | None = None

    def parts(
        self,
        manifest: PodManifest,
        name: str,
        client: LLMClient | None,
        tools: Iterable[Any],
    ) -> PodParts:
        """The parts of one pod. Raises ManifestError, ModelError, BudgetError."""
        assert client is not None
        return PodParts(
            name=name,
            manifest=manifest,
            model=getattr(client, "model", type(client).__name__),
            client=client,
            specs=(),
            run_batch=None,
            bus=self._bus,
            log=SessionLog(self._store, name, SessionHead(new_session_id()), self._bus.publish),
            store=self._store,
            opening=self._opening(manifest),
            budget=None if manifest.budget == _NO_BUDGET else Budget(manifest.budget),
        )

    def _opening(self, manifest: PodManifest) -> Raw:
        """The manifest's bytes, encoded once for all pods that are made from it."""
        if self._last is None or self._last[0] is not manifest:
            self._last = (manifest, Raw(encode(manifest)))
        return self._last[1]


_NO_BUDGET = BudgetSection()
