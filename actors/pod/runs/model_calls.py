"""``ModelCalls``: sends a run's requests to the model, and records answers, failures and usage."""

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
from actors.pod.accounts.exchange import Exchange, FailedAttempt
from actors.pod.history.compaction import Compaction
from actors.pod.history.context import Context
from actors.pod.runs.outcomes import budget_reached, paused_in_vain, still_too_long
from actors.pod.runs.own_options import make_prompt, settings_now
from actors.pod.runs.run_parts import RunParts
from actors.pod.runs.run_state import Run, resolve
from actors.runtime.interruptible import Left
from protocol.errors import Failure, InvalidInput, ModelError, PodError, SessionError
from protocol.events import (
    AssistantMessage,
    AttemptFailed,
    BudgetExceeded,
    StreamRestart,
    SystemMessage,
    TextDelta,
    TierAttempted,
    TurnEnd,
    TurnStart,
    UsageUpdate,
    UserMessage,
    UserSource,
)
from protocol.hooks import ModelView
from protocol.items import AssistantItem, SystemItem, UserItem
from protocol.text import encodable
from protocol.usage import Usage

if TYPE_CHECKING:
    from actors.pod.accounts.tiered import TierSpent
    from actors.pod.resources import PodResources, PodTemplate
    from actors.pod.runs.own_options import OwnOptions
    from actors.pod.runs.tool_runner import ToolRunner
    from actors.pod.sourced_tools import SourcedTools
    from actors.tools.hooks import Hooks

#: What a model gets when a run goes on whose last answer was cut.
GO_ON = "Your last answer was interrupted and cut off. Go on from where it ended."
#: How often in a row a model may pause its turn.
MAX_PAUSES = 10


class Compacting(Protocol):
    """Whose history is compacted."""

    def compaction(self) -> Compaction:
        """What compacts the history."""


class ModelCalls:
    """Asks the model for one run after the other of one pod."""

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
        request, size = self._request(run, template, tools), parts.conversation.occupancy
        if request is None:
            return
        if (hooks := tools.hooks) is not None and hooks.asks_before_request:
            asked = await self._ask_hooks(hooks, run, request, size)
            if asked is None:
                return
            request, size = asked
        exchange = run.exchange = self._exchange(run, resources, size, request.max_tokens)
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
        """Record all that the model is to see."""
        if run.pending:
            self.join_pending(run)
        last = self._parts.journal.head.items[-1]
        if type(last) is AssistantItem and last.cut:  # what ends with a model's words is refused
            self._parts.journal.log.record(SystemMessage, run.run_id, item=SystemItem.of(GO_ON))
        run.has_unseen_input = True

    def join_pending(self, run: Run) -> None:
        """Have what was said meanwhile join the history."""
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
        """The tools as their sources list them now, which whoever needs them first has opened; None where the
        run is to end instead. Raises SessionError, Left.
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

    def _exchange(
        self, run: Run, resources: PodResources, size: Callable[[], int], max_tokens: int | None
    ) -> Exchange:
        """What counts the request."""
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

    def _request(self, run: Run, template: PodTemplate, tools: ToolRunner) -> Request | None:
        """What the model is asked; None where the run is to end instead."""
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
        """Make what the run works with in the place of what its pod does, or end it. Nothing is recorded that
        is not durable. Raises Left.
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
        """The request as hooks would have it, and what gives its size; None where the run is to end instead.
        Raises Left.
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
        return changed, Context(list(view.items)).occupancy

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

    def end_turn(self) -> None:
        """Publish, once, that the turn has ended, with the calls of its answer."""
        if self._turn_open:
            self._turn_open = False
            self._publish_turn(TurnEnd)

    def hold_turn(self) -> bool:
        """Have ``end_turn`` end no turn until ``release_turn``; gives whether one goes on."""
        open_, self._turn_open = self._turn_open, False
        return open_

    def release_turn(self) -> None:
        """The turn that was held goes on."""
        self._turn_open = True

    # -- an answer -------------------------------------------------------------------------------

    def _take_answer(self, run: Run, exchange: Exchange, answer: Answer) -> None:
        cost = exchange.settle_answer(answer)
        run.exchange = None
        if exchange.failed:
            self._record_failed(run, exchange.failed)
        for each in exchange.accepted:
            self._add_tier(run, each)
        if answer.item.refused:
            answer = replace(answer, item=self._as_refused(run, answer.item))
        conversation, journal = self._parts.conversation, self._parts.journal
        conversation.guard = conversation.guard.request_answered()
        log, head = journal.log, journal.head
        try:
            log.add(
                AssistantMessage(
                    log.pod,
                    head.session_id,
                    head.seq + 1,
                    time.time(),
                    run.run_id,
                    item=answer.item,
                    model=answer.model,
                    stop_reason=answer.stop_reason,
                    usage=answer.usage,
                    cost=cost,
                )
            )
        except (TypeError, ValueError) as unfit:  # a client of the user's own gave what no JSON can hold
            run.error, run.ending = unfit, "failed"
            return
        run.has_unseen_input = False
        run.answer = answer.item
        run.stop_reason = answer.stop_reason
        if answer.stop_reason == "pause" or run.pauses:
            self._look_at_pause(run, answer)
        conversation.context().record_usage(len(head.items) - 1, answer.usage)
        self._count(answer.usage, cost)
        if answer.item.calls:
            run.started_calls = set()  # ids are unique within an answer, not within a run
        else:
            self.end_turn()

    def _look_at_pause(self, run: Run, answer: Answer) -> None:
        """A model that pauses is asked to go on, as long as that leads anywhere."""
        if answer.stop_reason != "pause":
            run.pauses, run.paused = 0, None
            return
        run.pauses += 1
        item, before = answer.item, run.paused
        run.paused = item
        stuck = not (item.content or item.calls or item.vendor) or item == before
        if (stuck or run.pauses > MAX_PAUSES) and run.ending is None:
            run.error, run.ending = paused_in_vain(self._model_of(run), run.pauses), "failed"

    def _as_refused(self, run: Run, item: AssistantItem) -> AssistantItem:
        """The item as that of a refusal: calls on the way to it are not to be run, and it has how far back
        its run reaches; a compaction since then keeps of that what it keeps.
        """
        items = self._parts.journal.head.items
        of_run = len(items) - run.began_at if run.began_in is items else 0
        return replace(item, refused=True, calls=(), refused_items=of_run)

    # -- no answer -------------------------------------------------------------------------------

    async def fail_request(self, run: Run, exchange: Exchange, error: BaseException) -> None:
        """Handle a failed request: compact once if the server says it is too long, else end the run."""
        exchange.end(error)
        run.exchange = None
        if run.ending is None and (overflow := self._too_long(error)) is not None:
            await self._compact_too_long(run, exchange, overflow)
            return
        refused = isinstance(error, ModelError) and error.kind == "content_filter"
        self._keep_shown(run, exchange, refused=refused)
        if run.ending is None and isinstance(error, OverBudget):
            self.note_exceeded(run, error.exceeded)
            return
        self.end_by_error(run, error)

    def end_by_error(self, run: Run, error: BaseException) -> None:
        """End the run by an error. An end that was asked for stands, whatever came of its cancel."""
        cancelled = isinstance(error, asyncio.CancelledError)
        if run.ending in {"cancelled", "paused"} or (run.ending is not None and cancelled):
            return
        if cancelled:  # from outside; who closes a loop cancels all its tasks
            run.ending = "paused" if self._parts.template.closing() else "cancelled"
        else:
            run.error, run.ending = error, "failed"

    def note_exceeded(self, run: Run, exceeded: Exceeded) -> None:
        """Record which budget the run has reached; it ends with that."""
        self._parts.journal.log.record(BudgetExceeded, run.run_id, **exceeded._asdict())
        run.ending, run.limit = "budget", budget_reached(exceeded)

    async def _record_tier(self, run: Run, ended: TierSpent) -> None:
        """Record what came of a tier that was not accepted, durably before the next is asked. Raises
        SessionError, Left.
        """
        run.waits.check()
        self._add_tier(run, ended)
        await self._parts.journal.commit()
        run.waits.check()

    def _add_tier(self, run: Run, ended: TierSpent) -> None:
        self._record_failed(run, ended.failed)
        usage, cost = ended.spent.usage, ended.spent.cost
        log, head = self._parts.journal.log, self._parts.journal.head
        log.add(
            TierAttempted(
                log.pod,
                head.session_id,
                head.seq + 1,
                time.time(),
                run.run_id,
                attempt=ended.attempt,
                usage=usage,
                cost=cost,
            )
        )
        if usage is not None or cost is not None:
            self._count(usage, cost)

    def _record_failed(self, run: Run, failed: list[FailedAttempt]) -> None:
        """Record and count what attempts took that gave no answer."""
        for each in failed:
            if each.usage is not None:
                self._parts.journal.log.record(
                    AttemptFailed,
                    run.run_id,
                    attempt=each.attempt,
                    error=each.failure,
                    usage=each.usage,
                    cost=each.cost,
                )
                self._count(each.usage, each.cost)

    def _keep_shown(self, run: Run, exchange: Exchange, *, refused: bool) -> None:
        """The request has no answer: what people saw of one joins the history, marked as cut or refused."""
        shown = exchange.take_shown()
        self._record_failed(run, exchange.failed)
        if shown is None:
            if refused:
                item = self._as_refused(run, AssistantItem())
                self._parts.journal.log.record(
                    AssistantMessage, run.run_id, item=item, stop_reason="content_filter"
                )
            return
        assert shown.shown is not None
        kept = self._as_refused(run, shown.shown) if refused else shown.shown
        run.answer, run.stop_reason = kept, None
        self._parts.journal.log.record(
            AssistantMessage,
            run.run_id,
            item=kept,
            model=self._model_of(run),
            usage=shown.usage,
            cost=shown.cost,
        )
        if shown.usage is not None:
            self._count(shown.usage, shown.cost)

    def _model_of(self, run: Run) -> str:
        """What the model of a run is called."""
        return (run.resources or self._parts.resources).template.model

    def _too_long(self, error: BaseException) -> ModelError | None:
        """The error, if it says that the request was too long and a compaction is to answer that."""
        if not isinstance(error, ModelError) or error.kind != "context_overflow":
            return None
        items = self._parts.journal.head.items
        return error if policy.after_overflow(self._parts.conversation.guard, len(items)) else None

    async def _compact_too_long(self, run: Run, exchange: Exchange, overflow: ModelError) -> None:
        """Answer an overflow with a compaction, after which the same request is sent once more."""
        self._parts.accounts.steps -= 1  # the request that follows the compaction is this one again
        self._record_failed(run, exchange.failed)
        if exchange.failed and exchange.failed[-1].shown is not None:
            self._parts.journal.publish(
                StreamRestart, attempt=exchange.failed[-1].attempt, error=Failure.of(overflow)
            )
        failed = await self._owner.compaction().fold("overflow", run.waits, window=overflow.context_window)
        self.end_compaction(run, failed, overflow)

    def end_compaction(
        self, run: Run, error: BaseException | None, overflow: ModelError | None = None
    ) -> None:
        """End the run if a compaction in the middle of it failed; else its request follows.

        ``overflow`` is what the compaction was to answer; where it fails the run's error names both.
        """
        if error is None or run.ending is not None:
            return
        if isinstance(error.__cause__, OverBudget):
            self.note_exceeded(run, error.__cause__.exceeded)
            return
        run.error, run.ending = error if overflow is None else still_too_long(overflow, error), "failed"

    def _count(self, usage: Usage | None, cost: float | None) -> None:
        accounts = self._parts.accounts
        accounts.count(usage, cost)
        journal = self._parts.journal
        if not journal.bus.silent and journal.has_subscriber(UsageUpdate):
            log, head = journal.log, journal.head
            event = UsageUpdate(
                pod=log.pod,
                session_id=head.session_id,
                seq=head.seq,
                at=time.time(),
                run_id=journal.run_id,
                usage=usage or Usage(),
                run_usage=accounts.run_usage or Usage(),
                cost=cost,
            )
            log.publish_transient(event)
