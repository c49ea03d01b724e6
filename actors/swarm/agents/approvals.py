"""``AgentApprovals``: what a foreign program asks a person to approve, and answers, from any process."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable

from msgspec import Struct

from actors.pod.approvals.signed_answers import SignedAnswers
from actors.swarm.agents.home import Home
from actors.swarm.runners.base import APPROVED, Answer, Permission
from protocol.approval import ApprovalAnswer
from protocol.errors import AlreadyResolved, SessionError, UnknownApproval
from protocol.events import ApprovalRequested, ApprovalResolved, DurableEvent


class _Open(Struct, eq=False):
    request: ApprovalRequested
    answer: asyncio.Future[ApprovalAnswer]


class AgentApprovals:
    """The approvals that one agent waits for. Each request is recorded before anybody is asked, and its
    answer before the program gets it; the first answer of all processes counts.
    """

    def __init__(self, home: Home, agent_id: str, record: Callable[..., Awaitable[None]]) -> None:
        self._home = home
        self._signed = SignedAnswers(home.store)
        self._agent_id = agent_id
        self._record = record
        self._open: dict[str, _Open] = {}
        self._listening: str | None = None
        #: What is recorded and waits to be asked again, of a program that was found again.
        self.pending: list[ApprovalRequested] = []

    @property
    def open(self) -> list[ApprovalRequested]:
        """The open requests, oldest first."""
        return [each.request for each in self._open.values()]

    async def ask(self, permission: Permission, session_id: str) -> Answer:
        """Ask a person, for as long as it takes. Raises SessionError."""
        if (request := self._take_pending(permission)) is not None:
            return await self._wait(request, session_id)
        request = ApprovalRequested(
            self._agent_id,
            session_id,
            0,
            time.time(),
            approval_id=f"{uuid.uuid4().hex[:6]}-{key}" if (key := permission.key) else uuid.uuid4().hex[:12],
            tool=permission.tool,
            call_id=permission.call_id,
            arguments=permission.arguments,
            why=permission.why,
            token=self._signed.token_id(),
            form=permission.form,
        )
        return await self._wait(request, session_id, self._record(request))

    def _take_pending(self, permission: Permission) -> ApprovalRequested | None:
        """The request of the same question, where it was recorded by who looked after the agent before."""
        for each in self.pending:
            if permission.key and each.approval_id.partition("-")[2] == permission.key:
                self.pending.remove(each)
                return each
        return None

    async def _wait(
        self, request: ApprovalRequested, session_id: str, recorded: Awaitable[None] | None = None
    ) -> Answer:
        """Wait for the answer, once the request is ``recorded``. Raises SessionError."""
        waiting = _Open(request, asyncio.get_running_loop().create_future())
        self._open[request.approval_id] = waiting
        try:
            if recorded is not None:
                await recorded
            await self._listen(session_id)
            answer = await waiting.answer
        except asyncio.CancelledError as cancelled:
            self._open.pop(request.approval_id, None)
            approved, by = APPROVED in cancelled.args, "person" if cancelled.args else "run"
            with contextlib.suppress(SessionError):
                await self._record(_resolved(request, approved=approved, by=by))
            raise
        finally:
            self._open.pop(request.approval_id, None)
            self._stop_listening()
        await self._record(
            _resolved(
                request,
                approved=answer.approved,
                by=answer.by,
                arguments=answer.arguments,
                note=answer.note,
            )
        )
        return Answer(
            approved=answer.approved, always=answer.always, arguments=answer.arguments, note=answer.note
        )

    async def answer(self, approval_id: str, session_id: str, answer: Answer) -> None:
        """Answer an open request. Raises UnknownApproval, AlreadyResolved, StoreError."""
        waiting = self._open.get(approval_id)
        if waiting is None:
            raise UnknownApproval(f"agent {self._agent_id} is not waiting for approval {approval_id!r}")
        given = ApprovalAnswer(
            approval_id,
            session_id,
            answer.approved,
            time.time(),
            always=answer.always,
            arguments=answer.arguments,
            note=answer.note,
        )
        kept = await self._signed.put(given)
        if not kept or waiting.answer.done():
            raise AlreadyResolved(f"approval {approval_id} has already been answered")
        waiting.answer.set_result(given)

    async def _listen(self, session_id: str) -> None:
        """Receive the answers of other processes while any request is open."""
        if self._listening is None and self._home.store.keeps_answers:
            self._listening = session_id
            await self._home.answers.listen(session_id, self._take)

    def _stop_listening(self) -> None:
        if not self._open and self._listening is not None:
            session_id, self._listening = self._listening, None
            self._home.answers.stop_listening(session_id)

    def _take(self, answer: ApprovalAnswer) -> None:
        waiting = self._open.get(answer.approval_id)
        if waiting is None or waiting.answer.done():
            return
        if self._signed.proves(waiting.request, answer):
            waiting.answer.set_result(answer)
        else:
            refused = ApprovalAnswer(answer.approval_id, answer.session_id, False, time.time(), by="unproved")
            waiting.answer.set_result(refused)


def _resolved(
    request: ApprovalRequested,
    *,
    approved: bool,
    by: str,
    arguments: dict[str, object] | None = None,
    note: str | None = None,
) -> DurableEvent:
    return ApprovalResolved(
        "",
        "",
        0,
        time.time(),
        approval_id=request.approval_id,
        approved=approved,
        by=by,
        call_id=request.call_id,
        arguments=arguments,
        note=note,
    )
