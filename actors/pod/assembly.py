"""``Assembly``: builds what a pod works with from its manifest; with ``system.py`` the only place that
names concrete classes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakValueDictionary

from msgspec import Raw
from msgspec.structs import replace

from actors.compaction.policy import Limits
from actors.llm.base import LLMClient, models_of
from actors.llm.prices import Prices, cost
from actors.llm.retry import RetryPolicy
from actors.pod.accounts.budget import Budget, SharingBudget, Totals, set_aside
from actors.pod.approvals.answer_watch import AnswerWatch
from actors.pod.models import Models, label, priced_as
from actors.pod.resources import Given, PodResources, PodTemplate
from actors.pod.runs.tool_runner import ToolRunner
from actors.runtime.bus import Bus
from actors.runtime.latest import Latest
from actors.runtime.user_folders import configuration_path, runtime_path, state_path
from actors.sessions.head import SessionHead, new_session_id
from actors.sessions.log import SessionLog
from actors.sessions.store import SessionStore
from actors.tools.base import Tool, ToolContext
from actors.tools.extras import AGENTS, ALLOW_PRIVATE, COMMANDS, LAUNCHER, MEMORY, PODS, TASKS
from actors.tools.pool import ToolThreads
from actors.tools.scope import fence
from actors.tools.source import ToolSource, is_source
from actors.tools.toolbox import Toolbox
from protocol.entries import StoredEntry
from protocol.errors import BudgetError, InvalidInput, ToolError
from protocol.events import Event
from protocol.manifest import BudgetSection, ModelSection, PodManifest
from protocol.model_settings import ModelSettings, of_requests
from protocol.recordable import recordable
from protocol.scope import Rule, Scope
from protocol.text import encodable
from protocol.usage import Usage
from protocol.wire import encode

if TYPE_CHECKING:
    from actors.pod.delegation.delegation import Delegation
    from actors.pod.delegation.sub_agent import ChildSpawner
    from actors.pod.delegation.tools import DelegationTools
    from actors.pod.history.task_list import TaskListReader, TaskStore
    from actors.pod.runs.own_options import OwnOptions
    from actors.pod.sourced_tools import SourcedTools
    from actors.runtime.children.launcher import Launcher
    from actors.tools.hooks import Hooks
    from actors.tools.mcp.source import McpServers
    from actors.tools.open_sources import OpenSources
    from actors.tools.sandbox import Sandbox
    from actors.tools.shell.pod_commands import PodCommands

_NO_BUDGET = BudgetSection()
_NO_MODEL = ModelSection()
_RETRY = RetryPolicy()

#: Built-in tools by which pods run commands.
_COMMANDS = frozenset({"shell", "shell_output", "shell_stop"})

#: From what a call used to what it cost in US dollars.
Price = Callable[[Usage | None], float | None]


class Assembly:
    """Makes what pods work with, for one system; pods of the same manifest share what can be shared."""

    def __init__(
        self,
        store: SessionStore,
        bus: Bus,
        outputs: Path | None,
        on_conflict: Literal["fork", "refuse"],
        prices: Prices,
        memory: Path,
        budget: BudgetSection | None = None,
        *,
        grace: float,
        memory_grace: float,
        store_grace: float,
        closing: Callable[[], bool],
        threads: ToolThreads | None = None,
        processes: int | None = None,
        spawner: ChildSpawner,
        chains: Mapping[str, LLMClient] | None = None,
        find_chain: Callable[[str, str, Assembly], LLMClient] | None = None,
    ) -> None:
        self._store = store
        self._bus = bus
        self._publish = bus.publish  # one bound method for all pods
        self._outputs = outputs
        self._on_conflict = on_conflict
        self.prices = prices
        self._memory = memory
        self._grace, self._memory_grace, self._store_grace = grace, memory_grace, store_grace
        self._closing = closing
        #: Where plain functions run; None for the threads that all systems of the process share.
        self._threads = threads
        #: How many child processes may be at work at once; None is any number.
        self._processes = processes
        #: What starts child processes; None while there was none.
        self._launcher: Launcher | None = None
        self._starts_none = False
        #: What is kept open as long as there are child processes.
        self._held: set[int] = set()
        #: What starts processes that are pods; None while there was none.
        self._pod_launcher: Launcher | None = None
        #: Whether another process starts those of its pods again that fail.
        self.leaves_restarts = False
        #: What no tool touches, whatever the scope; None until there is a pod with tools.
        self._fence: tuple[Rule, ...] | None = None
        self._protected: list[Path] = []
        #: What starts agents for pods; None while there is no swarm.
        self.spawn_agent: Callable[..., Awaitable[str]] | None = None
        #: The sources of tools that pods were given; None while there is none.
        self._sources: OpenSources | None = None
        #: The MCP servers that manifests name; None while there is none.
        self._mcp: McpServers | None = None
        #: What all pods share; None where nothing is limited.
        self.budget = None if budget is None else Budget(budget)
        #: On whose budgets pods that are about to be made draw besides, by their names.
        self._drawn_on: dict[str, Budget] = {}
        self.answers = AnswerWatch(store)
        found = None if find_chain is None else lambda name, folder: find_chain(name, folder, self)
        self.models = Models(chains, found)
        self.totals = Totals()
        # Pods share what is made of the same manifest, tools and client, of the last that were asked for.
        self._opening = Latest(_opening)
        self._limits = Latest(Limits.of)
        self._runner = Latest(self._make_runner)
        self._template = Latest(self._make_template)
        self._spawner = spawner
        #: Where the tools find the sub-agents of the pod they work for; each belongs to its pod.
        self._delegations: WeakValueDictionary[str, Delegation] = WeakValueDictionary()
        #: Where the tools find the commands of the pod they work for; each belongs to its pod.
        self._commands: WeakValueDictionary[str, PodCommands] = WeakValueDictionary()
        #: Where the tools find the task list of the pod they work for; each belongs to its pod.
        self._task_lists: WeakValueDictionary[str, TaskListReader] = WeakValueDictionary()

    def resources(
        self,
        manifest: PodManifest,
        name: str,
        given: Given,
        parent: Delegation | None = None,
        *,
        session_id: str | None = None,
    ) -> PodResources:
        """What one pod works with, a sub-agent of ``parent`` where that is given. Raises ManifestError,
        ModelError, BudgetError, ToolDefinitionError, and InvalidInput for what is no hook.
        """
        template = self._template(manifest, given.client, given.tools, given.hooks)
        return self._resources(template, name, given, parent, session_id)

    def renewed(self, failed: PodResources) -> PodResources:
        """What a pod works with that takes the place of one that failed, and goes on in its session."""
        delegation = failed.delegation
        given = Given(None, (), failed.deps, (), failed.make_prompt)
        if delegation is not None:
            given = delegation.given
        return self._resources(failed.template, failed.name, given, None)

    def _resources(
        self,
        template: PodTemplate,
        name: str,
        given: Given,
        parent: Delegation | None,
        session_id: str | None = None,
    ) -> PodResources:
        head, tools = SessionHead(session_id or new_session_id()), template.tools
        budget = self._budget_of(template, parent, self._drawn_on.pop(name, None))
        publish: Callable[..., None] = self._publish
        delegation = None
        if tools.scope_of is not None:
            delegation = self._delegation(name, template, given, budget)
        if delegation is not None or parent is not None:
            publish = _noting(publish, name, delegation, parent)
        return PodResources(
            template,
            name,
            SessionLog(self._store, name, head, publish),
            budget,
            self._task_list_reader(name, head) if tools.keeps_tasks else None,
            given.deps,
            delegation,
            None if parent is None else parent.name,
            self._pod_commands(name, template) if tools.runs_commands else None,
            given.make_prompt if parent is None else None,
        )

    def draw_on(self, name: str, budget: Budget) -> None:
        """Have the pod that is made next under that name draw on another pod's budget."""
        self._drawn_on[name] = budget

    def _delegation(
        self, name: str, template: PodTemplate, given: Given, budget: Budget | None
    ) -> Delegation:
        from actors.pod.delegation.delegation import Delegation  # noqa: PLC0415 - paid for by pods that have sub-agents

        made = self._delegations[name] = Delegation(name, template, given, self._spawner, budget)
        return made

    def _pod_commands(self, name: str, template: PodTemplate) -> PodCommands:
        from actors.tools.shell.pod_commands import PodCommands  # noqa: PLC0415 - paid for by pods with any

        def make_sandbox() -> Sandbox:
            from actors.tools.sandbox import Sandbox  # noqa: PLC0415 - paid for by who runs commands

            scope = partial(template.tools.scope_for, name)
            return Sandbox(template.manifest.sandbox, scope, self.launcher)

        made = self._commands[name] = PodCommands(make_sandbox)
        return made

    def _sub_agents(self, pod: str) -> DelegationTools | None:
        """What a pod's model asks of its sub-agents; None where it can have none."""
        from actors.pod.delegation.tools import DelegationTools  # noqa: PLC0415 - the same

        delegation = self._delegations.get(pod)
        return None if delegation is None else DelegationTools(delegation)

    def _scope_now(self, pod: str) -> Scope:
        """What a pod may touch that may have given some of it away."""
        return self._delegations[pod].scope

    def _note_call(self, pod: str, tool: str, ctx: ToolContext) -> None:
        self._delegations[pod].note_call(tool, ctx)

    def _make_template(
        self, manifest: PodManifest, client: LLMClient | None, tools: tuple[Any, ...], hooks: tuple[Any, ...]
    ) -> PodTemplate:
        tools = (*_own(manifest), *self._mcp_sources(manifest), *tools)
        plain = tuple(each for each in tools if not is_source(each))
        runner, limits = self._runner(manifest, plain, hooks), self._limits(manifest)
        memory = manifest.memory
        asked = self.models.client(manifest.model, manifest.pod.pwd) if client is None else client
        return PodTemplate(
            manifest=manifest,
            model=label(manifest.model) if client is None else _name_of(client),
            client=asked,
            tools=runner,
            sources=None if len(plain) == len(tools) else self._sourced(runner, filter(is_source, tools)),
            bus=self._bus,
            store=self._store,
            opening=self._opening(manifest),
            memory=self._memory_of(manifest),
            price=self._price_of(
                manifest.model, asked, is_named=client is None or manifest.model != _NO_MODEL
            ),
            price_of=self._cost,
            asks_tiers=models_of(asked) is not None,
            totals=self.totals,
            limits=limits,
            extracts_after_run=bool(memory.extract_threshold) and memory.schedule == "after_run",
            on_conflict=self._on_conflict,
            answers=self.answers,
            asks=_asks(manifest, runner.toolbox),
            warnings=tuple(limits.warnings()),
            mistakes=_mistakes(manifest, runner.toolbox, more_may_come=len(plain) < len(tools)),
            supervised=manifest.restart.is_supervised and not self.leaves_restarts,
            grace=self._grace,
            memory_grace=self._memory_grace,
            store_grace=self._store_grace,
            closing=self._closing,
            retry=_retry_of(manifest.model),
            vary=self._vary,
            brings_client=client is not None,
            max_tokens=manifest.max_tokens,
            settings=of_requests(manifest.model),
        )

    def _vary(self, template: PodTemplate, own: OwnOptions) -> PodTemplate:
        """The template of one run that has options of its own. Raises ManifestError, MissingKey,
        InvalidInput, ToolDefinitionError, BudgetError.
        """
        given = own.model if own.model is not None and not isinstance(own.model, ModelSection) else None
        section = own.model if isinstance(own.model, ModelSection) else template.manifest.model
        if own.settings is not None:
            section = section.with_settings(own.settings)
        manifest = template.manifest.replace(model=section)
        client, model = template.client, template.model
        if given is not None:
            client, model = given, _name_of(given)
        elif own.model is not None or not template.brings_client:
            client, model = self.models.client(section, manifest.pod.pwd), label(section)
        if own.tools and template.asks:
            raise InvalidInput(
                "tools of a run: this pod asks people about calls, and has its tools for life",
                hint="give them to spawn",
            )
        runner, sources = _with_more(template, own.tools)
        price = self._price_of(section, client, is_named=given is None)
        if client is template.client:
            price = template.price
        self._check_price(manifest, client, price)
        return replace(
            template,
            manifest=manifest,
            model=model,
            client=client,
            tools=runner,
            sources=sources,
            price=price,
            asks_tiers=models_of(client) is not None,
            retry=_retry_of(section),
            max_tokens=manifest.max_tokens,
            settings=of_requests(section),
        )

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
            MEMORY: partial(_search_memory, self._memory_of(manifest)),
            LAUNCHER: self.launcher,
            COMMANDS: self._commands.get,
            ALLOW_PRIVATE: manifest.fetch.allow_private,
            PODS: self._sub_agents,
            AGENTS: self._spawn_agent,
        }
        asked = _hooks(hooks, toolbox.threads) if hooks else None
        delegates = _delegates(manifest)
        return ToolRunner(
            toolbox,
            manifest,
            extras,
            asked,
            keeps_tasks=_keeps_tasks(toolbox),
            runs_commands=not _COMMANDS.isdisjoint(manifest.tools.builtin),
            scope_of=self._scope_now if delegates else None,
            note_call=self._note_call if delegates else None,
            fence=self._own_places(),
        )

    def _mcp_sources(self, manifest: PodManifest) -> Iterable[ToolSource]:
        if not manifest.tools.mcp:
            return ()
        if self._mcp is None:
            from actors.tools.mcp.source import McpServers  # noqa: PLC0415 - paid for by pods that have any

            logs = None if self._outputs is None else self._outputs / "mcp"
            self._mcp = McpServers(self.launcher, logs)
        return self._mcp.sources(manifest.tools.mcp, manifest.pod.pwd)

    def _own_places(self) -> tuple[Rule, ...]:
        """Rules that keep every tool out of what polypod keeps for itself, and of what steers it."""
        if self._fence is None:
            own = state_path(), configuration_path(), runtime_path()
            places = *own, *self._store.files, *self._protected
            self._fence = fence(place for place in places if place is not None)
        return self._fence

    async def _spawn_agent(self, *asked: Any) -> str:
        """Start an agent for a pod. Raises ToolError."""
        if self.spawn_agent is None:
            raise ToolError("this program has no swarm to start agents in")
        return await self.spawn_agent(*asked)

    def protect(self, place: Path) -> None:
        """Keep the tools of pods that are made from here on out of a place, whatever their scope."""
        self._protected.append(place)
        self._fence = None
        self._runner = Latest(self._make_runner)
        self._template = Latest(self._make_template)

    def _sourced(self, plain: ToolRunner, sources: Iterable[ToolSource]) -> SourcedTools:
        from actors.pod.sourced_tools import SourcedTools  # noqa: PLC0415 - paid for by pods that have any
        from actors.tools.open_sources import OpenSources  # noqa: PLC0415 - the same

        if self._sources is None:
            self._sources = OpenSources(self._grace)
        return SourcedTools(plain, map(self._sources.shared, sources))

    async def close_sources(self) -> None:
        """Close the sources of tools that are still open: no pod uses any of them any more."""
        if self._sources is not None:
            await self._sources.aclose()

    def launcher(self) -> Launcher:
        """What starts child processes for tools and for sources of tools, one for the system. Raises
        ChildNotStarted where the system is at its end.
        """
        if self._launcher is None:
            from actors.runtime.children.launcher import Launcher  # noqa: PLC0415 - paid for by who starts any

            self._launcher = self._holding(Launcher(self._processes))
            if self._starts_none:
                self._launcher.abandon()
        return self._launcher

    def pod_launcher(self, prepare: str | None) -> Launcher:
        """What starts processes that are pods: these take no place of the others. Raises as ``launcher``."""
        if self._pod_launcher is None:
            from actors.runtime.children.launcher import Launcher  # noqa: PLC0415 - paid for by who starts any

            self._pod_launcher = self._holding(Launcher(prepare=prepare))
            if self._starts_none:
                self._pod_launcher.abandon()
        return self._pod_launcher

    def hold(self, descriptor: int) -> None:
        """Keep a descriptor open, however this process ends, until the last child process is gone."""
        self._held.add(descriptor)
        for each in self._launchers():
            each.hold(descriptor)

    def drop_held(self, descriptor: int) -> None:
        """It is about to be closed."""
        self._held.discard(descriptor)
        for each in self._launchers():
            each.drop_held(descriptor)

    def _holding(self, launcher: Launcher) -> Launcher:
        for each in self._held:
            launcher.hold(each)
        return launcher

    def _launchers(self) -> list[Launcher]:
        return [each for each in (self._launcher, self._pod_launcher) if each is not None]

    async def close_launcher(self) -> None:
        """End all child processes by their ladders; none is started any more."""
        self._starts_none = True
        for each in self._launchers():
            await each.aclose()

    def abandon_launcher(self) -> None:
        """The same without waiting, since the loop is closed."""
        self._starts_none = True
        for each in self._launchers():
            each.abandon()

    def _memory_of(self, manifest: PodManifest) -> Path:
        """The folder of a pod's notes: its own, or the system's."""
        return self._memory if manifest.memory.folder is None else Path(manifest.memory.folder)

    def _task_list_reader(self, name: str, head: SessionHead) -> TaskListReader:
        from actors.pod.history.task_list import TaskListReader  # noqa: PLC0415 - paid for by pods that keep one

        reader = self._task_lists[name] = TaskListReader(head)
        return reader

    def _task_list(self, pod: str) -> TaskStore:
        return self._task_lists[pod].tasks()

    def _price_of(self, section: ModelSection, client: LLMClient, *, is_named: bool) -> Price:
        """What a call costs: of a chain by each of its models, of others by the manifest's, where that
        ``is_named`` by it.
        """
        if (models := models_of(client)) is not None:
            return partial(self._dearest, models)
        return partial(self._cost, priced_as(section)) if is_named else _unknown_price

    def _dearest(self, models: Sequence[str], usage: Usage | None) -> float | None:
        """What a call costs at most, whichever of these models is asked; None where nobody knows of one."""
        costs = [self._cost(each, usage) for each in models]
        known = [each for each in costs if each is not None]
        return None if len(known) < len(costs) else max(known, default=0.0)

    def _cost(self, model: str, usage: Usage | None) -> float | None:
        return cost(model, usage, self.prices)

    def _unpriced(self, manifest: PodManifest, client: LLMClient) -> str:
        """The model of whose price nobody knows."""
        models = models_of(client) or (label(manifest.model),)
        return next((each for each in models if self._cost(each, Usage(1, 1)) is None), models[0])

    def _budget_of(
        self, template: PodTemplate, parent: Delegation | None, drawn_on: Budget | None
    ) -> Budget | None:
        manifest = template.manifest
        limits, shared = manifest.budget, drawn_on or (self.budget if parent is None else parent.budget)
        if limits == _NO_BUDGET and shared is None:
            return None
        self._check_price(manifest, template.client, template.price, shared)
        if drawn_on is not None:
            return SharingBudget(limits, drawn_on)
        return Budget(limits, shared) if parent is None else set_aside(limits, shared)

    def _check_price(
        self, manifest: PodManifest, client: LLMClient, price: Price, shared: Budget | None = None
    ) -> None:
        """Raise BudgetError where dollars are limited and nobody knows what a call costs."""
        limits, shared = manifest.budget, shared or self.budget
        in_dollars = [
            each for each in (limits, shared and shared.limits) if each and each.cost_usd is not None
        ]
        if in_dollars and price(Usage(1, 1)) is None:
            whose = f"pod {manifest.name!r}" if in_dollars[0] is limits else "the system"
            raise BudgetError(
                f"{whose} has a budget of cost_usd, and nobody knows what the model "
                f"{self._unpriced(manifest, client)} of pod {manifest.name!r} costs",
                hint="give its price in a table (PodSystem(prices=…)), or limit tokens instead",
            )


def _noting(
    publish: Callable[..., None], pod: str, delegation: Delegation | None, parent: Delegation | None
) -> Callable[..., None]:
    """``publish``, for a pod that has sub-agents or is one."""

    def publish_and_note(events: Sequence[Event], entries: Sequence[StoredEntry] = ()) -> None:
        publish(events, entries)
        if delegation is not None:
            delegation.note_own(events)
        if parent is not None:
            parent.note_child(pod, events)

    return publish_and_note


def _delegates(manifest: PodManifest) -> bool:
    """Whether pods of that manifest have sub-agents."""
    if not manifest.tools.builtin:
        return False
    from actors.pod.delegation.grants import DELEGATES  # noqa: PLC0415 - paid for by pods that have any built-in tools

    return not DELEGATES.isdisjoint(manifest.tools.builtin)


def _opening(manifest: PodManifest) -> Raw:
    """The manifest's bytes without secrets."""
    return Raw(_encoded(manifest.without_secrets()))


def _name_of(client: LLMClient) -> str:
    """What a client that was given is called in events."""
    return encodable(str(getattr(client, "model", None) or type(client).__name__))


def _encoded(manifest: PodManifest) -> bytes:
    """A manifest's bytes; a working directory may have a name that is no text."""
    try:
        return encode(manifest)
    except UnicodeEncodeError:
        return encode(recordable(manifest))


def _unknown_price(_: Usage | None) -> float | None:
    """Of a client that was given nobody knows what its calls cost."""
    return None


def _own(manifest: PodManifest) -> Iterable[Any]:
    """The tools, and sources of tools, that a manifest names by their files and modules."""
    if not manifest.tools.modules:
        return ()
    from actors.tools.loading import load_tools  # noqa: PLC0415 - paid for by pods that have any

    return load_tools(manifest.tools.modules, Path(manifest.pod.pwd))


def _asks(manifest: PodManifest, toolbox: Toolbox) -> bool:
    """Whether a call may need a person's word, or be denied by a rule."""
    if manifest.approval or manifest.tools.mcp or manifest.approvals.default != "allow":
        return True
    return any(each.asks for each in toolbox)


def _mistakes(manifest: PodManifest, toolbox: Toolbox, *, more_may_come: bool) -> tuple[str, ...]:
    """What people should know of the manifest's rules."""
    if not manifest.approval:
        return ()
    from actors.pod.approvals.rule_check import mistakes  # noqa: PLC0415 - paid for by pods that have rules

    return mistakes(manifest.approval, toolbox.specs, more_may_come=more_may_come)


def _search_memory(folder: Path, query: str, **options: Any) -> list[Any]:
    from actors.memory.note_index import search  # noqa: PLC0415 - paid for by who searches
    from actors.memory.notes_folder import NotesFolder  # noqa: PLC0415 - the same

    return search(NotesFolder(folder), query, **options)


def _retry_of(settings: ModelSettings) -> RetryPolicy:
    return _RETRY if settings.attempts is None else RetryPolicy(settings.attempts)


def _with_more(template: PodTemplate, more: tuple[Any, ...]) -> tuple[ToolRunner, SourcedTools | None]:
    """The tools of a template, and those of its sources, with more behind the plain ones. Raises
    ToolDefinitionError.
    """
    runner, sources = template.tools, template.sources
    if more:
        made = (each if isinstance(each, Tool) else Tool(each) for each in more)
        runner = runner.with_tools((*runner.toolbox, *made), gone=())
        sources = None if sources is None else sources.with_plain(runner)
    return runner, sources


def _hooks(objects: tuple[Any, ...], threads: ToolThreads) -> Hooks:
    from actors.tools.hooks import Hooks  # noqa: PLC0415 - paid for by pods that have any

    return Hooks(objects, threads)


def _keeps_tasks(toolbox: Toolbox) -> bool:
    """Whether any of the tools is one of those that keep a task list."""
    if not toolbox.specs:
        return False
    from actors.pod.history.task_tools import TASK_TOOLS  # noqa: PLC0415 - paid for by pods that have any tools

    return any(each in TASK_TOOLS for each in toolbox)


def _builtin(names: tuple[str, ...]) -> Iterable[Tool]:
    if not names:
        return ()
    from actors.pod.history.task_tools import TASK_TOOLS  # noqa: PLC0415 - the same
    from actors.tools.builtin import builtin  # noqa: PLC0415 - paid for by pods that have any

    return builtin(names, {"tasks": TASK_TOOLS})
