"""What a helper process imports before it forks pods: all that they have in common, used once and frozen."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
from collections.abc import Sequence
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import Any

from actors.pod_process.main import main
from actors.runtime.children.program import FUNCTIONS
from actors.runtime.loop import forget_closed_loops
from actors.system import PodSystem
from protocol.manifest import PodManifest

#: By what name a helper is asked for a pod.
POD = "polypod-pod"
#: What most pods come to import.
_MODULES = (
    "actors.compaction.compose",
    "actors.compaction.cut",
    "actors.llm.anthropic.client",
    "actors.llm.http.client",
    "actors.llm.http.presets",
    "actors.llm.openai.client",
    "actors.pod.history.task_tools",
    "actors.pod.session.past_events",
    "actors.sessions.jsonl.store",
    "actors.tools.builtin",
    "polypod.loading",
)


def prepare() -> None:
    """Have this process fork pods: they share with it what it has imported and built."""
    for name in _MODULES:
        import_module(name)
    with TemporaryDirectory(prefix="polypod-") as folder:
        asyncio.run(_use_once(f"sqlite:{folder}/pods.db"))
    FUNCTIONS[POD.encode()] = _be_pod
    forget_closed_loops()
    gc.collect()
    gc.freeze()


async def _use_once(store: str) -> None:
    """Build what is built by the first who needs it."""
    async with PodSystem(store) as system:
        pod = await system.spawn(PodManifest.of(name="warm"))
        await pod.run("warm up")


def _be_pod(paths: Sequence[bytes]) -> None:
    keep: Any = os.register_at_fork
    if hasattr(keep, "kept"):  # what the launcher has put in its place
        os.register_at_fork = keep.register
        for hooks in keep.kept:
            os.register_at_fork(**hooks)
    random.seed()
    sys.path[:] = map(os.fsdecode, paths)
    gc.enable()
    main()
