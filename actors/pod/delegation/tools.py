"""``DelegationTools``: what a model can do with its sub-agents: start, send, read, stop, list."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from actors.pod.delegation import output
from actors.runtime.future import AsyncFuture
from actors.tools.pods import Asked
from protocol.errors import PodError, ToolError
from protocol.events import ChildEnded
from protocol.text import encodable

if TYPE_CHECKING:
    from actors.pod.delegation.delegation import Delegation
    from actors.pod.delegation.sub_agent import SubAgent


class DelegationTools:
    """The ``SubAgents`` of one pod. Raises ToolError, whose words are for the model."""

    __slots__ = ("_delegation",)

    def __init__(self, delegation: Delegation) -> None:
        self._delegation = delegation

    async def spawn(self, asked: Asked) -> dict[str, Any]:
        """Start a sub-agent and give it a task. Raises ToolError."""
        delegation = self._delegation
        await delegation.wait_for_restored()
        child = delegation.admit(asked)
        began: AsyncFuture[None] = AsyncFuture()
        # In a task of the pod's own: whoever cancels the call, what is durable is carried out.
        delegation.tasks.start_at_once(delegation.begin(child, began))
        await began
        return {"name": asked.name, "pod": child.started.child, "session": child.session}

    async def send(self, name: str, text: str) -> str:
        """Send a message to a sub-agent. Raises ToolError."""
        child = await self._find(name)
        if child.ending or child.pod is None:
            raise ToolError(child.why or f"{name!r} has ended and receives no more messages")
        # Not awaited: one that waits for its model records the words before its next request.
        sent = child.pod.notify(text)
        if sent.done() and (error := sent.exception()) is not None:
            raise ToolError(f"{name!r} did not receive the message: {error}") from error
        return f"{name} received the message"

    async def read(self, name: str, after: int, wait: float) -> dict[str, Any]:
        """What a sub-agent has said after entry ``after``; if nothing, wait up to ``wait``
        seconds for more.
        """
        delegation = self._delegation
        await delegation.wait_for_restored()
        child = delegation.living.get(name)
        if child is not None and wait > 0:
            await self._wait_for_news(child, after, wait)
        ended = None if name in delegation.living else self._ended(name)
        session = ended.child_session if child is None and ended is not None else None
        if child is not None:
            session = child.session
        if session is None:
            raise self._unknown(name)
        said = await output.answers_after(delegation.template.store, session, after)
        state = await self._state(child) if ended is None and child is not None else "ended"
        found: dict[str, Any] = {"state": state, "said": said.texts, "next": said.next}
        if ended is not None:
            found["outcome"] = ended.outcome
        return found

    async def _wait_for_news(self, child: SubAgent, after: int, wait: float) -> None:
        delegation, name = self._delegation, child.started.name
        store = delegation.template.store
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                while delegation.living.get(name) is child:
                    if (await output.answers_after(store, child.session, after)).texts:
                        return
                    news = delegation.tasks.loop.create_future()
                    child.news.append(news)
                    await news

    async def stop(self, name: str) -> str:
        """Stop a sub-agent, and wait until that is durable. Raises ToolError."""
        child = await self._find(name)
        if child.pod is None:
            raise ToolError(child.why or f"{name!r} is not running yet")
        child.pod.stop()
        ended = await child.ended
        return f"{name} has ended: {ended.outcome}"

    async def list(self) -> list[dict[str, Any]]:
        """The living sub-agents, and the last that have ended."""
        delegation = self._delegation
        await delegation.wait_for_restored()
        ended = [  # before it is waited for the living, of which one may end meanwhile
            {"name": each.name, "state": "ended", "outcome": each.outcome} for each in delegation.state.ended
        ]
        living = [
            {"name": name, "state": await self._state(child), "task": child.started.task}
            for name, child in list(delegation.living.items())
        ]
        return living + ended

    async def _find(self, name: str) -> SubAgent:
        await self._delegation.wait_for_restored()
        child = self._delegation.living.get(name)
        if child is not None:
            return child
        ended = self._ended(name)
        raise self._unknown(name) if ended is None else ToolError(f"{name!r} has ended: {ended.outcome}")

    def _ended(self, name: str) -> ChildEnded | None:
        return next((each for each in reversed(self._delegation.state.ended) if each.name == name), None)

    def _unknown(self, name: str) -> ToolError:
        delegation = self._delegation
        known = ", ".join([*delegation.living, *(each.name for each in delegation.state.ended)]) or "none"
        return ToolError(f"there is no sub-agent {encodable(name)!r}; known: {known}")

    async def _state(self, child: SubAgent) -> str:
        if child.pod is None:
            return "starting" if child.why is None else child.why
        if child.ending:
            return "ending"
        try:
            return str((await child.pod.describe()).state)
        except PodError:
            return "ended"
