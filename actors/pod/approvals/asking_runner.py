"""``AskingRunner``: the pipeline of tool calls when some wait for a person while the others run."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Any

from msgspec import json
from msgspec.structs import replace

from actors.pod.approvals.open_approvals import OpenApprovals
from actors.pod.approvals.people_clock import PeopleClock
from actors.pod.runs.tool_runner import Batch, ToolRunner, with_texts
from actors.sessions.approvals import Granted
from actors.tools.base import ToolContext
from actors.tools.hooks import Hooks
from actors.tools.schedule import kind_of, run_as_they_come
from actors.tools.toolbox import Checked
from protocol.approval import ApprovalVerdict
from protocol.items import ToolCall, ToolResult
from protocol.tools import Concurrency


class _Parked(Exception):  # noqa: N818 - no error: it ends the way of a call that has to be asked for
    """Raised for a call that a hook has changed so that it now needs approval."""

    def __init__(self, call: ToolCall, found: ApprovalVerdict, injected: tuple[str, ...]) -> None:
        self.call, self.found, self.injected = call, found, injected


class AskingRunner(ToolRunner):
    """Runs the calls that need no approval or have it, and asks for the others.

    All requests of a batch are made before any of its calls runs, so hooks see those calls first.
    """

    __slots__ = ("_approvals", "_past_hooks", "_prepared", "_ready", "_shared_ids")

    def __init__(self, runner: ToolRunner, approvals: OpenApprovals) -> None:
        """Wrap the tools and hooks of ``runner``, for the pod that ``approvals`` belongs to."""
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
        #: The calls of the next batch that are not asked for, where those that are have been asked for.
        self._ready: list[ToolCall] | None = None

    def ask_ahead(self, calls: list[ToolCall]) -> None:
        """Record the requests of the next batch early, where that needs no waiting: they then become durable
        together with the model's answer that contains the calls.
        """
        self._ready = None
        approvals = self._approvals
        if not approvals.rules.knows_confinement(calls) or (
            self.hooks is not None and self.hooks.asks_before
        ):
            return
        self._find_shared_ids(calls)
        if self._shared_ids:
            return
        found = [self._to_ask(call) for call in calls]
        if any(found) and approvals.nobody_answers():
            return
        self._ready = []
        for call, asked in zip(calls, found, strict=True):
            if asked is None:
                self._ready.append(call)
            else:
                approvals.request(call, asked[1].why, (), hint=asked[1].hint)

    async def run(self, calls: list[ToolCall], batch: Batch) -> None:
        """Ask for the calls that need approval, all at once, and run the others as their kinds allow."""
        self._prepared.clear()
        ready, self._ready = self._ready, None
        if ready is None:
            ready = await self._ask(calls, batch)
        may_wait = self._approvals.state.open or (self.hooks is not None and self.hooks.asks_before)
        if ready and may_wait and not self._shared_ids:
            await self._run_as_approved(ready, batch)
        elif ready:
            await super().run(ready, batch)

    async def _ask(self, calls: list[ToolCall], batch: Batch) -> list[ToolCall]:
        """Ask for the calls that need it; returns the others."""
        self._find_shared_ids(calls)
        if (text := await self._approvals.rules.look_at_commands(calls)) is not None:
            await batch.alert(text)
        batch.check()
        ready = [call for call in calls if not await self._asked_first(call, batch)]
        if len(ready) < len(calls):
            await self._approvals.commit()
            batch.check()
        return ready

    def _find_shared_ids(self, calls: list[ToolCall]) -> None:
        ids = [call.id for call in calls]
        self._shared_ids = (
            {each for each in ids if ids.count(each) > 1} if len(set(ids)) < len(ids) else set()
        )

    async def _run_as_approved(self, ready: list[ToolCall], batch: Batch) -> None:
        """Run ``ready``, and beside them calls as they are approved."""
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
        """Wait until waiting calls are approved, durably, and return their ids; returns none once no call
        waits.
        """
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
        """Whether the call must not run now, because it waits or already has its result."""
        asked = self._to_ask(call)
        if asked is None:
            return False
        checked, found = asked
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
            call, found, injected = parked.call, parked.found, parked.injected
        return await self._ask_one(call, found, injected, batch)

    def _to_ask(self, call: ToolCall) -> tuple[Checked, ApprovalVerdict] | None:
        """The call if a person has to be asked about it, with the reason; else None."""
        if call.id in self._approvals.not_begun:
            return None
        checked = self.toolbox.check(call)
        if isinstance(checked, ToolResult):
            return None
        found = self._approvals.verdict(call, checked.tool)
        return (checked, found) if found.policy == "ask" else None

    async def _ask_one(
        self, call: ToolCall, found: ApprovalVerdict, injected: tuple[str, ...], batch: Batch
    ) -> bool:
        """Record that ``call`` waits; or, if nobody could answer, that it is not run."""
        because = None
        if call.id in self._shared_ids:
            because = "another call in the same answer has the same id; make the call again, on its own"
        elif self._approvals.nobody_answers():
            because = "nobody is there to give it"
            because += f'; {found.hint}, or [approvals] headless = "wait" makes it wait for a person'
        if because is not None:
            text = f"{call.name} was not run: it needs a person's approval ({found.why}), but {because}"
            await batch.record(with_texts(ToolResult.of(call, text, is_error=True), injected))
        else:
            batch.check()
            self._approvals.request(call, found.why, injected, hint=found.hint)
        return True

    async def _ask_form(
        self, call: ToolCall, batch: Batch, words: str, form: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Ask a person on behalf of a running tool; None if nobody answers. The call keeps its turn and its
        slot meanwhile.
        """
        approvals = self._approvals
        if approvals.nobody_answers():
            return None
        batch.check()
        request = approvals.request_form(call, words, form)
        await approvals.commit()
        batch.check()
        with self._clock().asking():
            answer = await approvals.form_answer(request, batch.take_answers)
        batch.check()
        return answer

    async def run_call(
        self, call: ToolCall, batch: Batch, texts: tuple[str, ...] = (), asked: ToolCall | None = None
    ) -> None:
        """Run one call that needs no more approval; when it ends, so do the questions that its tool asked."""
        with self._clock().at_work():
            await self._run_call(call, batch, texts, asked)
        if self._approvals.close_forms(call.id):
            await self._approvals.commit()
            batch.check()

    def _clock(self) -> PeopleClock:
        clock = self._approvals.clock
        assert clock is not None, "no call runs but in a batch"
        return clock

    async def _run_call(
        self, call: ToolCall, batch: Batch, texts: tuple[str, ...], asked: ToolCall | None
    ) -> None:
        granted = self._approvals.take(call.id)
        if granted is not None:
            await self._run_granted(call, granted, batch)
        elif call.id in self._prepared:
            ran, texts = self._prepared.pop(call.id)
            await self._run_prepared(ran, batch, texts, call)
        elif (denied := self._denied(call)) is not None:
            await batch.record(denied)
        else:
            try:
                await super().run_call(call, batch, texts, asked)
            except _Parked as parked:
                await self._ask_again(parked, batch)

    async def _ask_again(self, parked: _Parked, batch: Batch) -> None:
        await self._ask_one(parked.call, parked.found, parked.injected, batch)
        await self._approvals.commit()
        batch.check()

    async def _run_granted(self, call: ToolCall, granted: Granted, batch: Batch) -> None:
        """Run a call that a person has approved."""
        given, note = granted.resolution.arguments, granted.resolution.note
        ran, injected = replace(call, arguments=granted.arguments, invalid=None), granted.request.injected
        if (denied := self._denied(ran)) is not None:  # by rules that the pod was given since it asked
            await batch.record(with_texts(denied, injected))
            return
        if given is not None and self.hooks is not None and self.hooks.asks_before:
            try:
                answer, injected = await self._ask_about_given(self.hooks, ran, batch)
            except _Parked as parked:
                await self._ask_again(parked, batch)
                return
            if isinstance(answer, ToolResult):
                wanted = f"A person changed the arguments to {_json(given)}"
                await batch.record(with_texts(answer, (*injected, *self._limited((wanted,)))))
                return
            ran = answer
        said = _said(None if given is None else ran.arguments, note)
        await self._run_prepared(ran, batch, (*injected, *self._limited(said)), call)

    async def _ask_about_given(
        self, hooks: Hooks, given: ToolCall, batch: Batch
    ) -> tuple[ToolCall | ToolResult, tuple[str, ...]]:
        """Ask hooks about arguments that a person gave, which they have not seen. Raises ``_Parked`` if they
        change them so that approval is needed again.
        """
        checked = self.toolbox.check(given)
        if isinstance(checked, ToolResult):  # the tool is another one by now
            return checked, ()
        try:
            answer, injected = await self._ask_before(hooks, checked, self._context(given, batch), batch)
        except _Parked as parked:
            if parked.call.arguments != given.arguments:
                raise
            return parked.call, parked.injected  # as the person has approved it
        return answer if isinstance(answer, ToolResult) else answer.call, injected

    async def _run_prepared(
        self, call: ToolCall, batch: Batch, texts: tuple[str, ...], asked: ToolCall
    ) -> None:
        """Run an approved call that hooks were asked about earlier."""
        changed = None if call.arguments == asked.arguments else asked
        await self._past_hooks.run_call(call, batch, texts, changed)

    async def _ask_before(
        self, hooks: Hooks, checked: Checked, ctx: ToolContext, batch: Batch
    ) -> tuple[Checked | ToolResult, tuple[str, ...]]:
        """Ask hooks about a call, and check what they return against the policy. Raises ``_Parked``."""
        answer, injected = await super()._ask_before(hooks, checked, ctx, batch)
        if isinstance(answer, ToolResult):
            return answer, injected
        found = self._approvals.verdict(answer.call, answer.tool)
        if found.policy == "ask":
            raise _Parked(answer.call, found, injected)
        denied = self._denied(answer.call)
        return (answer, injected) if denied is None else (denied, injected)

    def _denied(self, call: ToolCall) -> ToolResult | None:
        """The result of a call that rules deny."""
        found = self._approvals.verdict(call, None)
        if found.policy != "deny":
            return None
        return ToolResult.of(call, f"{call.name} was not run: it is denied ({found.why})", is_error=True)


def _said(arguments: dict[str, Any] | None, note: str | None) -> tuple[str, ...]:
    """Texts from which the model learns how a call was approved."""
    texts = (
        None if arguments is None else f"A person changed the arguments; it ran with {_json(arguments)}",
        note and f"A person says: {note}",
    )
    return tuple(text for text in texts if text)


def _json(arguments: dict[str, Any]) -> str:
    return json.encode(arguments).decode()
