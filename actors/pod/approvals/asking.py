"""Approvals in a pod: calls that need a person's word wait for it, the others run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Any

from msgspec import json
from msgspec.structs import replace

from actors.pod.approvals.forms import checked_form
from actors.pod.approvals.open_approvals import OpenApprovals
from actors.pod.runs import decide
from actors.pod.runs.gate import Gate
from actors.pod.runs.play import Owner, Play
from actors.pod.runs.run_parts import RunParts
from actors.pod.runs.run_state import Run
from actors.pod.runs.tool_calls import Sources, ToolCalls
from actors.pod.runs.tool_runner import Batch, ToolRunner, with_texts
from actors.sessions.replay import open_calls
from actors.tools.base import Checked, ToolContext
from actors.tools.hooks import Hooks
from actors.tools.schedule import kind_of, run_as_they_come
from protocol import commands
from protocol.approval import ApprovalAnswer, ApprovalRule, ApprovalVerdict
from protocol.errors import AlreadyResolved, InvalidInput
from protocol.events import ApprovalRequested, RunOutcome, ToolResulted
from protocol.items import AssistantItem, ToolCall, ToolResult
from protocol.lifecycle import PodState
from protocol.recordable import recordable
from protocol.tools import Concurrency


class _Parked(Exception):  # noqa: N818 - no error: it ends the way of a call that has to be asked for
    """A call that hooks have changed has to be asked for."""

    def __init__(self, call: ToolCall, why: str, injected: tuple[str, ...]) -> None:
        self.call, self.why, self.injected = call, why, injected


class AskingRunner(ToolRunner):
    """Runs calls that need no person's word or have it, and asks for the others.

    The requests of a batch are made before any of its calls is run, so those are the calls that
    hooks are asked about first.
    """

    __slots__ = ("_approvals", "_past_hooks", "_prepared", "_shared_ids")

    def __init__(self, runner: ToolRunner, approvals: OpenApprovals) -> None:
        """The same tools and hooks as ``runner``, for the pod whose ``approvals`` these are."""
        for name in ToolRunner.__slots__:
            setattr(self, name, getattr(runner, name))
        self._approvals = approvals
        #: Runs calls that hooks have been asked about.
        self._past_hooks = runner.past_hooks()
        self.ask_form = self._past_hooks.ask_form = self._ask_form
        #: Calls that hooks have made such as need no word, with the texts behind the result, by their ids.
        self._prepared: dict[str, tuple[ToolCall, tuple[str, ...]]] = {}
        #: Ids that several calls of the answer share: an approval could not be assigned to one of them.
        self._shared_ids: set[str] = set()

    async def run(self, calls: list[ToolCall], batch: Batch) -> None:
        """Ask for those calls that need it, all at once, and run the others as their kinds allow."""
        self._prepared.clear()
        ids = [call.id for call in calls]
        self._shared_ids = (
            {each for each in ids if ids.count(each) > 1} if len(set(ids)) < len(ids) else set()
        )
        if (text := await self._approvals.look_at_commands(calls)) is not None:
            await batch.alert(text)
        batch.check()
        ready = [call for call in calls if not await self._asked_first(call, batch)]
        if len(ready) < len(calls):
            await self._approvals.commit()
            batch.check()
        may_wait = self._approvals.state.open or (self.hooks is not None and self.hooks.asks_before)
        if ready and may_wait and not self._shared_ids:
            await self._run_as_approved(ready, batch)
        elif ready:
            await super().run(ready, batch)

    async def _run_as_approved(self, ready: list[ToolCall], batch: Batch) -> None:
        """Run ``ready``, and beside them the calls that are approved meanwhile."""
        batch.expect_more()
        calls = self._approvals.open_calls()
        numbers = {call.id: number for number, call in enumerate(calls)}
        begun = {call.id for call in ready}

        def kinds(chosen: Iterable[ToolCall]) -> dict[int, Concurrency]:
            return {numbers[call.id]: kind_of(self.toolbox, call) for call in chosen}

        async def approved() -> dict[int, Concurrency]:
            ids = await self._wait_for_granted(begun, batch)
            begun.update(ids)
            return kinds(call for call in calls if call.id in ids)

        async def run_one(number: int) -> None:
            await self.run_call(calls[number], batch)
            # Hooks may have made it one that has to be asked for.
            begun.difference_update(self._approvals.awaited)

        await run_as_they_come(
            kinds(ready),
            approved,
            lambda: bool(self._approvals.not_begun - begun),
            run_one,
            self._parallel,
        )

    async def _wait_for_granted(self, begun: AbstractSet[str], batch: Batch) -> AbstractSet[str]:
        """Wait until calls that waited are approved, durably: their ids; none where none waits any more."""
        approvals = self._approvals
        while approvals.not_begun - begun:
            if approvals.answers:
                batch.take_answers()
                await approvals.commit()
                batch.check()
            if approvals.not_begun - approvals.awaited - begun:
                await approvals.commit()
                batch.check()
                if granted := approvals.not_begun - approvals.awaited - begun:
                    return granted
            await approvals.await_change()
            batch.check()
        return frozenset()

    async def _asked_first(self, call: ToolCall, batch: Batch) -> bool:
        """Whether that call is not to be run now: it waits, or has its result already."""
        approvals = self._approvals
        if call.id in approvals.not_begun:
            return False
        checked = self.toolbox.check(call)
        if isinstance(checked, ToolResult):
            return False
        found = approvals.verdict(call, checked.tool)
        if found.policy != "ask":
            return False
        injected: tuple[str, ...] = ()
        shared = call.id in self._shared_ids
        try:
            if self.hooks is not None and self.hooks.asks_before and not shared:
                answer, injected = await self._ask_before(
                    self.hooks, checked, self._context(call, batch), batch
                )
                if isinstance(answer, ToolResult):
                    await batch.record(with_texts(answer, injected))
                    return True
                if answer is not checked:  # else it would have raised
                    self._prepared[call.id] = answer.call, injected
                    return False
        except _Parked as parked:
            call, found, injected = parked.call, ApprovalVerdict("ask", parked.why), parked.injected
        return await self._ask(call, found.why, injected, batch)

    async def _ask(self, call: ToolCall, why: str, injected: tuple[str, ...], batch: Batch) -> bool:
        """Record that ``call`` waits; where nobody could say a word of it, that it is not run."""
        because = None
        if call.id in self._shared_ids:
            because = "another call of the same answer has its id; make the call again, alone"
        elif self._approvals.nobody_answers():
            because = "nobody is there to give it"
        if because is not None:
            text = f"{call.name} was not run: it needs a person's approval ({why}), and {because}"
            await batch.record(with_texts(ToolResult.of(call, text, is_error=True), injected))
        else:
            batch.check()
            self._approvals.request(call, why, injected)
        return True

    async def _ask_form(
        self, call: ToolCall, batch: Batch, words: str, form: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Ask a person for the tool of a call that has begun; None where nobody answers. The call's turn is
        kept meanwhile, and so is its place.
        """
        approvals = self._approvals
        if approvals.nobody_answers():
            return None
        batch.check()
        request = approvals.request_form(call, words, form)
        await approvals.commit()
        batch.check()
        answer = await approvals.form_answer(request, batch.take_answers)
        batch.check()
        return answer

    async def run_call(
        self, call: ToolCall, batch: Batch, texts: tuple[str, ...] = (), asked: ToolCall | None = None
    ) -> None:
        """Run one call, once it needs no approval any more; with it end the questions of its tool."""
        await self._run_call(call, batch, texts, asked)
        if self._approvals.close_forms(call.id):
            await self._approvals.commit()
            batch.check()

    async def _run_call(
        self, call: ToolCall, batch: Batch, texts: tuple[str, ...], asked: ToolCall | None
    ) -> None:
        granted = self._approvals.take(call.id)
        if granted is not None:
            ran = replace(call, arguments=granted.arguments, invalid=None)
            texts = (*granted.request.injected, *_said(granted.resolution.arguments, granted.resolution.note))
            if (denied := self._denied(ran)) is not None:  # by rules that the pod was given since it asked
                await batch.record(with_texts(denied, granted.request.injected))
            else:
                await self._run_prepared(ran, batch, texts, call)
        elif call.id in self._prepared:
            ran, texts = self._prepared.pop(call.id)
            await self._run_prepared(ran, batch, texts, call)
        elif (denied := self._denied(call)) is not None:
            await batch.record(denied)
        else:
            try:
                await super().run_call(call, batch, texts, asked)
            except _Parked as parked:
                await self._ask(parked.call, parked.why, parked.injected, batch)
                await self._approvals.commit()
                batch.check()

    async def _run_prepared(
        self, call: ToolCall, batch: Batch, texts: tuple[str, ...], asked: ToolCall
    ) -> None:
        """Run a call that hooks were asked about before, and that has its approval."""
        changed = None if call.arguments == asked.arguments else asked
        await self._past_hooks.run_call(call, batch, texts, changed)

    async def _ask_before(
        self, hooks: Hooks, checked: Checked, ctx: ToolContext, batch: Batch
    ) -> tuple[Checked | ToolResult, tuple[str, ...]]:
        """What hooks make of a call, and what policy says of that. Raises ``_Parked``."""
        answer, injected = await super()._ask_before(hooks, checked, ctx, batch)
        if isinstance(answer, ToolResult):
            return answer, injected
        found = self._approvals.verdict(answer.call, answer.tool)
        if found.policy == "ask":
            raise _Parked(answer.call, found.why, injected)
        denied = self._denied(answer.call)
        return (answer, injected) if denied is None else (denied, injected)

    def _denied(self, call: ToolCall) -> ToolResult | None:
        """The result of a call that rules deny."""
        found = self._approvals.verdict(call, None)
        if found.policy != "deny":
            return None
        return ToolResult.of(call, f"{call.name} was not run: it is denied ({found.why})", is_error=True)


class _AskingSources:
    """Tools that come and go, of a pod that asks."""

    def __init__(self, sources: Sources, approvals: OpenApprovals) -> None:
        self._sources = sources
        self._approvals = approvals

    def look(self, alert: Callable[[str], object]) -> AskingRunner:
        """The tools as they are now. Raises ToolSourceError."""
        return AskingRunner(self._sources.look(alert), self._approvals)


class AskingToolCalls(ToolCalls):
    """Runs batches of tool calls of which some need a person's word, and takes what people say."""

    __slots__ = ("_approvals",)

    def __init__(self, *parts: Any, approvals: OpenApprovals) -> None:
        super().__init__(*parts)
        self._approvals = approvals
        self._tools = AskingRunner(self._tools, approvals)
        if self._sources is not None:
            self._sources = _AskingSources(self._sources, approvals)

    # -- what people say -------------------------------------------------------------------------

    async def claim_answer(self, command: commands.Approve | commands.Disapprove) -> None:
        """Be the first of all processes to answer. Raises as ``answer``, and SessionError."""
        request = self._approvals.find(command.approval_id)
        if request.ends_at <= time.time():
            self._approvals.wake()
            raise AlreadyResolved(f"approval {request.approval_id} was not answered in time")
        answer = ApprovalAnswer(
            request.approval_id,
            self._journal.head.session_id,
            approved=isinstance(command, commands.Approve),
            at=time.time(),
            note=command.note,
        )
        if isinstance(command, commands.Approve):
            arguments = self._arguments(request, command.arguments)
            answer = replace(answer, always=command.always, arguments=arguments)
        else:
            answer = replace(answer, by=command.by)
        await self._approvals.claim(answer)

    def answer(self, run: Run | None, command: commands.Approve | commands.Disapprove) -> None:
        """Record what a person says of a call that waits. Raises AlreadyResolved, UnknownApproval, and
        InvalidInput for arguments that the call cannot be run with.
        """
        request = self._approvals.find(command.approval_id)
        if isinstance(command, commands.Disapprove):
            self._deny(run, request, command.by, command.note)
        else:
            arguments = self._arguments(request, command.arguments)
            self._approve(request, arguments, command.note, always=command.always)

    def take_answers(self, run: Run) -> None:
        """Record what other processes have answered to calls that wait still."""
        answers, self._approvals.answers = self._approvals.answers, []
        for answer in answers:
            request = self._approvals.state.find(answer.approval_id)
            if request is not None:
                self._take(run, request, answer)

    def _take(self, run: Run, request: ApprovalRequested, answer: ApprovalAnswer) -> None:
        if request.ends_at <= answer.at:  # as it is by ``timeout``
            self._deny(run, request, "timeout", None)
            return
        if not answer.approved:
            self._deny(run, request, answer.by, answer.note)
            return
        if not self._approvals.proves(request, answer):
            self._journal.alert(
                f"the store has an answer that allows {request.tool} ({request.approval_id}), and bears no "
                "proof that a person gave it: the call was denied"
            )
            self._deny(run, request, "unproved", None)
            return
        try:
            arguments = self._arguments(request, answer.arguments)
        except InvalidInput as error:  # nobody is there to get the error
            why = f"a person wanted other arguments; {error.message}"
            self._deny(run, request, answer.by, f"other arguments were wanted; {error.message}", why)
        else:
            self._approve(request, arguments, answer.note, always=answer.always)

    def _approve(
        self, request: ApprovalRequested, arguments: dict[str, Any] | None, note: str | None, *, always: bool
    ) -> None:
        rule = None
        if always and request.form is None:
            holds = request.arguments if arguments is None else arguments
            rule = ApprovalRule(request.tool, "allow", holds, exact=True)
        self._approvals.resolve(request, "person", approved=True, arguments=arguments, note=note, rule=rule)

    def deny_open(self, run: Run, note: str) -> None:
        """Record that none of the calls that wait is run, since somebody has said something else."""
        for request in self._approvals.state.open:
            self._deny(run, request, "steer", note)

    def _deny(
        self, run: Run | None, request: ApprovalRequested, by: str, note: str | None, why: str | None = None
    ) -> None:
        self._approvals.resolve(request, by, approved=False, note=note)
        if request.form is not None:
            return  # its tool goes on without the answer
        call = ToolCall(request.call_id, request.tool, request.arguments)
        why = why or _denied_words(request, by, note)
        result = ToolResult.of(call, f"{call.name} was not run: {why}", is_error=True)
        result = with_texts(result, request.injected)
        if run is not None:
            self.add_result(run, result, None, None, None)
        else:
            self._journal.log.record(ToolResulted, self._journal.head.open_run, item=result)

    def _arguments(
        self, request: ApprovalRequested, arguments: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        """What an approval gives: arguments in the place of those that were asked about, or what a form asks
        for. Raises InvalidInput.
        """
        if request.form is not None:
            return checked_form(request.form, arguments or {})
        return None if arguments is None else self._mended(request, arguments)

    def _mended(self, request: ApprovalRequested, arguments: dict[str, Any]) -> dict[str, Any]:
        """Arguments in the place of those that were asked about. Raises InvalidInput."""
        call = recordable(ToolCall(request.call_id, request.tool, arguments))
        tools = self._tools if self._sources is None else self._sources.look(self._journal.alert)
        checked = tools.toolbox.check(call)
        if isinstance(checked, ToolResult):
            raise InvalidInput(f"with these arguments the call cannot be run: {checked.text}")
        found = self._approvals.verdict(call, checked.tool)
        if found.policy == "deny":
            raise InvalidInput(f"with these arguments the call is denied ({found.why})")
        return call.arguments

    # -- ends ------------------------------------------------------------------------------------

    def close_open(self, run: Run | None) -> None:
        """Give every call without a result its deterministic one: those that wait were not run."""
        not_begun = self._approvals.not_begun
        for request in self._approvals.state.open:
            self._approvals.resolve(request, "run", approved=False)
        self._close(run, open_calls(self._journal.head.items), not_begun)
        self._approvals.drop_granted()

    def close_at_end(self, run: Run, outcome: RunOutcome) -> None:
        """The same; at a pause the calls that wait go on doing so."""
        if outcome == "paused":
            self._approvals.close_forms()
            self._close_but(self._approvals.awaited, run)
            self._approvals.drop_granted()
        else:
            self.close_open(run)

    def close_before_resume(self, run: Run) -> None:
        """Close what was interrupted; calls that wait, or were approved meanwhile, belong to what goes on."""
        kept = self._approvals.not_begun
        self._approvals.close_forms()
        self._close_but(kept, None if run.restored else run)
        if kept and run.answer is None:  # the session was restored
            items = self._journal.head.items
            run.answer = next(item for item in reversed(items) if isinstance(item, AssistantItem))

    def _close_but(self, kept: frozenset[str], run: Run | None) -> None:
        calls = open_calls(self._journal.head.items)
        self._close(run, [call for call in calls if call.id not in kept], self._approvals.not_begun)


class AskingPlay(Play):
    """Plays runs of which some calls wait for a person."""

    __slots__ = ("_approvals", "_held_turn", "_status")

    def __init__(self, parts: RunParts, gate: Gate, owner: Owner) -> None:
        super().__init__(parts, gate, owner)
        assert parts.approvals is not None
        self._approvals = parts.approvals
        self._status = parts.status
        #: Whether calls are at work that do not end the turn that goes on, since others may wait.
        self._held_turn = False

    async def _run_tools(self, run: Run, step: decide.RunTools) -> None:
        decided = decide.of_calls(step, self._approvals.awaited)
        if isinstance(decided, decide.AwaitAnswer):
            await self._await_answer(run)
        else:
            self._held_turn = self._model_calls.hold_turn()
            await super()._run_tools(run, decided)
            self._release_turn()
        if not open_calls(self._journal.head.items):
            self._model_calls.end_turn()

    def _release_turn(self) -> None:
        if self._held_turn:
            self._held_turn = False
            self._model_calls.release_turn()

    def go_on(self, run: Run) -> None:
        """As ``Play.go_on``."""
        self._release_turn()
        super().go_on(run)

    async def _await_answer(self, run: Run) -> None:
        """Wait until there may be something to do; that time is nobody's but the person's."""
        waits = run.waits
        await self._journal.commit()  # results, and requests, that nothing else makes durable
        waits.check()
        self._hold_clock()
        self._status.to(PodState.WAITING)
        try:
            if self._gate.waiting:
                await self._gate.let_pass(waits)
            elif run.ending is None and self._waits_for_all():
                await waits.inline(self._approvals.await_change(), "an approval")
        except asyncio.CancelledError as error:
            self._model_calls.end_by_error(run, error)
        waits.check()
        self._status.to(PodState.RUNNING)
        self._release_clock(run)
        if self._approvals.answers:
            self._tool_calls.take_answers(run)
            await self._journal.commit()
            waits.check()

    def _waits_for_all(self) -> bool:
        """Whether still nothing but a person's word lets the run go on."""
        awaited = self._approvals.awaited
        calls = open_calls(self._journal.head.items)
        return bool(calls) and all(call.id in awaited for call in calls)

    # -- the clock -------------------------------------------------------------------------------

    def _hold_clock(self) -> None:
        self._accounts.hold_clock()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _release_clock(self, run: Run) -> None:
        held = self._accounts.release_clock()
        if run.deadline is not None:
            run.deadline += held
            left = run.deadline - time.monotonic()
            self._alarm = self._tasks.loop.call_later(left, self._out_of_time, run)

    def stop_clock(self) -> float:
        """The run has ended, or is lost: its seconds."""
        self._accounts.release_clock()
        return super().stop_clock()


def _denied_words(request: ApprovalRequested, by: str, note: str | None) -> str:
    """Why a call is not run, for the model."""
    if by == "timeout":
        return f"it needs a person's approval, and nobody answered within {request.timeout:g} s"
    if by == "unproved":
        return "it needs a person's approval, and the answer to it bears no proof that a person gave it"
    why = "it needs a person's approval, and nobody gave it" if by == "nobody" else "a person denied it"
    return why if note is None else f"{why}: {note}"


def _said(arguments: dict[str, Any] | None, note: str | None) -> tuple[str, ...]:
    """Texts for the model about how a call was approved."""
    mended = "" if arguments is None else json.encode(arguments).decode()
    texts = (
        mended and f"A person changed the arguments; it ran with {mended}",
        note and f"A person says: {note}",
    )
    return tuple(text for text in texts if text)
