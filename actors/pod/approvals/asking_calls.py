"""``AskingToolCalls``: batches of calls of which some wait for a person, and the answers to those."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from actors.pod.approvals.asking_runner import AskingRunner
from actors.pod.approvals.forms import checked_form
from actors.pod.approvals.open_approvals import OpenApprovals
from actors.pod.runs.run_state import Run
from actors.pod.runs.tool_calls import Sources, ToolCalls
from actors.pod.runs.tool_runner import with_texts
from actors.sessions.replay import open_calls
from protocol import commands
from protocol.approval import ApprovalAnswer, ApprovalRule
from protocol.errors import AlreadyResolved, InvalidInput, ToolSourceError
from protocol.events import ApprovalRequested, RunOutcome, ToolResulted
from protocol.items import AssistantItem, ToolCall, ToolResult
from protocol.recordable import recordable


class _AskingSources:
    """The tool sources of a pod that asks for approvals."""

    def __init__(self, sources: Sources, approvals: OpenApprovals) -> None:
        self._sources = sources
        self._approvals = approvals

    @property
    def are_listed(self) -> bool:
        """Whether all have said which tools they have."""
        return self._sources.are_listed

    async def wait_open(self) -> None:
        """Have all opened. Raises ToolSourceError."""
        await self._sources.wait_open()

    def look(self, alert: Callable[[str], object]) -> AskingRunner:
        """The tools as they are now. Raises ToolSourceError."""
        return AskingRunner(self._sources.look(alert), self._approvals)


class AskingToolCalls(ToolCalls):
    """Runs batches of tool calls of which some need a person's approval, and takes the answers."""

    __slots__ = ("_approvals",)

    def __init__(self, *parts: Any, approvals: OpenApprovals) -> None:
        super().__init__(*parts)
        self._approvals = approvals
        self._tools = AskingRunner(self._tools, approvals)
        if self._sources is not None:
            self._sources = _AskingSources(self._sources, approvals)

    async def run(self, run: Run, calls: list[ToolCall]) -> bool:
        """As ``ToolCalls.run``."""
        if self._sources is None:  # else it takes a look at them to know which calls are asked for
            assert isinstance(self._tools, AskingRunner)
            self._tools.ask_ahead(calls)
        return await super().run(run, calls)

    # -- what people say -------------------------------------------------------------------------

    async def claim_answer(self, command: commands.Approve | commands.Disapprove) -> None:
        """Claim the right to answer before other processes do. Raises as ``answer``, and SessionError."""
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
            if command.arguments is not None and self._lacks_tools():
                await self._open_sources()  # of a pod that was restored, and has sent no request
            arguments = self._arguments(request, command.arguments)
            answer = replace(answer, always=command.always, arguments=arguments)
        else:
            answer = replace(answer, by=command.by)
        await self._approvals.claim(answer)

    def _lacks_tools(self) -> bool:
        """Whether a source has not listed its tools yet."""
        return self._sources is not None and not self._sources.are_listed

    async def _open_sources(self) -> None:
        """Have the sources list their tools. Raises InvalidInput."""
        assert self._sources is not None
        try:
            await self._sources.wait_open()
        except ToolSourceError as error:
            raise InvalidInput(f"the changed arguments cannot be checked: {error.message}") from error

    async def make_ready(self, run: Run) -> None:
        """Make the tools of the waiting calls available in a resumed run that has sent no request in this
        life of the pod. Raises ToolSourceError, SessionError, CancelledError.
        """
        if self._approvals.not_begun and self._lacks_tools():
            assert self._sources is not None
            await self._journal.commit()
            run.waits.check()
            await run.waits.apart(self._sources.wait_open(), "a source of tools")
            self._sources.look(self._journal.alert)

    def answer(self, run: Run | None, command: commands.Approve | commands.Disapprove) -> None:
        """Record a person's answer to a waiting call. Raises AlreadyResolved, UnknownApproval, and
        InvalidInput for arguments that the call cannot be run with.
        """
        request = self._approvals.find(command.approval_id)
        if isinstance(command, commands.Disapprove):
            self._deny(run, request, command.by, command.note)
        else:
            arguments = self._arguments(request, command.arguments)
            self._approve(request, arguments, command.note, always=command.always)

    def take_answers(self, run: Run) -> None:
        """Record the answers that other processes gave to calls that still wait."""
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
        if not self._approvals.signed.proves(request, answer):
            self._journal.alert(
                f"the stored answer that allows {request.tool} ({request.approval_id}) carries "
                "no valid proof that a person gave it: the call was denied"
            )
            self._deny(run, request, "unproved", None)
            return
        try:
            arguments = self._arguments(request, answer.arguments)
        except InvalidInput as error:  # nobody is there to get the error
            why = f"a person changed the arguments, but {error.message}"
            self._deny(run, request, answer.by, f"the arguments were changed, but {error.message}", why)
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
        """Deny all waiting calls, since the user has said something else."""
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
            self.add_result(run, result)
        else:
            self._journal.log.record(ToolResulted, self._journal.head.open_run, item=result)

    def _arguments(
        self, request: ApprovalRequested, arguments: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        """The arguments that an approval brings: changed arguments of the call, or the fields of a form.
        Raises InvalidInput.
        """
        if request.form is not None:
            return checked_form(request.form, arguments or {})
        return None if arguments is None else self._mended(request, arguments)

    def _mended(self, request: ApprovalRequested, arguments: dict[str, Any]) -> dict[str, Any]:
        """The changed arguments of an approval, checked by tool and rules. Raises InvalidInput."""
        call = recordable(ToolCall(request.call_id, request.tool, arguments))
        tools = self._tools if self._sources is None else self._sources.look(self._journal.alert)
        checked = tools.toolbox.check(call)
        if isinstance(checked, ToolResult):
            raise InvalidInput(f"the call cannot be run with these arguments: {checked.text}")
        found = self._approvals.verdict(call, checked.tool)
        if found.policy == "deny":
            raise InvalidInput(f"the call is denied with these arguments ({found.why})")
        return call.arguments

    # -- ends ------------------------------------------------------------------------------------

    def close_open(self, run: Run | None) -> None:
        """Give every call without a result its fixed result: calls that waited were not run."""
        not_begun = self._approvals.not_begun
        for request in self._approvals.state.open:
            self._approvals.resolve(request, "run", approved=False)
        self.close(run, open_calls(self._journal.head.items), not_begun)
        self._approvals.drop_granted()

    def close_at_end(self, run: Run, outcome: RunOutcome) -> None:
        """Close the open calls at the end of a run; when it is paused, waiting calls keep waiting."""
        if outcome == "paused":
            self._approvals.close_forms()
            self._close_but(self._approvals.awaited, run)
            self._approvals.drop_granted()
        else:
            self.close_open(run)

    def close_before_resume(self, run: Run) -> None:
        """Close the calls that were interrupted; those that wait, or were approved meanwhile, remain in the
        run.
        """
        kept = self._approvals.not_begun
        self._approvals.close_forms()
        self._close_but(kept, None if run.restored else run)
        if kept and run.answer is None:  # the session was restored
            items = self._journal.head.items
            run.answer = next(item for item in reversed(items) if isinstance(item, AssistantItem))
            run.started_calls = {call.id for call in run.answer.calls if call.id not in kept}

    def _close_but(self, kept: frozenset[str], run: Run | None) -> None:
        calls = open_calls(self._journal.head.items)
        self.close(run, [call for call in calls if call.id not in kept], self._approvals.not_begun)


def _denied_words(request: ApprovalRequested, by: str, note: str | None) -> str:
    """Why a call is not run, for the model."""
    if by == "timeout":
        within = f"{request.timeout:g} s ([approvals] timeout)"
        return f"it needs a person's approval, but nobody answered within {within}"
    if by == "unproved":
        return "it needs a person's approval, but the answer carries no valid proof that a person gave it"
    why = "it needs a person's approval, but nobody gave it" if by == "nobody" else "a person denied it"
    return why if note is None else f"{why}: {note}"
