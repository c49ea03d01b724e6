"""The tool by which a model has agents at work in the background, of which it gets one report."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from actors.tools.base import Tool, ToolContext, tool
from actors.tools.extras import AGENTS


@tool
async def swarm_spawn(
    task: Annotated[str, Meta(description="what the agent must do; it does not see this conversation")],
    model: Annotated[str | None, Meta(description="the name of a model other than yours")] = None,
    provider: Annotated[str | None, Meta(description="the provider of that model")] = None,
    *,
    ctx: ToolContext,
) -> str:
    """Start an agent that works in the background, and give its id at once. Start all that you need: once the
    last of them has ended its task, you get one message with what each has answered. What they take counts
    against your budget.
    """
    spawn: Any = ctx.extras[AGENTS]
    started: str = await spawn(ctx.pod, task, model, provider)
    return started


AGENT_TOOLS: tuple[Tool, ...] = (swarm_spawn,)
