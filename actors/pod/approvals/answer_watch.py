"""``AnswerWatch``: polls the store for answers given in other processes, while any pod waits for one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from actors.sessions.answers import OF_DRIVERS, settled
from actors.sessions.store import SessionStore
from protocol.approval import ApprovalAnswer

if TYPE_CHECKING:
    from actors.pod.approvals.open_approvals import OpenApprovals

#: Seconds between two looks at the store.
INTERVAL = 0.25


class AnswerWatch:
    """Polls a store for new answers, once for all waiting pods of a system, and never while none waits."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        #: Who has asked what is open, by its id; of two that ask under one id the first.
        self.askers: WeakValueDictionary[str, OpenApprovals] = WeakValueDictionary()
        #: The listeners, by their sessions.
        self._waiting: dict[str, Callable[[ApprovalAnswer], None]] = {}
        self._mark: object = None
        self._timer: asyncio.TimerHandle | None = None
        self._look_task: asyncio.Task[None] | None = None

    async def listen(self, session_id: str, on_answer: Callable[[ApprovalAnswer], None]) -> None:
        """Call ``on_answer`` with each new answer of that session, until ``stop_listening``. Raises
        SessionError.
        """
        if self._mark is None:
            mark, _ = await settled(self._store.answers_since(None))
            if self._mark is None:  # another pod's may have come meanwhile
                self._mark = mark
        self._waiting[session_id] = on_answer
        self._look_later()

    def stop_listening(self, session_id: str) -> None:
        """Stop looking for answers of that session; idempotent."""
        self._waiting.pop(session_id, None)
        if not self._waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._look)

    def _look(self) -> None:
        self._timer = None
        with contextlib.suppress(*OF_DRIVERS):  # the next look may find it; a pod notices at its commit
            found = self._store.answers_since(self._mark)
            if isinstance(found, Awaitable):
                self._look_task = asyncio.get_running_loop().create_task(self._await(found))
                return
            self._take(found)
        self._look_later()

    async def _await(self, found: Awaitable[tuple[object, list[ApprovalAnswer]]]) -> None:
        with contextlib.suppress(Exception):
            self._take(await settled(found))
        if self._waiting:
            self._look_later()

    def _take(self, found: tuple[object, list[ApprovalAnswer]]) -> None:
        self._mark, answers = found
        for answer in answers:
            if (on_answer := self._waiting.get(answer.session_id)) is not None:
                on_answer(answer)
