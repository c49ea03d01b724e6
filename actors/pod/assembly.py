"""``Assembly``: builds what a pod works with, from its manifest and the arguments of ``spawn``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Raw
from msgspec.structs import replace

from actors.compaction.policy import Limits
from actors.llm.base import LLMClient, models_of
from actors.llm.prices import Prices
from actors.llm.retry import RetryPolicy
from actors.pod.accounts.budget import Budget, SharingBudget, Totals, set_aside
from actors.pod.accounts.pricing import Pricing
from actors.pod.approvals.answer_watch import AnswerWatch
from actors.pod.client_factory import ClientFactory, label
from actors.pod.resources import Given, PodResources, PodTemplate
from actors.pod.tool_factory import ToolFactory, add_tools
from actors.runtime.events.bus import Bus
from actors.runtime.latest import Latest
from actors.runtime.launchers import Launchers
from actors.sessions.head import SessionHead, new_session_id
from actors.sessions.log import SessionLog
from actors.sessions.store import SessionStore
from actors.tools.thread_pool import ToolThreads
from actors.tools.toolbox import Toolbox
from protocol.entries import StoredEntry
from protocol.errors import InvalidInput
from protocol.events import Event
from protocol.manifest import BudgetSection, ModelSection, PodManifest
from protocol.model_settings import ModelSettings, of_requests
from protocol.recordable import recordable
from protocol.text import encodable
from protocol.wire import encode

if TYPE_CHECKING:
    from actors.pod.delegation.delegation import Delegation
    from actors.pod.delegation.sub_agent import ChildSpawner
    from actors.pod.runs.own_options import OwnOptions

_NO_BUDGET = BudgetSection()
_NO_MODEL = ModelSection()
_RETRY = RetryPolicy()


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
        self._on_conflict = on_conflict
        self.pricing = Pricing(prices)
        self._grace, self._memory_grace, self._store_grace = grace, memory_grace, store_grace
        self._closing = closing
        #: What starts child processes.
        self.launchers = Launchers(processes)
        self.tools = ToolFactory(store, outputs, memory, self.launchers, threads, grace)
        #: Whether another process starts those of its pods again that fail.
        self.leaves_restarts = False
        #: What all pods share; None where nothing is limited.
        self.budget = None if budget is None else Budget(budget)
        #: On whose budgets pods that are about to be made draw besides, by their names.
        self._drawn_on: dict[str, Budget] = {}
        self.answers = AnswerWatch(store)
        found = None if find_chain is None else lambda name, folder: find_chain(name, folder, self)
        self.clients = ClientFactory(chains, found)
        self.totals = Totals()
        # Pods share what is made of the same manifest, tools and client, of the last that were asked for.
        self._opening = Latest(_opening)
        self._limits = Latest(Limits.of)
        self._template = Latest(self._make_template)
        self._spawner = spawner

    def resources(
        self,
        manifest: PodManifest,
        name: str,
        given: Given,
        parent: Delegation | None = None,
        *,
        session_id: str | None = None,
    ) -> PodResources:
        """What one pod works with; ``parent`` is given for a sub-agent. Raises ManifestError, ModelError,
        BudgetError, ToolDefinitionError, and InvalidInput for something that is not a hook.
        """
        template = self._template(manifest, given.client, given.tools, given.hooks)
        return self._resources(template, name, given, parent, session_id)

    def renewed(self, failed: PodResources) -> PodResources:
        """The resources of a pod that replaces a failed one and continues its session."""
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
            self.tools.make_task_list(name, head) if tools.keeps_tasks else None,
            given.deps,
            delegation,
            None if parent is None else parent.name,
            self.tools.make_commands(name, template.manifest, tools) if tools.runs_commands else None,
            given.make_prompt if parent is None else None,
        )

    def draw_on(self, name: str, budget: Budget) -> None:
        """Have the next pod of that name draw on another pod's budget."""
        self._drawn_on[name] = budget

    def _delegation(
        self, name: str, template: PodTemplate, given: Given, budget: Budget | None
    ) -> Delegation:
        from actors.pod.delegation.delegation import Delegation  # noqa: PLC0415 - paid for by pods that have sub-agents

        made = Delegation(name, template, given, self._spawner, budget)
        self.tools.keep_delegation(name, made)
        return made

    def protect(self, place: Path) -> None:
        """Keep the tools of all pods made from now on out of a place, whatever their scope."""
        self.tools.protect(place)
        self._template = Latest(self._make_template)

    def _make_template(
        self, manifest: PodManifest, client: LLMClient | None, tools: tuple[Any, ...], hooks: tuple[Any, ...]
    ) -> PodTemplate:
        runner, sources = self.tools.make(manifest, tools, hooks)
        limits, memory = self._limits(manifest), manifest.memory
        asked = self.clients.client(manifest.model, manifest.pod.pwd) if client is None else client
        return PodTemplate(
            manifest=manifest,
            model=label(manifest.model) if client is None else _name_of(client),
            client=asked,
            tools=runner,
            sources=sources,
            bus=self._bus,
            store=self._store,
            opening=self._opening(manifest),
            memory=self.tools.memory_of(manifest),
            price=self.pricing.price_of(
                manifest.model, asked, is_named=client is None or manifest.model != _NO_MODEL
            ),
            price_of=self.pricing.cost,
            asks_tiers=models_of(asked) is not None,
            totals=self.totals,
            limits=limits,
            extracts_after_run=bool(memory.extract_threshold) and memory.schedule == "after_run",
            on_conflict=self._on_conflict,
            answers=self.answers,
            asks=_asks(manifest, runner.toolbox),
            warnings=tuple(limits.warnings()),
            mistakes=_mistakes(manifest, runner.toolbox, more_may_come=sources is not None),
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
            client, model = self.clients.client(section, manifest.pod.pwd), label(section)
        if own.tools and template.asks:
            raise InvalidInput(
                "run(tools=…): a pod with approvals cannot change its tools for a run",
                hint="pass them to spawn",
            )
        runner, sources = add_tools(template.tools, template.sources, own.tools)
        price = self.pricing.price_of(section, client, is_named=given is None)
        if client is template.client:
            price = template.price
        self.pricing.check(manifest, client, price, self.budget)
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

    def _budget_of(
        self, template: PodTemplate, parent: Delegation | None, drawn_on: Budget | None
    ) -> Budget | None:
        manifest = template.manifest
        limits, shared = manifest.budget, drawn_on or (self.budget if parent is None else parent.budget)
        if limits == _NO_BUDGET and shared is None:
            return None
        self.pricing.check(manifest, template.client, template.price, shared or self.budget)
        if drawn_on is not None:
            return SharingBudget(limits, drawn_on)
        return Budget(limits, shared) if parent is None else set_aside(limits, shared)


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


def _opening(manifest: PodManifest) -> Raw:
    """The manifest's bytes without secrets."""
    return Raw(_encoded(manifest.without_secrets()))


def _name_of(client: LLMClient) -> str:
    """What a client that was given is called in events."""
    return encodable(str(getattr(client, "model", None) or type(client).__name__))


def _encoded(manifest: PodManifest) -> bytes:
    """A manifest's bytes; the name of a working directory may not be valid text."""
    try:
        return encode(manifest)
    except UnicodeEncodeError:
        return encode(recordable(manifest))


def _asks(manifest: PodManifest, toolbox: Toolbox) -> bool:
    """Whether a call may need a person's approval, or be denied by a rule."""
    if manifest.approval or manifest.tools.mcp or manifest.approvals.default != "allow":
        return True
    return any(each.asks for each in toolbox)


def _mistakes(manifest: PodManifest, toolbox: Toolbox, *, more_may_come: bool) -> tuple[str, ...]:
    """Warnings about the manifest's rules."""
    if not manifest.approval:
        return ()
    from actors.pod.approvals.rule_check import mistakes  # noqa: PLC0415 - paid for by pods that have rules

    return mistakes(manifest.approval, toolbox.specs, more_may_come=more_may_come)


def _retry_of(settings: ModelSettings) -> RetryPolicy:
    return _RETRY if settings.attempts is None else RetryPolicy(settings.attempts)
