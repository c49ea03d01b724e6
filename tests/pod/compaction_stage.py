"""What the tests of compactions share: a pod over a script, and which of its events are of compactions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from actors.llm.scripted import ScriptedClient, call, say
from actors.system import PodSystem
from actors.tools.base import Tool
from protocol.errors import ModelError
from protocol.events import Event
from protocol.manifest import PodManifest

SUMMARY = [call("write_summary", {"text": "what was"}), say("done")]
OVERFLOW = ModelError("too long", kind="context_overflow")


def of_compactions(events: Sequence[Event]) -> list[str]:
    """What was reported of compactions."""
    return [type(event).__name__ for event in events if type(event).__name__.startswith("Compact")]


def play_script(replies: list[Any], play: Any, *, tools: Sequence[Tool] = (), **settings: Any) -> None:
    """Play with a pod that gets these replies: its events, its client and its system are handed over."""

    async def main() -> None:
        client = ScriptedClient(replies)
        async with PodSystem() as system:
            pod = await system.spawn(PodManifest.of(name="p", **settings), client=client, tools=tools)
            with system.subscribe("p") as events:
                await asyncio.wait_for(play(pod, events, client, system), 60)

    asyncio.run(main())
