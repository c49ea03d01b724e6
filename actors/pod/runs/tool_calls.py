"""``ToolCalls``: runs the calls of an answer, and records the result of each when it ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Any, Protocol

from msgspec import Struct

from actors.pod.resources import PodResources
from actors.pod.runs.repeats import NOTICE_FROM, Repeats, answers_since_last_words, noticed, since_last_words
from actors.pod.runs.run_state import Run
from actors.pod.runs.tool_runner import NOT_RUN, ToolRunner
from actors.pod.session.journal import Journal
from actors.runtime.actor import AsyncActor
from actors.runtime.interruptible import Interruptible, Left
from actors.runtime.loop import Mailroom
from actors.sessions.replay import open_calls
from actors.tools.toolbox import INTERRUPTED
from protocol import commands
from protocol.errors import ToolLoop
from protocol.events import RunOutcome, ToolProgress, ToolResulted, ToolStart
from protocol.items import AssistantItem, ToolCall, ToolResult, UserItem
from protocol.text import encodable

_log = logging.getLogger("polypod.tools")


class EndedLate(Struct, frozen=True):
    """Sent to the pod by a tool that it no longer waited for: the call's result, in words."""

    run_id: str
    text: str


class Sources(Protocol):
    """The tool sources of pods whose tools change."""

    @property
    def are_listed(self) -> bool:
        """Whether all sources have listed their tools."""

    async def wait_open(self) -> None:
        """Have all sources opened, and wait for that. Raises ToolSourceError."""

    def look(self, alert: Callable[[str], object], /) -> ToolRunner:
        """The tools as they are now. Raises ToolSourceError."""


class _Batch(Struct, eq=False):
    """The calls of an answer at work, and how many of them have no result yet."""

    _calls: ToolCalls
    _journal: Journal
    pod: str
    deps: Any
    run: Run
    #: The piece of work that the calls are part of: no call has any effect once that was left.
    waits: Interruptible
    #: How many results are not recorded.
    _left: int
    #: The ids of the calls that were begun and have not ended.
    _going_on: set[str] = set()

    def check(self) -> None:
        self.waits.check()

    def begin(self, call: ToolCall) -> None:
        run = self.run
        # Left, or its run has ended in this very turn of the loop, which a cancel of its task does not stop.
        if self.waits.left or run.ending is not None:
            raise asyncio.CancelledError
        run.started_calls.add(call.id)
        self._going_on.add(call.id)
        self._journal.publish(ToolStart, call_id=call.id, name=call.name, arguments=call.arguments)

    async def record(
        self,
        result: ToolResult,
        seconds: float | None = None,
        waited: float | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        self._going_on.discard(result.call_id)
        if self.waits.left:
            raise Left
        self._calls.add_result(self.run, result, seconds, waited, arguments)
        self._left -= 1
        if self._left:  # the last result becomes durable with the next request's commit
            await self._journal.commit()

    async def alert(self, text: str) -> None:
        self.waits.check()
        self._journal.alert(text)
        await self._journal.commit()
        self.waits.check()

    def take_answers(self) -> None:
        self._calls.take_answers(self.run)

    def expect_more(self) -> None:
        self._left = -1  # it is never 0

    def report_progress(self, call: ToolCall, text: str) -> None:
        self._calls.mailroom.post(lambda _: self._publish_progress(call, text))

    def _publish_progress(self, call: ToolCall, text: str) -> None:
        if self._is_waited_for(call):
            self._journal.publish(ToolProgress, call_id=call.id, name=call.name, text=encodable(str(text)))

    def _is_waited_for(self, call: ToolCall) -> bool:
        return not self.waits.left and self.waits.under_way and call.id in self._going_on

    def report_late(self, call: ToolCall, result: ToolResult) -> None:
        if self._is_waited_for(call):
            return  # its cancel is
        self._calls.send_late(self.run.run_id, _late_words(call, result))


class ToolCalls:
    """Runs batches of tool calls of one pod."""

    __slots__ = ("_journal", "_pod", "_resources", "_sources", "_template", "_tools", "mailroom")

    def __init__(
        self,
        resources: PodResources,
        journal: Journal,
        mailroom: Mailroom,
        pod: AsyncActor,
    ) -> None:
        """``pod`` gets the messages that come later; once it has stopped, late results go to the log."""
        self._resources = resources
        self._template = resources.template
        self._tools = resources.template.tools
        self._sources: Sources | None = resources.template.sources
        self._journal = journal
        self.mailroom = mailroom
        self._pod = pod

    def close_open(self, run: Run | None) -> None:
        """Give every call without a result its fixed one; nothing is run again."""
        items = self._journal.head.items
        if not items:
            return
        last = items[-1]
        if type(last) is UserItem or (type(last) is AssistantItem and not last.calls):
            return  # as nearly always
        self.close(run, open_calls(items))

    def close_at_end(self, run: Run, outcome: RunOutcome) -> None:  # noqa: ARG002 - nothing waits for a resume
        """Give every open call its fixed result, because the run ends with that outcome."""
        self.close_open(run)

    def close_before_resume(self, run: Run) -> None:
        """Give every open call its fixed result, because a paused run is about to continue."""
        self.close_open(None if run.restored else run)

    async def claim_answer(self, command: commands.Approve | commands.Disapprove) -> None:
        """Claim the right to answer a call, before other processes do. Here no call waits, since the pod asks
        for no approvals.
        """

    def answer(self, run: Run | None, command: commands.Approve | commands.Disapprove) -> None:
        """Record a person's answer about a call that waits. Here none does, since the pod asks for no
        approvals.
        """
        raise NotImplementedError

    def take_answers(self, run: Run) -> None:
        """Record what other processes have answered: nothing, since the pod asks for no approvals."""

    def deny_open(self, run: Run, note: str) -> None:
        """Deny all waiting calls: here none waits."""

    def close(
        self, run: Run | None, calls: Iterable[ToolCall], not_begun: AbstractSet[str] = frozenset()
    ) -> None:
        """Give these calls, which have none, a result that says whether they were begun."""
        # Calls that are older than a run's first answer are of another run, or another process: these may
        # have begun, whatever became of an earlier commit that said so.
        started = None if run is None or run.answer is None else run.started_calls
        for call in calls:
            never_ran = call.id in not_begun or (started is not None and call.id not in started)
            text = NOT_RUN if never_ran else INTERRUPTED
            result = ToolResult.of(call, text, is_error=True)
            self._journal.log.record(ToolResulted, None if run is None else run.run_id, item=result)

    async def run(self, run: Run, calls: list[ToolCall]) -> bool:
        """Run ``calls``, once they are durable. Returns False if none was begun, because the run was asked to
        end meanwhile.

        Raises what ends the batch early: CancelledError if it was interrupted, SessionError.
        """
        tools, sources = self._tools, self._sources
        if (own := run.own_tools) is not None:
            tools, sources = (own, None) if isinstance(own, ToolRunner) else (tools, own)
        if sources is not None:
            tools = sources.look(self._journal.alert)
        await self._journal.commit()
        run.waits.check()
        if run.ending is not None:
            return False
        run.started_calls = set()
        if self._template.manifest.worker.max_repeats:
            self._follow_repeats(run)
        resources = self._resources
        deps = resources.deps_for(run.deps)
        batch = _Batch(self, self._journal, resources.name, deps, run, run.waits, len(calls))
        await run.waits.inline(tools.run(calls, batch), _named(calls))
        return True

    def add_result(
        self,
        run: Run,
        result: ToolResult,
        seconds: float | None = None,
        waited: float | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        """Record the result of a call, with a notice if the model repeats itself without progress."""
        log, head = self._journal.log, self._journal.head
        log.add(
            ToolResulted(
                log.pod,
                head.session_id,
                head.seq + 1,
                time.time(),
                run.run_id,
                item=self._tracked(run, result),
                seconds=seconds,
                waited=waited,
                arguments=arguments,
            )
        )

    # -- what came of a call later ---------------------------------------------------------------

    def send_late(self, run_id: str, text: str) -> None:
        """Send the pod the result of a tool that was cancelled, or whose time was up."""
        if self._pod.actor_stopped.is_set():
            _log.warning("after its pod stopped: %s", text)
        else:
            self.mailroom.send(self._pod, EndedLate(run_id, text), None)

    # -- failure tracking ------------------------------------------------------------------------

    def _follow_repeats(self, run: Run) -> None:
        """Count the calls that are about to run for the detection of repetitions."""
        if run.repeats is None:
            most = self._template.manifest.worker.max_repeats
            items = self._journal.head.items
            if answers_since_last_words(items, at_least=min(NOTICE_FROM, most)):
                run.repeats = Repeats(since_last_words(items))
        elif run.answer is not None:
            run.repeats.add(run.answer)

    def _tracked(self, run: Run, result: ToolResult) -> ToolResult:
        """The result, with a notice if the model repeats itself without progress."""
        if run.repeats is None:
            return result
        repeated = run.repeats.add(result)
        if repeated is None or repeated.times < NOTICE_FROM:
            return result
        return noticed(result, repeated, self._template.manifest.worker.max_repeats)

    def end_loop(self, run: Run) -> None:
        """End a run whose model keeps repeating itself, unless somebody has said something meanwhile."""
        worst = None if run.repeats is None else run.repeats.worst
        most = self._template.manifest.worker.max_repeats
        if worst is not None and worst.times >= most and run.ending is None and not run.pending:
            run.error, run.ending = ToolLoop(worst.words, tool=worst.name, times=worst.times), "failed"


def _named(calls: list[ToolCall]) -> str:
    if len(calls) == 1:
        return f"tool {calls[0].name}"
    return f"tools {', '.join(dict.fromkeys(call.name for call in calls))}"


def _late_words(call: ToolCall, result: ToolResult) -> str:
    """The alert about a call that ended when nobody waited for it any more."""
    words = " ".join(result.text.split())
    shown = words if len(words) <= 200 else f"{words[:200]}…"
    how = "with an error" if result.is_error else "with a result"
    return f"tool {call.name} ({call.id}) ended {how} after the pod had stopped waiting for it: {shown}"
