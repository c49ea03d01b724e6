"""``ModelCalls``: sends a run's requests to the model, and decides what follows when one fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from actors.compaction import policy
from actors.llm.base import Answer, Request
from actors.pod.accounts.budget import Exceeded, OverBudget
from actors.pod.accounts.exchange import Exchange
from actors.pod.history.compaction import Compaction
from actors.pod.history.context import Context
from actors.pod.runs.answers import (
    is_about_picture,
    is_refused,
    record_answer,
    record_failed,
    record_shown,
    record_tier,
)
from actors.pod.runs.outcomes import budget_reached, still_too_long
from actors.pod.runs.own_options import make_prompt, settings_now
from actors.pod.runs.run_parts import RunParts
from actors.pod.runs.run_state import Run, resolve
from actors.runtime.interruptible import Left
from protocol.errors import Failure, InvalidInput, ModelError, PodError, SessionError
from protocol.events import (
    BudgetExceeded,
    StreamRestart,
    SystemMessage,
    TextDelta,
    TurnEnd,
    TurnStart,
    UserMessage,
    UserSource,
)
from protocol.hooks import ModelView
from protocol.items import AssistantItem, SystemItem, UserItem
from protocol.text import encodable

if TYPE_CHECKING:
    from actors.pod.accounts.tiered import TierSpent
    from actors.pod.resources import PodResources, PodTemplate
    from actors.pod.runs.own_options import OwnOptions
    from actors.pod.runs.tool_runner import ToolRunner
    from actors.pod.sourced_tools import SourcedTools
    from actors.tools.hooks import Hooks

#: What a model gets when a run goes on whose last answer was cut.
GO_ON = "Your last answer was interrupted and cut off. Go on from where it ended."


class Compacting(Protocol):
    """Whose history is compacted."""

    def compaction(self) -> Compaction:
        """A compaction of the history."""


class ModelCalls:
    """Sends the model requests of one pod's runs, one run after the other."""

    __slots__ = (
        "_owner",
        "_parts",
        "_turn_open",
    )

    def __init__(self, parts: RunParts, owner: Compacting) -> None:
        self._parts = parts
        self._owner = owner
        #: Whether the end of the turn whose start was published last is not published yet.
        self._turn_open = False

    # -- asking ----------------------------------------------------------------------------------

    async def request(self, run: Run) -> None:
        """Send the history, all of it durable, and record what comes back. Raises SessionError, Left."""
        parts = self._parts
        resources = run.resources or parts.resources
        template = resources.template
        tools, sources = template.tools, template.sources
        if sources is not None:
            looked = await self._look(run, sources)
            if looked is None:
                return
            tools = looked
        self._prepare(run)
        await parts.journal.commit()
        run.waits.check()
        if run.awaiting_commit:
            resolve(run.awaiting_commit)
        request, size = self._make_request(run, template, tools), parts.conversation.occupancy
        if request is None:
            return
        if (hooks := tools.hooks) is not None and hooks.asks_before_request:
            asked = await self._ask_hooks(hooks, run, request, size)
            if asked is None:
                return
            request, size = asked
        exchange = run.exchange = self._make_exchange(run, resources, size, request.max_tokens)
        try:
            exchange.reserve()
        except OverBudget as over:
            self.note_exceeded(run, over.exceeded)
            return
        parts.accounts.steps += 1
        self._turn_open = True
        self._publish_turn(TurnStart)
        try:
            answer = await run.waits.inline(exchange.ask(request), "the model's client")
        except Left:
            exchange.end(asyncio.CancelledError())
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a client throws, only its run ends
            await self.fail_request(run, exchange, error)
            return
        self._take_answer(run, exchange, answer)

    def _prepare(self, run: Run) -> None:
        """Record everything that the model is to see."""
        if run.pending:
            self.join_pending(run)
        last = self._parts.journal.head.items[-1]
        if type(last) is AssistantItem and last.cut:  # what ends with a model's words is refused
            self._parts.journal.log.record(SystemMessage, run.run_id, item=SystemItem.of(GO_ON))
        run.has_unseen_input = True

    def join_pending(self, run: Run) -> None:
        """Add to the history what was said meanwhile."""
        for pending in run.pending:
            self.add_words(run, UserItem(pending.content), pending.source)
            run.awaiting_commit.append(pending.reply)
        run.pending = []

    def add_words(self, run: Run, item: UserItem, source: UserSource) -> None:
        """Record words of a user."""
        run.repeats = None  # they begin anew
        journal = self._parts.journal
        log, head, now = journal.log, journal.head, time.time()
        log.add(
            UserMessage(log.pod, head.session_id, head.seq + 1, now, run.run_id, item=item, source=source)
        )
        run.words_seq = head.seq

    async def _look(self, run: Run, sources: SourcedTools) -> ToolRunner | None:
        """The tools that the sources list now; the first run to need them has them opened. None if the run is
        to end instead. Raises SessionError, Left.
        """
        waits = run.waits
        try:
            if not sources.are_open:
                await self._parts.journal.commit()
                waits.check()
                await waits.apart(sources.wait_open(), "a source of tools")
            return sources.look(self._parts.journal.alert)
        except SessionError:
            raise
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - ends this run alone
            self.end_by_error(run, error)
            return None

    def _make_exchange(
        self, run: Run, resources: PodResources, size: Callable[[], int], max_tokens: int | None
    ) -> Exchange:
        """Make the exchange that counts the request."""
        journal = self._parts.journal
        asked = (
            resources,
            size,
            max_tokens,
            journal.has_subscribers,
            journal.publish,
            self._publish_text,
        )
        if not resources.template.asks_tiers:
            return Exchange(*asked)
        from actors.pod.accounts.tiered import TieredExchange  # noqa: PLC0415 - paid for by pods with a chain

        return TieredExchange(*asked, on_tier=partial(self._record_tier, run))

    def _make_request(self, run: Run, template: PodTemplate, tools: ToolRunner) -> Request | None:
        """Make the request to the model; None where the run is to end instead."""
        if run.ending is not None:
            return None
        context, manifest, specs = self._parts.conversation.context(), template.manifest, tools.toolbox.specs
        settings = template.settings
        if settings is not None and settings.tool_choice is not None:
            try:
                settings = settings_now(settings, specs, self._parts.accounts.steps)
            except InvalidInput as error:
                self.end_by_error(run, error)
                return None
        items = self._parts.journal.head.items
        return Request(
            context.view(),
            manifest.pod.system_prompt,
            specs,
            manifest.model.model_id,
            template.max_tokens,
            manifest.model.temperature,
            run.output_schema,
            deadline=run.deadline,
            scratch=context.scratch,
            settings=settings,
            output_kind=run.output_kind,
            task_items=len(items) - run.began_at if run.began_in is items else None,
            earlier_attempts=self._parts.accounts.earlier_attempts,
        )

    async def make_own(self, run: Run, own: OwnOptions) -> None:
        """Make the resources of a run that has options of its own, or end the run. Records nothing that is
        not durable. Raises Left.
        """
        resources = self._parts.resources
        try:
            template = resources.template.vary(resources.template, own)
            prompt = own.prompt
            if prompt is not None and not isinstance(prompt, str):
                made = make_prompt(prompt, resources.context(run.deps), resources)
                prompt = await run.waits.apart(made, "the system prompt")
            run.resources = replace(resources, template=template.with_prompt(prompt))
            if own.tools:
                run.own_tools = template.sources or template.tools
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - ends this run alone
            self.end_by_error(run, error)

    async def _ask_hooks(
        self, hooks: Hooks, run: Run, request: Request, size: Callable[[], int]
    ) -> tuple[Request, Callable[[], int]] | None:
        """The request as changed by hooks, and a function that gives its size; None if the run is to end
        instead. Raises Left.
        """
        shown = ModelView(tuple(request.items), request.system, request.tools)
        ctx = self._parts.resources.context(run.deps)
        try:
            view = await run.waits.apart(hooks.before_request(shown, ctx), "a hook")
        except (PodError, asyncio.CancelledError) as error:
            self.end_by_error(run, error)
            return None
        if run.ending is not None:
            return None
        if view.items is shown.items:
            return replace(request, system=view.system, tools=view.tools), size
        changed = replace(request, items=view.items, system=view.system, tools=view.tools)
        return changed, Context.of(list(view.items)).occupancy

    def _publish_text(self, text: str, attempt: int) -> None:
        journal = self._parts.journal
        if journal.has_subscriber(TextDelta):
            log, head, text = journal.log, journal.head, encodable(text)
            now, run_id = time.time(), journal.run_id
            log.publish_transient(
                TextDelta(log.pod, head.session_id, head.seq, now, run_id, text=text, attempt=attempt)
            )

    def _publish_turn(self, kind: type[TurnStart | TurnEnd]) -> None:
        journal = self._parts.journal
        if not journal.bus.silent and journal.has_subscriber(kind):
            log, head, turn = journal.log, journal.head, self._parts.accounts.steps
            log.publish_transient(
                kind(log.pod, head.session_id, head.seq, time.time(), journal.run_id, turn=turn)
            )

    def _take_answer(self, run: Run, exchange: Exchange, answer: Answer) -> None:
        if record_answer(self._parts, run, exchange, answer):
            self.end_turn()

    def end_turn(self) -> None:
        """Publish, once, that the turn has ended, with the calls of its answer."""
        if self._turn_open:
            self._turn_open = False
            self._publish_turn(TurnEnd)

    def hold_turn(self) -> bool:
        """Keep ``end_turn`` from ending the turn until ``release_turn``; returns whether one is open."""
        open_, self._turn_open = self._turn_open, False
        return open_

    def release_turn(self) -> None:
        """Let the held turn go on."""
        self._turn_open = True

    # -- no answer -------------------------------------------------------------------------------

    async def fail_request(self, run: Run, exchange: Exchange, error: BaseException) -> None:
        """Handle a failed request: compact once if the server says it is too long, leave out pictures of
        earlier runs if it can no longer load them, else end the run.
        """
        exchange.end(error)
        run.exchange = None
        if run.ending is None and (overflow := self._too_long(error)) is not None:
            await self._compact_too_long(run, exchange, overflow)
            return
        if run.ending is None and is_about_picture(error) and self._hide_links(run):
            self._void_attempt(run, exchange, error)
            await self._parts.journal.commit()
            run.waits.check()
            return
        record_shown(self._parts, run, exchange, refused=is_refused(self._parts, run, error))
        if run.ending is None and isinstance(error, OverBudget):
            self.note_exceeded(run, error.exceeded)
            return
        self.end_by_error(run, error)

    def end_by_error(self, run: Run, error: BaseException) -> None:
        """End the run by an error. If an end was asked for already, that one stands, whatever its cancel led
        to.
        """
        cancelled = isinstance(error, asyncio.CancelledError)
        if run.ending in {"cancelled", "paused"} or (run.ending is not None and cancelled):
            return
        if cancelled:  # from outside; who closes a loop cancels all its tasks
            run.ending = "paused" if self._parts.template.closing() else "cancelled"
        else:
            run.error, run.ending = error, "failed"

    def note_exceeded(self, run: Run, exceeded: Exceeded) -> None:
        """Record which budget the run has reached; the run ends with that."""
        self._parts.journal.log.record(BudgetExceeded, run.run_id, **exceeded._asdict())
        run.ending, run.limit = "budget", budget_reached(exceeded)

    async def _record_tier(self, run: Run, ended: TierSpent) -> None:
        """Record the result of a tier that was not accepted, durably, before the next is asked. Raises
        SessionError, Left.
        """
        run.waits.check()
        record_tier(self._parts, run, ended)
        await self._parts.journal.commit()
        run.waits.check()

    def _too_long(self, error: BaseException) -> ModelError | None:
        """The error, if it says that the request was too long and a compaction may help."""
        if not isinstance(error, ModelError) or error.kind != "context_overflow":
            return None
        items = self._parts.journal.head.items
        return error if policy.after_overflow(self._parts.conversation.guard, len(items)) else None

    async def _compact_too_long(self, run: Run, exchange: Exchange, overflow: ModelError) -> None:
        """Compact the history after an overflow; then the same request is sent again."""
        self._void_attempt(run, exchange, overflow)
        failed = await self._owner.compaction().fold("overflow", run.waits, window=overflow.context_window)
        self.end_compaction(run, failed, overflow)

    def _hide_links(self, run: Run) -> bool:
        """Replace pictures of earlier runs that were given by URL by words; returns whether there are any."""
        items, journal = self._parts.journal.head.items, self._parts.journal
        before = run.began_at if run.began_in is items else 0
        if not self._parts.conversation.context().hide_links(before):
            return False
        journal.alert("the model server does not accept images by URL: a text replaces each one")
        return True

    def _void_attempt(self, run: Run, exchange: Exchange, error: BaseException) -> None:
        """Record that a request failed and is sent again."""
        self._parts.accounts.steps -= 1  # the request that follows is this one again
        record_failed(self._parts, run, exchange.failed)
        if exchange.failed and exchange.failed[-1].shown is not None:
            self._parts.journal.publish(
                StreamRestart, attempt=exchange.failed[-1].attempt, error=Failure.of(error)
            )

    def end_compaction(
        self, run: Run, error: BaseException | None, overflow: ModelError | None = None
    ) -> None:
        """End the run if a compaction in the middle of it failed; else its request follows.

        ``overflow`` is the error that led to the compaction; if that failed, the run's error names both.
        """
        if error is None or run.ending is not None:
            return
        if isinstance(error.__cause__, OverBudget):
            self.note_exceeded(run, error.__cause__.exceeded)
            return
        run.error, run.ending = error if overflow is None else still_too_long(overflow, error), "failed"
