"""``WaitingCalls``: finds the calls that wait for approval in a system's pods, and sends answers to them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from actors.pod.handle import Pod
from actors.pod.local import remote_pod
from actors.runtime.future import AsyncFuture
from actors.runtime.loop import Mailroom
from actors.runtime.on_loop import future_of, settle
from actors.sessions.answers import settled
from actors.sessions.store import SessionStore
from actors.swarm.roster import Roster
from protocol import commands
from protocol.errors import SessionError, UnknownApproval
from protocol.events import ApprovalRequested
from protocol.foreign import shown

if TYPE_CHECKING:
    from actors.pod.approvals.open_approvals import OpenApprovals


class WaitingCalls:
    """Finds waiting calls by their ids, in whichever pod made them."""

    __slots__ = ("_askers", "_mailroom", "_roster", "_store")

    def __init__(
        self,
        mailroom: Mailroom,
        store: SessionStore,
        roster: Roster,
        askers: Mapping[str, OpenApprovals],
    ) -> None:
        """``askers`` has who has asked what, as far as is known without looking at every pod."""
        self._askers = askers
        self._mailroom = mailroom
        self._store = store
        self._roster = roster

    async def find_all(self) -> list[ApprovalRequested]:
        """The calls that wait and that nobody has answered, oldest first."""
        found = [request for name in self._roster.pods for request in self._open(name)]
        if found and self._store.keeps_answers:
            with contextlib.suppress(SessionError):  # then who answers gets AlreadyResolved
                answers = await settled(self._store.answers([each.approval_id for each in found]))
                answered = {(each.approval_id, each.session_id) for each in answers}
                found = [each for each in found if (each.approval_id, each.session_id) not in answered]
        return sorted(found, key=lambda request: request.at)

    def answer(self, approval_id: object, command: commands.Command) -> AsyncFuture[None]:
        """Send an answer to the pod that has asked; from any thread. The future raises UnknownApproval, and
        what the pod does.
        """
        future: AsyncFuture[None] = future_of(self._mailroom)

        def ask(_: object) -> None:
            pod = self._asker_of(approval_id) if isinstance(approval_id, str) else None
            if pod is None:
                unknown = UnknownApproval(f"no pod has an approval with the id {shown(approval_id)}")
                future.set_exception(unknown)
                return
            answer = pod.address.ask(pod, command)
            answer.when_done(lambda: settle(future, answer.get))

        self._mailroom.post(ask)
        return future

    def _open(self, name: str) -> tuple[ApprovalRequested, ...]:
        actor = self._roster.started(name)
        if actor is None:
            remote = remote_pod(self._roster.pods[name])
            return () if remote is None else tuple(remote.open_approvals())
        return () if actor.approvals is None else actor.approvals.durable_open()

    def _asker_of(self, approval_id: str) -> Pod | None:
        asker = self._askers.get(approval_id)
        if asker is not None and (actor := self._roster.started(asker.pod)) and actor.approvals is asker:
            return self._roster.pods[asker.pod]
        for name, pod in self._roster.pods.items():
            actor = self._roster.started(name)
            approvals = None if actor is None else actor.approvals
            if approvals is not None and approvals.knows(approval_id):
                return pod
            if (remote := remote_pod(pod)) is not None and remote.has_asked(approval_id):
                return pod
        return None
