"""``OpenApprovals``: a pod's approval rules, and which of its calls wait for a person."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec.structs import replace

from actors.pod.approvals.answer_watch import INTERVAL
from actors.pod.approvals.call_rules import CallRules
from actors.pod.approvals.people_clock import PeopleClock
from actors.pod.approvals.signed_answers import SignedAnswers
from actors.pod.resources import PodResources
from actors.pod.session.journal import Journal
from actors.sessions.answers import settled
from actors.sessions.approvals import Approvals, Granted
from actors.sessions.replay import open_calls
from actors.tools.base import Tool
from protocol.approval import ApprovalAnswer, ApprovalVerdict
from protocol.errors import AlreadyResolved, SessionError, UnknownApproval, WaitingForApproval
from protocol.events import ApprovalRequested, ApprovalResolved
from protocol.foreign import shown
from protocol.items import ToolCall

#: Seconds after which the clock is looked at again: it may have been set, or the machine slept.
_LONGEST = 60.0
#: Seconds after which answers in other processes are looked for again, where the store could not be read.
_RETRY = 2.0


class OpenApprovals:
    """What a pod has asked people and what they answered, as recorded; made only for pods that have rules.

    ``state`` includes what is not durable yet; ``rewind`` goes back to what is durable after a refused
    commit.
    """

    __slots__ = (
        "__weakref__",
        "_before",
        "_changed",
        "_forms",
        "_journal",
        "_resolved",
        "_section",
        "_template",
        "answers",
        "clock",
        "parked",
        "pod",
        "recall",
        "rules",
        "signed",
        "state",
    )

    def __init__(self, resources: PodResources, journal: Journal, state: Approvals) -> None:
        manifest = resources.template.manifest
        self.pod = resources.name
        self._template = resources.template
        self._section = manifest.approvals
        self.rules = CallRules(resources)
        self.signed = SignedAnswers(resources.template.store)
        self._journal = journal
        self.state = state
        #: How it stood before each event that is perhaps not durable yet, by that event's number.
        self._before: list[tuple[int, Approvals]] = []
        #: Ids that were answered in this life of the pod.
        self._resolved: set[str] = set()
        #: Whether a run waits for a person's word, and does and holds nothing else.
        self.parked = False
        #: What such a run waits for before it goes on, since its pod has given back its history meanwhile.
        self.recall: Callable[[], Awaitable[None]] | None = None
        #: Counts the calls at work that wait for people; None while none is at work.
        self.clock: PeopleClock | None = None
        #: What a run waits for that can do nothing else.
        self._changed: asyncio.Future[None] | None = None
        #: The answers to forms that tools at work wait for, by the ids of the requests.
        self._forms: dict[str, asyncio.Future[dict[str, Any] | None]] = {}
        for request in state.open:
            self._template.answers.askers.setdefault(request.approval_id, self)
        #: What other processes have answered, until the run takes it.
        self.answers: list[ApprovalAnswer] = []

    # -- how it stands ---------------------------------------------------------------------------

    def verdict(self, call: ToolCall, tool: Tool | None) -> ApprovalVerdict:
        """What the rules say of a ``call`` of ``tool``."""
        return self.rules.verdict(call, tool, self.state.rules)

    @property
    def awaited(self) -> frozenset[str]:
        """The ids of the calls that wait."""
        return frozenset([request.call_id for request in self.state.open if request.form is None])

    @property
    def not_begun(self) -> frozenset[str]:
        """The ids of the calls that wait, or were approved and have not begun."""
        return self.awaited.union(granted.request.call_id for granted in self.state.granted)

    def durable_open(self) -> tuple[ApprovalRequested, ...]:
        """The durable requests that nobody has answered and that can still be answered."""
        now = time.time()
        return tuple(
            each
            for each in self._durable().open
            if each in self.state.open
            and now < each.ends_at
            # whoever has asked by a form may be gone, with its process
            and (each.form is None or each.approval_id in self._forms)
        )

    def carried(self) -> dict[str, Any]:
        """What a session that takes the place of the pod's inherits."""
        durable = self._durable()
        waiting = tuple(each for each in durable.open if each.form is None)
        return {"waiting": waiting, "approval_rules": durable.rules}

    def _durable(self) -> Approvals:
        durable_seq = self._journal.log.durable_seq
        return next((before for seq, before in self._before if seq > durable_seq), self.state)

    def nobody_answers(self) -> bool:
        """Whether nobody subscribes to a question that must be answered at once or not at all."""
        subscribed = self._template.bus.has_subscriber(self.pod, ApprovalRequested)
        return self._section.headless == "deny" and not subscribed

    def check_none_open(self) -> None:
        """Raise WaitingForApproval if calls wait."""
        if self.state.open:
            tools = ", ".join(dict.fromkeys(request.tool for request in self.state.open))
            raise WaitingForApproval(
                f"calls of pod {self.pod!r} wait for approval: {tools}",
                hint="approve or deny them first, or cancel the run",
            )

    def find(self, approval_id: str) -> ApprovalRequested:
        """The open request of that id. Raises AlreadyResolved, UnknownApproval."""
        request = self.state.find(approval_id)
        if request is not None:
            return request
        if approval_id in self._resolved:
            raise AlreadyResolved.of(approval_id)
        raise UnknownApproval(
            f"pod {self.pod!r} has no approval with the id {shown(approval_id)}",
            hint="list them with approvals()",
        )

    def knows(self, approval_id: str) -> bool:
        """Whether a request of that id is open, or was."""
        return approval_id in self._resolved or self.state.find(approval_id) is not None

    def open_calls(self) -> list[ToolCall]:
        """The calls of the answer that have no result, in its order."""
        return open_calls(self._journal.head.items)

    async def commit(self) -> None:
        """Make all that is recorded durable. Raises SessionError."""
        await self._journal.commit()

    # -- what happens ----------------------------------------------------------------------------

    def request_form(self, call: ToolCall, why: str, form: dict[str, Any]) -> ApprovalRequested:
        """Record that the tool of ``call``, which has begun, asks a person."""
        asking = replace(call, arguments={})
        request = self.request(asking, why, (), form)
        self._forms[request.approval_id] = asyncio.get_running_loop().create_future()
        return request

    async def form_answer(
        self, request: ApprovalRequested, take: Callable[[], object]
    ) -> dict[str, Any] | None:
        """A person's answer to a form; None if nobody has answered. ``take`` has the run take the answers of
        other processes.
        """
        answered, store = self._forms[request.approval_id], self._template.store
        while not answered.done():
            await asyncio.wait({answered}, timeout=INTERVAL)
            if not answered.done() and request.ends_at <= time.time():
                self.resolve(request, "timeout", approved=False)
            elif not answered.done() and store.keeps_answers:
                with contextlib.suppress(Exception):  # as for a call that waits
                    self.answers += await settled(store.answers([request.approval_id]))
                take()
        await self.commit()
        return answered.result()

    def close_forms(self, call_id: str | None = None) -> bool:
        """Record that the forms (of one call) are no longer waited for; returns whether there were any."""
        open_forms = [each for each in self.state.open if each.form is not None]
        gone = [each for each in open_forms if call_id in {None, each.call_id}]
        for request in gone:
            self.resolve(request, "run", approved=False)
        return bool(gone)

    def request(
        self,
        call: ToolCall,
        why: str,
        injected: tuple[str, ...],
        form: dict[str, Any] | None = None,
        hint: str = "",
    ) -> ApprovalRequested:
        """Record that ``call`` waits."""
        request = ApprovalRequested(
            *self._head(self._journal.run_id),
            approval_id=_new_id(),
            tool=call.name,
            call_id=call.id,
            arguments=call.arguments,
            why=why,
            hint=hint or None,
            injected=injected,
            timeout=self._section.timeout,
            token=self.signed.token_id(),
            form=form,
        )
        self._template.answers.askers[request.approval_id] = self
        self._add(request)
        return request

    def resolve(self, request: ApprovalRequested, by: str, *, approved: bool, **said: Any) -> None:
        """Record that a call no longer waits, since somebody has answered or its run is over."""
        self._resolved.add(request.approval_id)
        if self._template.answers.askers.get(request.approval_id) is self:
            del self._template.answers.askers[request.approval_id]
        resolved = ApprovalResolved(
            *self._head(request.run_id),
            approval_id=request.approval_id,
            approved=approved,
            by=by,
            call_id=request.call_id,
            **said,
        )
        self._add(resolved)
        answered = self._forms.pop(request.approval_id, None)
        if answered is not None and not answered.done():
            answered.set_result((resolved.arguments or {}) if approved else None)

    def take(self, call_id: str) -> Granted | None:
        """Note that a call begins; returns its approval, if it had one."""
        found = next((each for each in self.state.granted if each.request.call_id == call_id), None)
        if found is not None:
            self._without_granted(call_id)
        return found

    def drop_granted(self) -> None:
        """Forget the approvals of calls that have not begun: none of them will."""
        if self.state.granted:
            self._without_granted(*(granted.request.call_id for granted in self.state.granted))

    def rewind(self) -> None:
        """Return to what is durable, since the store has refused what was recorded."""
        self.state = self._durable()
        durable_seq = self._journal.log.durable_seq
        self._before = [each for each in self._before if each[0] <= durable_seq]

    def wake(self) -> None:
        """Have a waiting run check again whether it can go on."""
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    async def await_change(self) -> None:
        """Wait until there may be something to do, such as new ``answers``."""
        loop = asyncio.get_running_loop()
        changed = self._changed = loop.create_future()
        timers: list[asyncio.TimerHandle] = []
        session_id = self._journal.head.session_id
        try:
            if self._template.store.keeps_answers and not await self._listen(session_id):
                timers.append(loop.call_later(_RETRY, self.wake))
            if (again := await self._end_overdue()) is not None:
                timers.append(loop.call_later(again, self.wake))
            await changed
        finally:
            self._template.answers.stop_listening(session_id)
            for timer in timers:
                timer.cancel()

    async def _end_overdue(self) -> float | None:
        """Deny what was not answered in time; returns in how many seconds to check again, None for never."""
        now, answered = time.time(), {each.approval_id for each in self.answers}
        for request in self.state.open:
            if request.ends_at <= now and request.approval_id not in answered:
                await self._end(request)
        if (next_end := min((each.ends_at for each in self.state.open), default=math.inf)) < math.inf:
            return min(next_end - now, _LONGEST) if next_end > now else _RETRY
        return None

    async def _end(self, request: ApprovalRequested) -> None:
        """Deny a call that nobody answered in time, unless another process answered first."""
        session_id = self._journal.head.session_id
        end = ApprovalAnswer(
            request.approval_id, session_id, approved=False, at=request.ends_at, by="timeout"
        )
        with contextlib.suppress(AlreadyResolved, SessionError):
            await self.claim(end)
            self._receive(end)

    async def _listen(self, session_id: str) -> bool:
        """Take the answers of other processes, those that exist and those to come; returns whether they could
        be read.
        """
        store = self._template.store
        try:
            await self._template.answers.listen(session_id, self._receive)
            # Those that came while nobody listened, or others alone.
            asked = [each.approval_id for each in self.state.open]
            for answer in await settled(store.answers(asked)) if asked else ():
                if answer.session_id == session_id:
                    self._receive(answer)
        except Exception:  # noqa: BLE001 - a store that cannot be read for a moment ends no run that waits for people
            return False
        return True

    def _receive(self, answer: ApprovalAnswer) -> None:
        if self.state.find(answer.approval_id) is not None:
            self.answers.append(answer)
            self.wake()

    async def claim(self, answer: ApprovalAnswer) -> None:
        """Put this answer into the store as the first, and therefore the valid one. Raises AlreadyResolved,
        SessionError.
        """
        if not await self.signed.put(answer):
            self.wake()  # to look what was answered
            raise AlreadyResolved(f"approval {answer.approval_id} was answered in another process")

    def _head(self, run_id: str | None) -> tuple[str, str, int, float, str | None]:
        head = self._journal.head
        return self.pod, head.session_id, head.seq + 1, time.time(), run_id

    def _add(self, event: ApprovalRequested | ApprovalResolved) -> None:
        durable_seq = self._journal.log.durable_seq
        self._before = [each for each in self._before if each[0] > durable_seq]
        self._before.append((event.seq, self.state))
        self.state = self.state.after(event)
        self._journal.log.add(event)

    def _without_granted(self, *call_ids: str) -> None:
        def without(state: Approvals) -> Approvals:
            left = tuple(each for each in state.granted if each.request.call_id not in call_ids)
            return Approvals(state.open, left, state.rules)

        self.state = without(self.state)
        self._before = [(seq, without(before)) for seq, before in self._before]


def _new_id() -> str:
    """An id that no question had before, also in a program that seeds ``random``: an answer is kept by it."""
    return os.urandom(8).hex()
