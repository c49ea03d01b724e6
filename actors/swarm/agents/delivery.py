"""``Delivery``: words that wait for an agent: each is delivered once, as soon as its program accepts any."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from protocol.agents import LIVING, stands
from protocol.errors import AgentBusy, AgentError, AgentNotRunning

if TYPE_CHECKING:
    from actors.swarm.agents.changes import Changes
    from actors.swarm.agents.keeper import Keeper
    from actors.swarm.runners.base import Life


class Delivery:
    """Delivers words to one agent, one after the other.

    A program that does one task and ends is started again with the next words: its keeper does that.
    """

    def __init__(self, keeper: Keeper, changes: Changes) -> None:
        self._keeper = keeper
        self._changes = changes
        #: Words that wait to be delivered, and who is answered once they were.
        self._words: deque[tuple[str, asyncio.Future[None]]] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def waits(self) -> bool:
        """Whether there are words that were not delivered yet."""
        return bool(self._words)

    @property
    def first(self) -> str:
        """The words that are delivered next; there have to be some."""
        return self._words[0][0]

    async def send(self, text: str) -> None:
        """Send the agent words; returns once they were delivered. Raises AgentNotRunning, AgentError."""
        keeper = self._keeper
        if not text.strip():
            raise AgentError("the message is empty")
        if not self._are_taken():
            text = f"agent {keeper.spec.id} {stands(keeper.status)} and accepts no messages"
            raise AgentNotRunning(text, hint="resume it first")
        reply: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._words.append((text, reply))
        if keeper.over:
            keeper.begin_with_words()
        elif self._task is None or self._task.done():
            self._task = keeper.start_task(self._deliver())
        await reply

    def _are_taken(self) -> bool:
        keeper = self._keeper
        if keeper.stopping or keeper.removed or not (keeper.is_ours or keeper.one_shot):
            return False
        return keeper.status in LIVING or (keeper.one_shot and keeper.status == "done")

    def next_task(self) -> str | None:
        """The words that a program is to be started with that has done its task and ended."""
        keeper = self._keeper
        can = keeper.one_shot and self._words and not keeper.stopping and keeper.state.status == "done"
        return self.first if can else None

    async def _deliver(self) -> None:
        keeper, changes = self._keeper, self._changes
        while self._words:
            await changes.until(self._is_over_or_up)
            if keeper.is_ending or not self._words:
                return
            life, seen = keeper.life, changes.count
            assert life is not None
            text, reply = self._words[0]
            try:
                await life.send(text)
            except AgentBusy:
                await changes.until(lambda: changes.count != seen and self._may_try(life))  # noqa: B023
            except AgentNotRunning:
                if keeper.one_shot:
                    return  # what starts it for its next task delivers them
                await changes.until(lambda: changes.count != seen or keeper.is_ending)  # noqa: B023
            except Exception as error:  # noqa: BLE001 - who sent them gets it
                self._answer(reply, error)
            else:
                self._answer(reply)

    def _is_over_or_up(self) -> bool:
        keeper = self._keeper
        return keeper.is_ending or (keeper.life is not None and keeper.state.up)

    def _may_try(self, life: Life) -> bool:
        keeper = self._keeper
        return keeper.life is not life or keeper.is_ending or keeper.state.status == "idle"

    def _answer(self, reply: asyncio.Future[None], error: BaseException | None = None) -> None:
        if self._words and self._words[0][1] is reply:
            self._words.popleft()
        if not reply.done():
            reply.set_result(None) if error is None else reply.set_exception(error)
        self._changes.note()

    def note_begun_with(self, text: str) -> None:
        """Answer the words that a program was started with, since they have reached it."""
        if self._keeper.one_shot and self._words and self.first == text:
            self._answer(self._words[0][1])

    def fail_all(self, error: BaseException | None = None) -> None:
        """Answer what could not be delivered: by ``error``, or by AgentNotRunning."""
        keeper = self._keeper
        words, self._words = self._words, deque()
        for text, reply in words:
            if not reply.done():
                undelivered = AgentNotRunning(
                    f"agent {keeper.spec.id} {stands(keeper.status)} and never received {text[:60]!r}",
                    hint="resume it, then send the message again",
                )
                reply.set_exception(error or undelivered)
