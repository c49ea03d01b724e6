"""A helper agent: one bounded model-and-tool loop, whose calls have each a context of their own."""

from __future__ import annotations

import asyncio
from pathlib import Path

from actors.llm.base import Answer, Request
from actors.llm.retry import ask
from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.memory.helper_agent import HelperAgent, Reminder
from actors.tools.base import ToolContext, tool
from actors.tools.toolbox import Toolbox
from protocol.items import ToolResult
from protocol.scope import Scope


class Deaf:
    """Receives nothing of how a request is answered."""

    def is_wanted(self) -> bool:
        return False

    def text(self, *_: object) -> None:
        """Of nobody."""

    block = begin = again = text


def at_work(
    replies: list[Reply], toolbox: Toolbox, most_steps: int = 8
) -> tuple[HelperAgent, ScriptedClient]:
    client = ScriptedClient(replies)

    async def answer(request: Request) -> Answer:
        return await ask(client, request, Deaf())

    def context() -> ToolContext:
        return ToolContext(pwd=Path.cwd(), scope=Scope())

    return HelperAgent(answer, "m", toolbox, context, "You help.", 100, most_steps), client


@tool(timeout=0.05)
async def never() -> str:
    """Take too long."""
    await asyncio.Event().wait()
    return ""


@tool
async def look(ctx: ToolContext) -> str:
    """Say whether the call was cancelled."""
    return f"cancelled: {ctx.cancel.cancelled}"


def test_a_call_that_took_too_long_cancels_none_behind_it() -> None:
    async def main() -> None:
        agent, client = at_work([call("never"), call("look"), say("done")], Toolbox([never, look]))
        assert await agent.work("go", answered=lambda _: None, stands=lambda _: False)
        results = [item.text for item in client.requests[-1].items if isinstance(item, ToolResult)]
        assert "took too long" in results[0]
        assert results[1] == "cancelled: False"

    asyncio.run(asyncio.wait_for(main(), 60))


def test_it_is_reminded_as_often_as_it_is_asked_to_and_ends_within_its_steps() -> None:
    async def main() -> None:
        agent, client = at_work([say("a"), call("look"), say("b")], Toolbox([look]), most_steps=3)
        reminders = [Reminder("call it", "look"), None]
        ended = await agent.work("go", answered=lambda _: reminders.pop(0), stands=lambda _: False)
        assert ended
        assert [request.forced_tool for request in client.requests] == [None, "look", None]
        agent, client = at_work([say("a")] * 3, Toolbox([look]), most_steps=3)
        endless = Reminder("call it")
        assert not await agent.work("go", answered=lambda _: endless, stands=lambda _: False)

    asyncio.run(asyncio.wait_for(main(), 60))
