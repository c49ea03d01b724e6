"""What a pod works with: what pods of one manifest share, and what belongs to one pod."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Raw, Struct
from msgspec.structs import replace

from actors.compaction.policy import Limits
from actors.llm.base import LLMClient
from actors.llm.retry import RetryPolicy
from actors.pod.accounts.budget import Budget, Totals
from actors.pod.approvals.answer_watch import AnswerWatch
from actors.pod.runs.tool_runner import ToolRunner
from actors.runtime.events.bus import Bus
from actors.sessions.log import SessionLog
from actors.sessions.store import SessionStore
from actors.tools.base import ToolContext
from protocol.manifest import PodManifest
from protocol.model_settings import ModelSettings
from protocol.usage import Usage

if TYPE_CHECKING:
    from actors.pod.delegation.delegation import Delegation
    from actors.pod.history.task_list import TaskListReader
    from actors.pod.runs.own_options import OwnOptions
    from actors.pod.sourced_tools import SourcedTools
    from actors.tools.shell.pod_commands import PodCommands


class PodTemplate(Struct, frozen=True, eq=False):
    """What pods of one manifest, client and tools share."""

    manifest: PodManifest
    #: What the client's model is called in events.
    model: str
    client: LLMClient
    #: Those that are always there.
    tools: ToolRunner
    #: These and those of sources; None where there is no source.
    sources: SourcedTools | None
    bus: Bus
    store: SessionStore
    #: The manifest as the session's first entry keeps it.
    opening: Raw
    #: The folder of what outlives sessions, shared by all pods of the system.
    memory: Path
    #: What a call cost in US dollars, None where nobody knows.
    price: Callable[[Usage | None], float | None]
    #: What a call of any model cost, by its name.
    price_of: Callable[[str, Usage | None], float | None]
    #: Whether the client asks several models, and counts each of its calls.
    asks_tiers: bool
    #: Where the whole system's calls are summed.
    totals: Totals
    limits: Limits
    #: Whether memory is extracted after a run.
    extracts_after_run: bool
    on_conflict: Literal["fork", "refuse"]
    #: Where answers of other processes to calls that wait for approval come from.
    answers: AnswerWatch
    #: Whether a call may need a person's word, or be denied by a rule.
    asks: bool
    #: What people should know of the limits: those that cannot be meant.
    warnings: tuple[str, ...]
    #: The same of the rules for approval: those that can match no call.
    mistakes: tuple[str, ...]
    #: Whether a pod that fails is started again.
    supervised: bool
    #: How long a step that was cancelled may take to end, in seconds.
    grace: float
    #: How long a stop and a compaction wait for memory jobs to finish, in seconds.
    memory_grace: float
    #: How long the end of a pod waits for a store that does not answer, in seconds.
    store_grace: float
    #: Whether the loop comes to its end though the system was not left.
    closing: Callable[[], bool]
    #: How often a request is sent again.
    retry: RetryPolicy
    #: Makes the same for one run with what that was given of its own. Raises as ``PodSystem.spawn``.
    vary: Callable[[PodTemplate, OwnOptions], PodTemplate]
    #: Whether the client was given, and is not the manifest's.
    brings_client: bool
    #: The most tokens of one answer; None where nobody says.
    max_tokens: int | None
    #: The other model settings, besides temperature; None where none is set.
    settings: ModelSettings | None

    def with_prompt(self, prompt: str | None) -> PodTemplate:
        """The template with another system prompt, if one is given."""
        if prompt is None:
            return self
        manifest = self.manifest
        return replace(self, manifest=manifest.replace(pod=replace(manifest.pod, system_prompt=prompt)))


#: What makes a run's system prompt, or a coroutine of it; it is handed the context of tools.
MakePrompt = Callable[..., Any]


class Given(Struct, frozen=True, eq=False):
    """What a pod is given beside its manifest; its sub-agents inherit it."""

    #: Of a pod that is a process its client, tools and hooks are where they are imported from.
    client: LLMClient | str | None
    tools: tuple[Any, ...]
    deps: Any
    hooks: tuple[Any, ...]
    make_prompt: MakePrompt | None = None


class PodResources(Struct, frozen=True, eq=False):
    """Everything one pod works with: its template, and what is its own."""

    template: PodTemplate
    name: str
    log: SessionLog
    budget: Budget | None
    #: The pod's task list, None where it has no tools for one.
    tasks: TaskListReader | None
    #: What the pod's tools are handed, unless a run brings its own.
    deps: Any = None
    #: What has the pod's sub-agents; None where it can have none.
    delegation: Delegation | None = None
    #: The name of the pod whose sub-agent this one is.
    parent: str | None = None
    #: The pod's commands, also in the background; None where it can have none.
    commands: PodCommands | None = None
    #: What makes the system prompt of each of its runs; None where that is the manifest's.
    make_prompt: MakePrompt | None = None

    def with_prompt(self, own: OwnOptions | None) -> OwnOptions:
        """The options of a run, with the function that makes the pod's prompts unless the run has a prompt of
        its own.
        """
        from actors.pod.runs.own_options import OwnOptions  # noqa: PLC0415 - paid for by pods that have it

        pods = OwnOptions(prompt=self.make_prompt)
        return pods if own is None else own.over(pods)

    def deps_for(self, own: Any) -> Any:
        """The ``deps`` for the tools of a run: ``own``, or else the pod's."""
        return self.deps if own is None else own

    def context(self, own: Any) -> ToolContext:
        """The context for hooks outside of a call; ``own`` is the run's ``deps``."""
        return self.template.tools.context(self.name, self.deps_for(own))
