"""A pod's tool calls: run under its scope, each with a context of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.tools.base import Toolbox, ToolContext
from actors.tools.schedule import OnResult, run_batch
from actors.tools.scope import resolved
from protocol.items import ToolCall, ToolResult
from protocol.manifest import PodManifest
from protocol.tools import ToolSpec

NOT_RUN = "not run: the run ended before this call was started"

#: Told when a call begins.
Starting = Callable[[ToolCall], None]
#: Told, from any thread, what a call says of its progress.
Progress = Callable[[ToolCall, str], None]
#: Told, on the loop, what came of a call that had been given up.
Late = Callable[[ToolCall, ToolResult], None]


class ToolRunner:
    """The tools of pods of one manifest, and how a batch of their calls is run."""

    __slots__ = ("_extras", "_parallel", "_pwd", "_scope", "keeps_tasks", "toolbox")

    def __init__(
        self,
        toolbox: Toolbox,
        manifest: PodManifest,
        extras: dict[str, Any] | None = None,
        *,
        keeps_tasks: bool = False,
    ) -> None:
        self.toolbox = toolbox
        self._pwd = Path(manifest.pod.pwd)
        self._scope = resolved(manifest.scope)
        self._parallel = manifest.worker.parallel_tools
        self._extras = extras or {}
        #: Whether any of the tools keeps a task list.
        self.keeps_tasks = keeps_tasks

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """What the model is told of the tools."""
        return self.toolbox.specs

    def context(self, pod: str) -> ToolContext:
        """The context of a call outside of a batch, for the helper agents of ``pod``."""
        return ToolContext(pwd=self._pwd, scope=self._scope, pod=pod, extras=self._extras)

    async def run(
        self,
        pod: str,
        deps: Any,
        calls: list[ToolCall],
        starting: Starting,
        ending: OnResult,
        progress: Progress,
        late: Late,
    ) -> None:
        """Run a batch of calls of ``pod``, with ``deps`` for its tools; cancelling ends it and tells every
        tool that is at work.
        """

        def context(call: ToolCall) -> ToolContext:
            starting(call)
            return ToolContext(
                pwd=self._pwd,
                scope=self._scope,
                pod=pod,
                call_id=call.id,
                progress=lambda text: progress(call, text),
                extras=self._extras,
                late=lambda result: late(call, result),
                deps=deps,
            )

        await run_batch(self.toolbox, calls, context, parallel=self._parallel, on_result=ending)
