"""``ToolFactory``: makes the tools that manifests ask for, and holds what the tools of a system share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from actors.pod.runs.tool_runner import ToolRunner
from actors.runtime.latest import Latest
from actors.runtime.launchers import Launchers
from actors.runtime.user_folders import configuration_path, runtime_path, state_path
from actors.sessions.head import SessionHead
from actors.sessions.store import SessionStore
from actors.tools.base import Tool, ToolContext
from actors.tools.extras import AGENTS, ALLOW_PRIVATE, COMMANDS, LAUNCHER, MEMORY, PODS, TASKS
from actors.tools.scope import fence
from actors.tools.source import ToolSource, is_source
from actors.tools.thread_pool import ToolThreads
from actors.tools.toolbox import Toolbox
from protocol.errors import ToolDefinitionError, ToolError
from protocol.manifest import PodManifest
from protocol.scope import Rule, Scope

if TYPE_CHECKING:
    from actors.pod.delegation.delegation import Delegation
    from actors.pod.delegation.tools import DelegationTools
    from actors.pod.history.task_list import TaskListReader, TaskStore
    from actors.pod.sourced_tools import SourcedTools
    from actors.tools.confinement.sandbox import Sandbox
    from actors.tools.hooks import Hooks
    from actors.tools.mcp.connections import OwnConnections
    from actors.tools.mcp.source import Connections, McpServers
    from actors.tools.open_sources import OpenSources
    from actors.tools.shell.pod_commands import PodCommands

#: Built-in tools by which pods run commands.
_COMMANDS = frozenset({"shell", "shell_output", "shell_stop"})


class ToolFactory:
    """Makes tools for the pods of one system.

    Pods of one manifest share their tools, so a tool finds what belongs to its current pod by that pod's
    name.
    """

    def __init__(
        self,
        store: SessionStore,
        outputs: Path | None,
        memory: Path,
        launchers: Launchers,
        threads: ToolThreads | None,
        grace: float,
    ) -> None:
        """Tools are kept away from the files of ``store``; ``outputs`` is where long results are kept whole,
        ``memory`` the folder of notes. ``threads`` is None for the pool that all systems of the process
        share.
        """
        self._store = store
        self._outputs = outputs
        self._memory = memory
        self._launchers = launchers
        self._threads = threads
        self._grace = grace
        #: What no tool touches, whatever the scope; None until there is a pod with tools.
        self._fence: tuple[Rule, ...] | None = None
        self._protected: list[Path] = []
        #: What starts agents for pods; None while there is no swarm.
        self.spawn_agent: Callable[..., Awaitable[str]] | None = None
        #: The sources of tools that pods were given; None while there is none.
        self._sources: OpenSources | None = None
        #: The MCP servers that manifests name; None while there is none.
        self._mcp: McpServers | None = None
        #: Those that this process has connections to.
        self._own_connections: OwnConnections | None = None
        #: How servers are reached where not by connections of this process.
        self.connections: Connections | None = None
        #: The tools of the manifest that was asked for last.
        self._runner = Latest(self._make_runner)
        # Each of these belongs to its pod.
        self._delegations: WeakValueDictionary[str, Delegation] = WeakValueDictionary()
        self._commands: WeakValueDictionary[str, PodCommands] = WeakValueDictionary()
        self._task_lists: WeakValueDictionary[str, TaskListReader] = WeakValueDictionary()

    def memory_of(self, manifest: PodManifest) -> Path:
        """The folder of a pod's notes: its own, or the system's."""
        return self._memory if manifest.memory.folder is None else Path(manifest.memory.folder)

    def protect(self, place: Path) -> None:
        """Keep the tools of all pods made from now on out of a place, whatever their scope."""
        self._protected.append(place)
        self._fence = None
        self._runner = Latest(self._make_runner)

    # -- the tools of a manifest -----------------------------------------------------------------

    def make(
        self, manifest: PodManifest, given: tuple[Any, ...], hooks: tuple[Any, ...]
    ) -> tuple[ToolRunner, SourcedTools | None]:
        """The plain tools of a manifest and those its pods were given; and the same with those of sources,
        None if there is no source. Raises ManifestError, ToolDefinitionError, and InvalidInput for something
        that is not a hook.
        """
        tools = (*_own(manifest), *self._mcp_sources(manifest), *given)
        sources = [each for each in tools if is_source(each)]
        plain = tools if not sources else tuple(each for each in tools if not is_source(each))
        runner = self._runner(manifest, plain, hooks)
        return runner, self._make_sourced(runner, sources) if sources else None

    def _make_runner(
        self, manifest: PodManifest, tools: tuple[Any, ...], hooks: tuple[Any, ...]
    ) -> ToolRunner:
        chosen: Iterable[Any] = (*_builtin(manifest.tools.builtin), *tools)
        toolbox = Toolbox(
            chosen,
            threads=self._threads,
            output_cap=manifest.tools.output_cap,
            keep_in=self._outputs,
        )
        extras = {
            TASKS: self._task_list,
            MEMORY: partial(_search_memory, self.memory_of(manifest)),
            LAUNCHER: self._launchers.of_programs,
            COMMANDS: self._commands.get,
            ALLOW_PRIVATE: manifest.fetch.allow_private,
            PODS: self._sub_agents,
            AGENTS: self._spawn_agent,
        }
        delegates = _delegates(manifest)
        return ToolRunner(
            toolbox,
            manifest,
            extras,
            _hooks(hooks, toolbox.threads) if hooks else None,
            keeps_tasks=_keeps_tasks(toolbox),
            runs_commands=not _COMMANDS.isdisjoint(manifest.tools.builtin),
            scope_of=self._scope_now if delegates else None,
            note_call=self._note_call if delegates else None,
            fence=self._own_places(),
        )

    def _own_places(self) -> tuple[Rule, ...]:
        """Rules that keep every tool away from polypod's own files, and from the files that configure it."""
        if self._fence is None:
            own = state_path(), configuration_path(), runtime_path()
            places = *own, *self._store.files, *self._protected
            self._fence = fence(place for place in places if place is not None)
        return self._fence

    def _mcp_sources(self, manifest: PodManifest) -> Iterable[ToolSource]:
        if not manifest.tools.mcp:
            return ()
        if self._mcp is None:
            from actors.tools.mcp.source import McpServers  # noqa: PLC0415 - paid for by pods that have any

            self._mcp = McpServers(self.connections or self.own_connections())
        return self._mcp.sources(manifest.tools.mcp, manifest.pod.pwd)

    def own_connections(self) -> OwnConnections:
        """The MCP servers of this process, which its pods in processes of their own use too."""
        if self._own_connections is None:
            from actors.tools.mcp.connections import OwnConnections  # noqa: PLC0415 - the same

            logs = None if self._outputs is None else self._outputs / "mcp"
            self._own_connections = OwnConnections(self._launchers.of_programs, logs)
        return self._own_connections

    def _make_sourced(self, plain: ToolRunner, sources: Iterable[ToolSource]) -> SourcedTools:
        from actors.pod.sourced_tools import SourcedTools  # noqa: PLC0415 - paid for by pods that have any
        from actors.tools.open_sources import OpenSources  # noqa: PLC0415 - the same

        if self._sources is None:
            self._sources = OpenSources(self._grace)
        return SourcedTools(plain, map(self._sources.shared, sources))

    async def close_sources(self) -> None:
        """Close the tool sources that are still open: no pod uses them any more."""
        if self._sources is not None:
            await self._sources.aclose()

    # -- what tools work with that belongs to one pod --------------------------------------------

    def keep_delegation(self, name: str, delegation: Delegation) -> None:
        """Register the sub-agents of the pod of that name for its tools."""
        self._delegations[name] = delegation

    def make_commands(self, name: str, manifest: PodManifest, runner: ToolRunner) -> PodCommands:
        """The commands of one pod."""
        from actors.tools.shell.pod_commands import PodCommands  # noqa: PLC0415 - paid for by pods with any

        def make_sandbox() -> Sandbox:
            from actors.tools.confinement.sandbox import Sandbox  # noqa: PLC0415 - paid for by whoever runs commands

            return Sandbox(manifest.sandbox, partial(runner.scope_for, name), self._launchers.of_programs)

        made = self._commands[name] = PodCommands(make_sandbox)
        return made

    def make_task_list(self, name: str, head: SessionHead) -> TaskListReader:
        """The task list of one pod."""
        from actors.pod.history.task_list import TaskListReader  # noqa: PLC0415 - paid for by pods that keep one

        reader = self._task_lists[name] = TaskListReader(head)
        return reader

    def _task_list(self, pod: str) -> TaskStore:
        return self._task_lists[pod].tasks()

    def _sub_agents(self, pod: str) -> DelegationTools | None:
        """What a pod's model can do with its sub-agents; None if it can have none."""
        from actors.pod.delegation.tools import DelegationTools  # noqa: PLC0415 - the same

        delegation = self._delegations.get(pod)
        return None if delegation is None else DelegationTools(delegation)

    def _scope_now(self, pod: str) -> Scope:
        """The scope of a pod that may have given some of it away."""
        return self._delegations[pod].scope.left

    def _note_call(self, pod: str, tool: str, ctx: ToolContext) -> None:
        self._delegations[pod].scope.note_call(tool, ctx)

    async def _spawn_agent(self, *asked: Any) -> str:
        """Start an agent for a pod. Raises ToolError."""
        if self.spawn_agent is None:
            raise ToolError("this program has no swarm in which to start agents")
        return await self.spawn_agent(*asked)


def add_tools(
    runner: ToolRunner, sources: SourcedTools | None, more: tuple[Any, ...]
) -> tuple[ToolRunner, SourcedTools | None]:
    """The plain tools with ``more`` after them, and the same for the tools with sources. Raises
    ToolDefinitionError.
    """
    if more:
        made = (each if isinstance(each, Tool) else Tool(each) for each in more)
        runner = runner.with_tools((*runner.toolbox, *made), gone=())
        sources = None if sources is None else sources.with_plain(runner)
    return runner, sources


def _own(manifest: PodManifest) -> Iterable[Any]:
    """The tools, and tool sources, that a manifest names by file and module."""
    if not manifest.tools.modules:
        return ()
    from actors.tools.loading import load_tools  # noqa: PLC0415 - paid for by pods that have any

    try:
        return load_tools(manifest.tools.modules, Path(manifest.pod.pwd))
    except ToolDefinitionError as error:
        raise ToolDefinitionError(f"tools.modules: {error.message}", hint=error.hint) from error


def _builtin(names: tuple[str, ...]) -> Iterable[Tool]:
    if not names:
        return ()
    from actors.pod.history.task_tools import TASK_TOOLS  # noqa: PLC0415 - the same
    from actors.tools.builtin import builtin  # noqa: PLC0415 - paid for by pods that have any

    return builtin(names, {"tasks": TASK_TOOLS})


def _hooks(objects: tuple[Any, ...], threads: ToolThreads) -> Hooks:
    from actors.tools.hooks import Hooks  # noqa: PLC0415 - paid for by pods that have any

    return Hooks(objects, threads)


def _keeps_tasks(toolbox: Toolbox) -> bool:
    """Whether any of the tools keeps a task list."""
    if not toolbox.specs:
        return False
    from actors.pod.history.task_tools import TASK_TOOLS  # noqa: PLC0415 - paid for by pods that have any tools

    return any(each in TASK_TOOLS for each in toolbox)


def _delegates(manifest: PodManifest) -> bool:
    """Whether pods of that manifest can have sub-agents."""
    if not manifest.tools.builtin:
        return False
    from actors.pod.delegation.grants import DELEGATES  # noqa: PLC0415 - paid for by pods that have any built-in tools

    return not DELEGATES.isdisjoint(manifest.tools.builtin)


def _search_memory(folder: Path, query: str, **options: Any) -> list[Any]:
    from actors.memory.note_index import search  # noqa: PLC0415 - paid for by whoever searches
    from actors.memory.notes_folder import NotesFolder  # noqa: PLC0415 - the same

    return search(NotesFolder(folder), query, **options)
